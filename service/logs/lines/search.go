package lines

import (
	"bytes"
	"cmp"
	"slices"
	"time"
	"unicode/utf8"
)

// The limits of what a search keeps.
const (
	maxMatchText   = 4 << 10  // bytes of a line that matches
	maxContextText = 1 << 10  // bytes of a line of the context
	maxResult      = 32 << 20 // bytes of a result, about
	// window is how much of a line is looked at at a time, and overlap how much of that is looked at again with what follows.
	window  = 64 << 10
	overlap = MaxTextBytes
)

// ContextLine is a line near one that matches.
type ContextLine struct {
	Line   uint64    // its number
	Offset uint64    // of its first byte in the attempt
	Time   time.Time // of the piece with that byte
	Text   []byte    // without the line end: at most the first KiB, or of a line that matches 4 KiB around the match
	Cut    bool      // there is more of the line after the text
}

// memory is about how much a line takes.
func (l *ContextLine) memory() int { return len(l.Text) + 80 }

// Match is a line that matches.
type Match struct {
	ContextLine
	Step          int32
	Stream        uint8
	Skipped       uint64        // how many bytes of the line there are before Text
	Start, End    int           // of the first match in Text, which has no more than its beginning when it is longer
	Before, After []ContextLine // of the same channel, in order
}

// Result is what a search has found.
type Result struct {
	Matches []Match // in the order in which the lines end
	Count   uint64  // of all lines that match
	// Truncated says that the matches came to more than 32 MiB, so that some may be missing, or lines of their context.
	Truncated bool
}

// Search looks for lines that match a query. It is for one goroutine at a time.
//
// A line of more than 64 KiB is searched in windows of that length, of which each begins with the last 4 KiB of the one before. To a
// pattern each window is a line; a match of more than 4 KiB may be missed there.
type Search struct {
	query           Query
	matcher         *matcher
	window, overlap int // constant but in tests

	newlines uint64 // of all pieces so far
	channels channels[searched]
	result   Result
	memory   int // of the result, about
}

// searched is what a search knows of a channel.
type searched struct {
	line   unfinished
	recent []ContextLine // the last ones, as many as a match may need
	open   []int         // matches that need more lines after them
}

// unfinished is the line of a channel whose end has not come yet. Its Text is the beginning of the line if that is longer than
// a window, and else not set.
type unfinished struct {
	ContextLine
	begun   bool
	skipped uint64 // how many of its bytes came before the window
	window  []byte
	match   *Match // nil: none so far
}

// NewSearch makes a search. The error says what is wrong with the query, for the one who wrote it.
func NewSearch(q Query) (*Search, error) {
	m, err := q.matcher()
	if err != nil {
		return nil, err
	}
	return &Search{query: q, matcher: m, window: window, overlap: overlap}, nil
}

// Write takes the next piece of the log; of channels that are not searched, too, because their line ends count. A pattern that is
// made to be slow may take it some seconds for 256 KiB, so who searches for others looks at the time between pieces.
func (s *Search) Write(p Piece) {
	if s.query.Step >= 0 && s.query.Step != p.Step || s.query.Stream != 0 && s.query.Stream != p.Stream {
		s.newlines += uint64(bytes.Count(p.Data, lineEnd))
		return
	}
	c, forgotten := s.channels.get(channel{p.Step, p.Stream})
	if forgotten != nil {
		s.finish(forgotten)
	}
	for d := p.Data; len(d) > 0; {
		line := &c.of.line
		if !line.begun {
			line.ContextLine = ContextLine{Line: s.newlines, Offset: p.Offset + uint64(len(p.Data)-len(d)), Time: p.Time}
			if n := bytes.LastIndexByte(d[:min(len(d), s.window)], '\n') + 1; n > 0 {
				s.search(c, line.ContextLine, d[:n])
				d = d[n:]
				continue
			}
			line.begun = true
		}
		n := bytes.IndexByte(d, '\n')
		if n < 0 {
			s.extend(c, d)
			return
		}
		s.extend(c, d[:n])
		s.finish(c)
		s.newlines++
		d = d[n+1:]
	}
}

// Full says that there is nothing more to come but the count: as many matches were found as are returned, and their context.
// Who does not need the count may stop.
func (s *Search) Full() bool {
	return !s.room() && !slices.ContainsFunc(s.channels, func(c *state[searched]) bool { return len(c.of.open) > 0 })
}

// End returns what was found. The search is over.
func (s *Search) End() Result {
	slices.SortFunc(s.channels, func(a, b *state[searched]) int { return cmp.Compare(a.of.line.Offset, b.of.line.Offset) })
	for _, c := range s.channels {
		s.finish(c)
	}
	s.result.Truncated = s.memory >= maxResult
	return s.result
}

// room says whether one more match is to be kept.
func (s *Search) room() bool {
	return len(s.result.Matches) < s.query.MaxMatches && s.memory < maxResult
}

// search takes whole lines, which fit into a window, of which it is told where the first begins.
func (s *Search) search(c *state[searched], first ContextLine, text []byte) {
	s.follow(c, func(after []ContextLine) []ContextLine { return s.below(after, first, text) })
	s.matcher.load(text[:len(text)-1], true)
	for at := 0; ; {
		h, found := s.matcher.find(at)
		if !found {
			break
		}
		s.result.Count++
		if s.room() {
			m := c.match(advance(first, text[:h.from]), text[h.from:h.to], h)
			m.Before = s.above(c, m.ContextLine, text[:h.from])
			m.After = s.below(nil, advance(first, text[:h.next]), text[h.next:])
			s.keep(c, m)
		}
		at = h.next
	}
	end := advance(first, text)
	s.newlines = end.Line
	if s.room() {
		c.of.recent = s.above(c, end, text)
	}
}

