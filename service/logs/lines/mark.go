package lines

import (
	"bytes"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mark is what a line says of groups.
type mark struct {
	style       Style
	ends        bool // it ends a group
	title, name string
	collapsed   bool
	doubt       *header // nil: it is a mark whatever lines are next to it
}

// header is a mark that is also printed where none is meant.
type header struct {
	prefix              string
	collapsed           bool
	notAfter, notBefore []string // with what a line begins before or after which it is no mark
}

var (
	collapsedHeader = header{"--- ", true, []string{"*** "}, []string{"+++ ", "@@", "***"}}
	expandedHeader  = header{"+++ ", false, []string{"--- ", "++ "}, []string{"@@", "++ "}}
	tellers         = []string{"*** ", "--- ", "++ "} // all of notAfter
)

// beginsMark says with which bytes the lines begin that matter: marks, and what tells of a header that it is none.
var beginsMark = [256]bool{':': true, '-': true, '+': true, '~': true, 's': true, escape: true, '*': true}

const escape = '\x1b'

// hasPrefix returns the first of some prefixes that a line has; "" when it has none.
func hasPrefix(line []byte, prefixes []string) string {
	for _, p := range prefixes {
		if bytes.HasPrefix(line, []byte(p)) {
			return p
		}
	}
	return ""
}

// parseMarks returns the marks of a line. Only sections can have several in one.
func parseMarks(line []byte) []mark {
	if len(line) == 0 {
		return nil
	}
	switch line[0] {
	case ':':
		if title, ok := bytes.CutPrefix(line, []byte("::group::")); ok {
			return []mark{{style: StyleGroup, title: clean(title), collapsed: true}}
		}
		if bytes.HasPrefix(line, []byte("::endgroup::")) {
			return []mark{{style: StyleGroup, ends: true}}
		}
	case '-':
		return parseHeader(line, &collapsedHeader)
	case '+':
		return parseHeader(line, &expandedHeader)
	case '~':
		if title, ok := bytes.CutPrefix(line, []byte("~~~ ")); ok {
			if title := clean(title); title != "" {
				return []mark{{style: StyleMuted, title: title, collapsed: true}}
			}
		}
	case 's', escape:
		return parseSections(line)
	}
	return nil
}

// goResults are what go test prints in the form of headers.
var goResults = []string{"PASS: ", "FAIL: ", "SKIP: ", "BENCH: "}

func parseHeader(line []byte, h *header) []mark {
	text, ok := bytes.CutPrefix(line, []byte(h.prefix))
	if !ok || hasPrefix(text, goResults) != "" {
		return nil
	}
	title := clean(text)
	if title == "" || strings.HasSuffix(title, "---") {
		return nil
	}
	return []mark{{style: StyleHeader, title: title, collapsed: h.collapsed, doubt: h}}
}

// section is a mark of a section: which of its ends it is, when, its name and options; a terminal then begins the line anew.
var section = regexp.MustCompile(`^section_(start|end):[0-9]{1,20}:([A-Za-z0-9_.-]{1,256})(?:\[([^\]\r]*)\])?(?:\r|$)`)

var eraseLine = []byte("\x1b[0K")

func parseSections(line []byte) []mark {
	var all []mark
	for {
		for bytes.HasPrefix(line, eraseLine) {
			line = line[len(eraseLine):]
		}
		if !bytes.HasPrefix(line, []byte("section_")) { // said at once of most lines with colours
			break
		}
		found := section.FindSubmatch(line)
		if found == nil {
			break
		}
		m := mark{style: StyleSection, name: string(found[2]), ends: found[1][0] == 'e'}
		for option := range bytes.SplitSeq(found[3], []byte(",")) {
			m.collapsed = m.collapsed || string(bytes.TrimSpace(option)) == "collapsed=true"
		}
		m.title = m.name
		all = append(all, m)
		line = line[len(found[0]):]
	}
	if n := len(all); n > 0 {
		if title := clean(line); title != "" {
			all[n-1].title = title
		}
	}
	return all
}

// sequence is an ANSI sequence: of a terminal's control, of its operating system, or of two bytes and what may lie between.
var sequence = regexp.MustCompile(`\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])`)

// clean is a title as it can be shown anywhere.
func clean(title []byte) string {
	text := strings.ToValidUTF8(string(sequence.ReplaceAll(title, nil)), "\ufffd")
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return -1
		}
		return r
	}, text))
	if len(text) <= maxTitle {
		return text
	}
	const more = "…"
	end := maxTitle - len(more)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + more
}
