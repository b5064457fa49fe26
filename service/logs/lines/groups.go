package lines

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// The limits of what is kept of groups.
const (
	MaxGroups = 10_000 // groups that are listed
	maxTitle  = 256    // bytes of a title
	maxDepth  = 64     // groups in one another
	maxHead   = 4 << 10
)

// Style is the way in which a group is marked.
type Style uint8

// The styles, each with the mark by which a group begins.
const (
	StyleGroup   Style = iota + 1 // ::group::TITLE, until ::endgroup:: or the next
	StyleHeader                   // --- TITLE or +++ TITLE, until the next header
	StyleMuted                    // ~~~ TITLE, a header of what is of little interest
	StyleSection                  // section_start:TIME:NAME, until section_end:TIME:NAME
)

// Group is a range of lines to which a script has given a title: those of its step and stream from the mark on.
type Group struct {
	Title     string // UTF-8 without ANSI sequences and control characters, at most 256 bytes; of a section without one its name
	Name      string // of a section
	Style     Style
	Collapsed bool // to be shown without its lines at first
	Step      int32
	Stream    uint8
	Depth     int // how many groups of the channel it lies in

	Line, Offset uint64    // of the line with the mark
	Start        time.Time // of the piece with the first byte of that line
	// EndLine, EndOffset and End are the same of the line that ends it: with its end mark, with the next mark, or with the end of a
	// group in which it lies. Of an open group they say how far its step has come: past the last piece, and the time of that.
	EndLine, EndOffset uint64
	End                time.Time
	Open               bool // its end was not seen
}

// Groups finds the groups of a log. It is for one goroutine at a time.
//
// A mark counts only at the beginning of a line, but sections may be marked one after the other in a line, with the sequence
// "\e[0K" before each. Groups nest: one ends at the latest with that in which it lies. Of groups that are more than 64 deep, or come
// after the first 10,000, only the ends are minded.
//
// What looks like a header is none where it is something else that is often printed:
//   - part of a diff: "--- x" before a line with "+++ y", which is then none either; either of them before a line with "@@";
//     "--- x" after a line with "*** y" or before one with "***";
//   - the result of a Go test, such as "--- FAIL: ";
//   - a line in dashes: its title ends with "---";
//   - the trace of a shell: "+++ x" next to a line with "++ y".
type Groups struct {
	newlines  uint64
	channels  channels[grouped]
	groups    []Group
	truncated bool
}

// grouped is what is known of the groups of a channel.
type grouped struct {
	begun  bool
	line   ContextLine // the unfinished one, if it has begun; the first bytes of it
	before string      // with what the line before begins, if it tells of a header that it is none
	doubt  *header     // nil: none; else what a mark is that counts unless the next line tells that it is none
	group  Group       // and the group that it begins
	open   []opened    // each lies in the one before it
	last   ContextLine // where its last piece ended
}

// opened is a group that has not ended.
type opened struct {
	style Style
	name  string
	at    int // in the list; -1: it is not listed
}

// NewGroups makes an empty list.
func NewGroups() *Groups { return new(Groups) }

// Write takes the next piece of the log.
func (g *Groups) Write(p Piece) {
	c, forgotten := g.channels.get(channel{p.Step, p.Stream})
	if forgotten != nil {
		g.finish(forgotten)
		g.leave(forgotten, forgotten.of.last)
	}
	end := p.Offset + uint64(len(p.Data))
	for d := p.Data; len(d) > 0; {
		n := bytes.IndexByte(d, '\n')
		if !c.of.begun && n >= 0 && !c.of.minds(d) {
			g.newlines++
			d = d[n+1:]
			continue
		}
		if !c.of.begun {
			c.of.begun = true
			c.of.line = ContextLine{Line: g.newlines, Offset: end - uint64(len(d)), Time: p.Time, Text: c.of.line.Text[:0]}
		}
		head := d
		if n >= 0 {
			head = d[:n]
		}
		c.of.line.Text = append(c.of.line.Text, head[:min(len(head), maxHead-len(c.of.line.Text))]...)
		if n < 0 {
			break
		}
		g.finish(c)
		g.newlines++
		d = d[n+1:]
	}
	c.of.last = ContextLine{Line: g.newlines, Offset: end, Time: p.Time}
}