// advance returns where a line begins that comes after whole lines, of which it is told where the first begins.
func advance(first ContextLine, text []byte) ContextLine {
	first.Line += uint64(bytes.Count(text, lineEnd))
	first.Offset += uint64(len(text))
	return first
}

// above returns the lines before one that begins where a text ends: those in the text, and before them those that came earlier.
func (s *Search) above(c *state[searched], line ContextLine, text []byte) []ContextLine {
	var near []ContextLine
	for len(text) > 0 && len(near) < s.query.Before {
		from := bytes.LastIndexByte(text[:len(text)-1], '\n') + 1
		line.Line--
		line.Offset -= uint64(len(text) - from)
		near = append(near, line.with(withoutReturn(text[from:len(text)-1])))
		text = text[:from]
	}
	slices.Reverse(near)
	far := min(len(c.of.recent), s.query.Before-len(near))
	return slices.Concat(c.of.recent[len(c.of.recent)-far:], near)
}

// below adds to the lines after a match those of a text, of which it is told where the first begins.
func (s *Search) below(after []ContextLine, line ContextLine, text []byte) []ContextLine {
	for len(text) > 0 && len(after) < s.query.After {
		n := bytes.IndexByte(text, '\n') + 1
		after = append(after, line.with(withoutReturn(text[:n-1])))
		line = advance(line, text[:n])
		text = text[n:]
	}
	return after
}

// with is a line with a copy of its text, or of the beginning of it.
func (l ContextLine) with(text []byte) ContextLine {
	l.Text, l.Cut = bytes.Clone(text[:min(len(text), maxContextText)]), len(text) > maxContextText
	return l
}

// follow adds lines to the matches of a channel that need more.
func (s *Search) follow(c *state[searched], add func(after []ContextLine) []ContextLine) {
	c.of.open = slices.DeleteFunc(c.of.open, func(i int) bool {
		if s.memory >= maxResult {
			return true
		}
		m := &s.result.Matches[i]
		had := len(m.After)
		m.After = add(m.After)
		s.weigh(m.After[had:])
		return len(m.After) == s.query.After
	})
}

// keep adds a match to the result.
func (s *Search) keep(c *state[searched], m *Match) {
	s.memory += m.memory() + 80
	s.weigh(m.Before)
	s.weigh(m.After)
	if len(m.After) < s.query.After {
		c.of.open = append(c.of.open, len(s.result.Matches))
	}
	s.result.Matches = append(s.result.Matches, *m)
}

func (s *Search) weigh(lines []ContextLine) {
	for i := range lines {
		s.memory += lines[i].memory()
	}
}

// match makes a match of a line, or of the part of it that was looked at.
func (c channel) match(line ContextLine, text []byte, h hit) *Match {
	from := max(0, min(h.start-(maxMatchText-(h.end-h.start))/2, len(text)-maxMatchText, h.start))
	for from > 0 && from < h.start && !utf8.RuneStart(text[from]) {
		from++
	}
	to := min(len(text), from+maxMatchText)
	line.Text, line.Cut = bytes.Clone(text[from:to]), to < len(text)
	return &Match{
		ContextLine: line, Step: c.step, Stream: c.stream,
		Skipped: uint64(from), Start: h.start - from, End: min(h.end, to) - from,
	}
}

// extend adds bytes to the line of a channel. When that is longer than a window it is looked at window by window.
func (s *Search) extend(c *state[searched], d []byte) {
	line := &c.of.line
	for len(line.window)+len(d) > s.window {
		n := s.window - len(line.window)
		line.window = append(line.window, d[:n]...)
		d = d[n:]
		s.look(c, line.window, true)
		if line.skipped == 0 {
			line.ContextLine = line.with(line.window)
		}
		line.skipped += uint64(s.window - s.overlap)
		line.window = line.window[:copy(line.window, line.window[s.window-s.overlap:])]
	}
	line.window = append(line.window, d...)
}

// look looks at a window of the line of a channel, or at the last of it.
func (s *Search) look(c *state[searched], text []byte, more bool) {
	line := &c.of.line
	if line.match != nil {
		return
	}
	s.matcher.load(text, false)
	if h, found := s.matcher.find(0); found {
		line.match = c.match(line.ContextLine, text, h)
		line.match.Skipped += line.skipped
		line.match.Cut = line.match.Cut || more
	}
}

// finish ends the line of a channel, if it has begun.
func (s *Search) finish(c *state[searched]) {
	line := &c.of.line
	if !line.begun {
		return
	}
	text := withoutReturn(line.window)
	s.look(c, text, false)
	if line.skipped == 0 {
		line.ContextLine = line.with(text)
	}
	s.follow(c, func(after []ContextLine) []ContextLine { return append(after, line.ContextLine) })
	if line.match != nil {
		s.result.Count++
		if s.room() {
			line.match.Before = slices.Clone(c.of.recent)
			s.keep(c, line.match)
		}
	}
	if s.query.Before > 0 && s.room() {
		c.of.recent = append(c.of.recent[max(0, len(c.of.recent)+1-s.query.Before):], line.ContextLine)
	}
	c.of.line = unfinished{window: line.window[:0]}
}
