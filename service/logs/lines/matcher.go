package lines

import (
	"bytes"
	"encoding/binary"
	"regexp"
)

// matcher finds lines that match a query in a text of many lines. Most lines are passed over without being looked at one by one:
// it scans for literals, and only a line with one of them is shown to the expression.
type matcher struct {
	literals   [][]byte       // every line that matches has one of them; none: not known
	folded     bool           // they are in lower case, and found in any
	expression *regexp.Regexp // nil: what has the one literal matches

	text    []byte // lines without the last line end
	returns bool   // a '\r' before a line end is not part of the line
	scanned []byte // the text, or what it is in lower case
	lower   []byte // kept to be used again
	next    []int  // where each literal is next; -1: nowhere
}

// hit is a line that matches: its place in the text, and that of its first match in the line.
type hit struct {
	from, to   int
	start, end int
	next       int // where the next line begins; behind the text after the last
}

// textMatcher finds lines that have a text.
func textMatcher(text string, ignoreCase bool) *matcher {
	return newMatcher([][]byte{[]byte(text)}, ignoreCase, nil)
}

func newMatcher(literals [][]byte, folded bool, expression *regexp.Regexp) *matcher {
	m := &matcher{folded: folded, expression: expression, next: make([]int, len(literals))}
	for _, literal := range literals {
		if folded {
			literal = appendLower(nil, literal)
		}
		m.literals = append(m.literals, literal)
	}
	return m
}

// load sets the text in which find looks: lines without the last line end. It is not copied.
func (m *matcher) load(text []byte, returns bool) {
	m.text, m.scanned, m.returns = text, text, returns
	if m.folded {
		m.lower = appendLower(m.lower[:0], text)
		m.scanned = m.lower
	}
	for i, literal := range m.literals {
		m.next[i] = bytes.Index(m.scanned, literal)
	}
}

// find returns the first line that matches of those from a place on, where a line begins.
func (m *matcher) find(at int) (h hit, found bool) {
	for at <= len(m.text) {
		place := m.candidate(at)
		if place < 0 {
			break
		}
		h.from = at + bytes.LastIndexByte(m.text[at:place], '\n') + 1
		h.to = len(m.text)
		if n := bytes.IndexByte(m.text[place:], '\n'); n >= 0 {
			h.to = place + n
		}
		h.next = h.to + 1
		line := m.text[h.from:h.to]
		if m.returns {
			line = withoutReturn(line)
		}
		if h.start, h.end = m.match(line, place-h.from); h.start >= 0 {
			h.to = h.from + len(line)
			return h, true
		}
		at = h.next
	}
	return hit{}, false
}

// candidate returns a place in the first line that may match, of those from a place on; -1 when there is none.
func (m *matcher) candidate(at int) int {
	if len(m.literals) == 0 {
		return at
	}
	first := -1
	for i, literal := range m.literals {
		if m.next[i] >= 0 && m.next[i] < at {
			if m.next[i] = bytes.Index(m.scanned[at:], literal); m.next[i] >= 0 {
				m.next[i] += at
			}
		}
		if n := m.next[i]; n >= 0 && (first < 0 || n < first) {
			first = n
		}
	}
	return first
}

// match returns where a line, in which a literal begins at a place, matches; -1 when it does not.
func (m *matcher) match(line []byte, literal int) (start, end int) {
	if m.expression == nil {
		if end = literal + len(m.literals[0]); end <= len(line) {
			return literal, end
		}
	} else if found := m.expression.FindIndex(line); found != nil {
		return found[0], found[1]
	}
	return -1, -1
}

// appendLower appends a text with its ASCII letters in lower case, eight bytes at a time: in each byte the top bit is computed to
// say whether it is a large letter, and moved to where the two cases differ.
func appendLower(to, text []byte) []byte {
	const each = 0x0101010101010101
	for ; len(text) >= 8; text = text[8:] {
		w := binary.LittleEndian.Uint64(text)
		low := w & (0x7f * each)
		large := (low + (0x80-'A')*each) &^ (low + (0x7f-'Z')*each) &^ w & (0x80 * each)
		to = binary.LittleEndian.AppendUint64(to, w|large>>2)
	}
	for _, b := range text {
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		to = append(to, b)
	}
	return to
}
