package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// print writes messages as the --output flag says: as JSON or YAML with the names of the protos, one document for a single
// message and a list for several; else table draws them.
func (g *global) print(w io.Writer, value any, table func(*tabwriter.Writer)) error {
	switch g.output {
	case "table":
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		table(t)
		return t.Flush()
	case "json", "yaml":
		plain, err := plainValue(value)
		if err != nil {
			return err
		}
		if g.output == "json" {
			encoder := json.NewEncoder(w)
			encoder.SetEscapeHTML(false)
			return encoder.Encode(plain)
		}
		return yaml.NewEncoder(w).Encode(plain)
	}
	return usageError{fmt.Errorf("--output %q is not known; use table, json or yaml", g.output)}
}

// plainValue turns messages into maps and lists with the names of the protos.
func plainValue(value any) (any, error) {
	var encoded []byte
	var err error
	if m, ok := value.(proto.Message); ok {
		encoded, err = protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	} else {
		encoded, err = json.Marshal(value)
	}
	if err != nil {
		return nil, err
	}
	var plain any
	err = json.NewDecoder(bytes.NewReader(encoded)).Decode(&plain)
	return plain, err
}

// plainList is plainValue for several messages.
func plainList[M proto.Message](messages []M) (any, error) {
	list := make([]any, 0, len(messages))
	for _, m := range messages {
		plain, err := plainValue(m)
		if err != nil {
			return nil, err
		}
		list = append(list, plain)
	}
	return list, nil
}

// short writes an enum's value without its prefix, in lower case.
func short(value fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(value.String(), prefix))
}

// age says how long ago something was.
func age(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return rounded(time.Since(t.AsTime()))
}

// rounded writes a duration with as much precision as a person wants.
func rounded(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