// minds says whether a line matters: by its first byte, or because of the line before it.
func (c *grouped) minds(line []byte) bool {
	return beginsMark[line[0]] || c.doubt != nil || c.before != ""
}

// End returns the groups in the order in which they begin, and whether there are more than are listed. The list is over.
func (g *Groups) End() (groups []Group, truncated bool) {
	last := make(map[int32]ContextLine)
	for _, c := range g.channels {
		if g.finish(c); c.of.last.Offset >= last[c.step].Offset {
			last[c.step] = c.of.last
		}
	}
	for _, c := range g.channels {
		g.leave(c, last[c.step])
	}
	slices.SortStableFunc(g.groups, func(a, b Group) int { return cmp.Compare(a.Offset, b.Offset) })
	return g.groups, g.truncated
}

// leave takes the open groups of a channel to stay open. They come up to a place.
func (g *Groups) leave(c *state[grouped], until ContextLine) {
	g.settle(c)
	g.close(c, 0, until, true)
}

// finish ends the line of a channel, if it has begun, and does what its marks say.
func (g *Groups) finish(c *state[grouped]) {
	if !c.of.begun {
		return
	}
	c.of.begun = false
	line := c.of.line
	text := withoutReturn(line.Text)
	if c.of.doubt != nil && hasPrefix(text, c.of.doubt.notBefore) != "" {
		c.of.doubt = nil
	}
	g.settle(c)
	for _, m := range parseMarks(text) {
		group := Group{
			Title: m.title, Name: m.name, Style: m.style, Collapsed: m.collapsed,
			Step: c.step, Stream: c.stream, Line: line.Line, Offset: line.Offset, Start: line.Time,
		}
		switch {
		case m.ends:
			g.closeLast(c, m.style, m.name, line)
		case m.doubt == nil:
			g.begin(c, group)
		case !slices.Contains(m.doubt.notAfter, c.of.before):
			c.of.doubt, c.of.group = m.doubt, group
		}
	}
	c.of.before = hasPrefix(text, tellers)
}

// settle begins the group of which there was a doubt, if there is one.
func (g *Groups) settle(c *state[grouped]) {
	if c.of.doubt != nil {
		c.of.doubt = nil
		g.begin(c, c.of.group)
	}
}

// begin begins a group. It ends the one before of its style, unless that may lie in one.
func (g *Groups) begin(c *state[grouped], group Group) {
	if group.Style != StyleSection {
		g.closeLast(c, group.Style, "", ContextLine{Line: group.Line, Offset: group.Offset, Time: group.Start})
	}
	if len(c.of.open) == maxDepth {
		g.truncated = true
		return
	}
	o := opened{family(group.Style), group.Name, -1}
	if len(g.groups) < MaxGroups {
		group.Depth = len(c.of.open)
		group.Open = true
		o.at = len(g.groups)
		g.groups = append(g.groups, group)
	} else {
		g.truncated = true
	}
	c.of.open = append(c.of.open, o)
}

// closeLast ends the last open group of a style and a name, and those in it. There may be none.
func (g *Groups) closeLast(c *state[grouped], style Style, name string, at ContextLine) {
	for i := len(c.of.open) - 1; i >= 0; i-- {
		if o := c.of.open[i]; o.style == family(style) && o.name == name {
			g.close(c, i, at, false)
			return
		}
	}
}

// close ends the open groups of a channel from one on, or says how far they have come.
func (g *Groups) close(c *state[grouped], from int, at ContextLine, open bool) {
	for _, o := range c.of.open[from:] {
		if o.at >= 0 {
			group := &g.groups[o.at]
			group.EndLine, group.EndOffset, group.End, group.Open = at.Line, at.Offset, at.Time, open
		}
	}
	c.of.open = c.of.open[:from]
}

// family is the style whose groups end a group of a style.
func family(style Style) Style {
	if style == StyleMuted {
		return StyleHeader
	}
	return style
}
