package main

import (
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// maxCell bounds what others have written in a table.
const maxCell = 200

// cell makes a text of others fit into a table: one that could begin another line, or do things to the terminal, would forge what
// the table says.
func cell(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
	if runes := []rune(text); len(runes) > maxCell {
		text = string(runes[:maxCell-3]) + "..."
	}
	return orDash(text)
}

// date writes a time to the minute, on this machine's clock.
func date(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return dateOf(t.AsTime())
}

func dateOf(t time.Time) string { return t.Local().Format("2006-01-02 15:04") }

// ago says how long ago something was; never when it was not.
func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	return age(t) + " ago"
}

// collect reads what there is, up to limit (0: all of it).
func collect[T any](all iter.Seq2[T, error], limit int) (list []T, err error) {
	for item, err := range all {
		if err != nil {
			return nil, err
		}
		if list = append(list, item); len(list) == limit {
			break
		}
	}
	return list, nil
}

// grantText is a role in a namespace, as --grant takes it.
func grantText(role, namespace string) string { return fmt.Sprintf("%s@%s", role, namespace) }
