package lines

import (
	"bytes"
	"cmp"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// modelLine is a line as the model sees it.
type modelLine struct {
	ContextLine
	channel
	raw  []byte // what stands before '\n'
	text []byte // and what of it is the line
	end  uint64 // where it ends; after everything when it has no end
}

// modelLines takes pieces apart byte by byte.
func modelLines(all []Piece, window int) []modelLine {
	open := make(map[channel]*modelLine)
	var out []modelLine
	newlines, offset := uint64(0), uint64(0)
	finish := func(l *modelLine, end uint64) {
		l.end, l.text = end, bytes.TrimSuffix(l.raw, []byte("\r"))
		l.ContextLine = l.with(l.text)
		l.Text = l.Text[:min(len(l.Text), window)]
		out = append(out, *l)
		delete(open, l.channel)
	}
	for _, p := range all {
		c := channel{p.Step, p.Stream}
		for i, b := range p.Data {
			offset = p.Offset + uint64(i)
			if open[c] == nil {
				open[c] = &modelLine{ContextLine: ContextLine{Line: newlines, Offset: offset, Time: p.Time}, channel: c}
			}
			if b == '\n' {
				finish(open[c], offset)
				newlines++
			} else {
				open[c].raw = append(open[c].raw, b)
			}
		}
	}
	for _, l := range open {
		finish(l, offset+1+l.Offset)
	}
	slices.SortFunc(out, func(a, b modelLine) int { return cmp.Compare(a.end, b.end) })
	return out
}

// finder returns what finds the first match in a text.
func (q Query) finder() func(text string) []int {
	if q.IgnoreCase && !isASCII(q.Text) && utf8.ValidString(q.Text) {
		q.Text, q.Pattern = "", regexp.QuoteMeta(q.Text)
	}
	switch {
	case q.Pattern != "" && q.IgnoreCase:
		return regexp.MustCompile("(?i)" + q.Pattern).FindStringIndex
	case q.Pattern != "":
		return regexp.MustCompile(q.Pattern).FindStringIndex
	}
	return func(text string) []int {
		find := q.Text
		if q.IgnoreCase {
			text, find = lowerCase(text), lowerCase(find)
		}
		if at := strings.Index(text, find); at >= 0 {
			return []int{at, at + len(find)}
		}
		return nil
	}
}

// lowerCase is a text with its ASCII letters in lower case.
func lowerCase(text string) string {
	b := []byte(text)
	for i := range b {
		if 'A' <= b[i] && b[i] <= 'Z' {
			b[i] += 'a' - 'A'
		}
	}
	return string(b)
}

// match is the first match of a line, in the first of its windows with one.
func (l *modelLine) match(first func(text string) []int, window, overlap int) *Match {
	for at := 0; ; at += window - overlap {
		last := len(l.raw) <= at+window
		text := l.text[at:]
		if !last {
			text = l.raw[at : at+window]
		}
		if found := first(string(text)); found != nil {
			m := l.channel.match(l.ContextLine, text, hit{start: found[0], end: found[1]})
			m.Skipped += uint64(at)
			m.Cut = m.Cut || !last
			return m
		}
		if last {
			return nil
		}
	}
}

// modelSearch is a search without any haste.
func modelSearch(q Query, all []Piece, window, overlap int) Result {
	var r Result
	first := q.finder()
	ls := modelLines(all, window)
	for i := range ls {
		l := &ls[i]
		if q.Step >= 0 && q.Step != l.step || q.Stream != 0 && q.Stream != l.stream {
			continue
		}
		m := l.match(first, window, overlap)
		if m == nil {
			continue
		}
		if r.Count++; len(r.Matches) == q.MaxMatches {
			continue
		}
		for j := i - 1; j >= 0 && len(m.Before) < q.Before; j-- {
			if ls[j].channel == l.channel {
				m.Before = append(m.Before, ls[j].ContextLine)
			}
		}
		slices.Reverse(m.Before)
		for j := i + 1; j < len(ls) && len(m.After) < q.After; j++ {
			if ls[j].channel == l.channel {
				m.After = append(m.After, ls[j].ContextLine)
			}
		}
		r.Matches = append(r.Matches, *m)
	}
	return r
}
