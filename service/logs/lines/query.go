package lines

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// The limits of a query.
const (
	MaxTextBytes    = 4 << 10
	MaxPatternBytes = 1 << 10
	MaxContext      = 100    // lines before, and lines after, a match
	MaxMatches      = 10_000 // matches that are returned
)

// maxRepeated bounds by how many instructions the repetitions in a pattern may make it longer than it is: each takes memory, and may
// be tried at every byte.
const maxRepeated = 1_000

// Query says what to look for: a text or a pattern, one of them.
type Query struct {
	Text    string // bytes that a line must have
	Pattern string // an RE2 expression as of package regexp, which sees one line at a time: ^ and $ are the ends of the line
	// IgnoreCase takes large and small letters for equal; in a text of ASCII, or one that is not UTF-8, only those of ASCII.
	IgnoreCase bool
	Before     int   // lines of the same channel to return before each match, at most MaxContext
	After      int   // and after it
	Step       int32 // -1: all
	Stream     uint8 // 0: all
	MaxMatches int   // how many matches to return, at most MaxMatches; with 0 they are only counted
}

// matcher compiles a query. The error is for the one who wrote it.
func (q *Query) matcher() (*matcher, error) {
	switch {
	case q.Text != "" && q.Pattern != "":
		return nil, errors.New("the query has a text and a pattern: give one of them")
	case q.Text == "" && q.Pattern == "":
		return nil, errors.New("the query has neither a text nor a pattern: give one of them")
	case len(q.Text) > MaxTextBytes:
		return nil, fmt.Errorf("the text has %d bytes, and may have %d", len(q.Text), MaxTextBytes)
	case len(q.Pattern) > MaxPatternBytes:
		return nil, fmt.Errorf("the pattern has %d bytes, and may have %d", len(q.Pattern), MaxPatternBytes)
	case q.Before < 0 || q.Before > MaxContext || q.After < 0 || q.After > MaxContext:
		return nil, fmt.Errorf("the query asks for %d lines before and %d after a match; there may be 0 to %d", q.Before, q.After, MaxContext)
	case q.MaxMatches < 0 || q.MaxMatches > MaxMatches:
		return nil, fmt.Errorf("the query asks for %d matches; there may be 0 to %d", q.MaxMatches, MaxMatches)
	case q.Step < -1:
		return nil, fmt.Errorf("the query asks for step %d; they count from 0, and -1 is all of them", q.Step)
	case q.Pattern != "":
		return patternMatcher(q.Pattern, q.IgnoreCase)
	}
	if at := strings.IndexByte(q.Text, '\n'); at >= 0 {
		return nil, fmt.Errorf("the text has a line end at byte %d, and lines have none: look for one line of it", at)
	}
	if q.IgnoreCase && !isASCII(q.Text) && utf8.ValidString(q.Text) {
		return patternMatcher(regexp.QuoteMeta(q.Text), true)
	}
	return textMatcher(q.Text, q.IgnoreCase), nil
}

func isASCII(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// patternMatcher makes a matcher of a pattern, which it explains when it is wrong.
func patternMatcher(pattern string, ignoreCase bool) (*matcher, error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, explain(pattern, err)
	}
	if n := size(tree); n > len(pattern)+maxRepeated {
		return nil, fmt.Errorf("the pattern compiles to some %d instructions, and may to %d: repeat less in it", n, len(pattern)+maxRepeated)
	}
	if ignoreCase {
		pattern = "(?i)" + pattern
		if tree, err = syntax.Parse(pattern, syntax.Perl); err != nil {
			return nil, explain(pattern, err)
		}
	}
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, explain(pattern, err)
	}
	literals := required(tree)
	return newMatcher(literals.texts, literals.folded, expression), nil
}

// size is about how many instructions an expression compiles to.
func size(re *syntax.Regexp) int {
	n := 1
	for _, sub := range re.Sub {
		n += size(sub)
	}
	switch re.Op { //nolint:exhaustive // others are what they consist of
	case syntax.OpLiteral:
		n += len(re.Rune)
	case syntax.OpRepeat:
		n *= max(re.Min+1, re.Max)
	}
	return n
}

// explain says where a pattern is wrong: after the longest part of it that is right.
func explain(pattern string, err error) error {
	at := len(pattern)
	for ; at > 0; at-- {
		if _, err := syntax.Parse(pattern[:at], syntax.Perl); err == nil {
			break
		}
	}
	why := err.Error()
	var wrong *syntax.Error
	if errors.As(err, &wrong) {
		why = wrong.Code.String()
	}
	return fmt.Errorf("the pattern is wrong at byte %d, where %q begins: %s", at, excerpt(pattern[at:]), why)
}

// excerpt is the beginning of a text, for a message.
func excerpt(text string) string {
	const enough = 20
	if len(text) > enough {
		return text[:enough] + "..."
	}
	return text
}
