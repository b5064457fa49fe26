package mask

import (
	"bytes"
	"cmp"
	"slices"
)

// replacement stands where a secret stood.
const replacement = "****"

// Stream replaces secrets in one stream of bytes. It is for one goroutine at a time.
//
// What may be the beginning of a secret is held back until more has come, or the stream has ended; the output is the same
// however the input is cut.
type Stream struct {
	set *Set

	held    []byte // the end of the input, of which nothing was returned
	covered int    // bytes of held that belong to a secret whose replacement was returned
	region  []int  // the secrets that were counted for that replacement

	// Kept to be used again.
	out, spare []byte
	found      []match
	seen       visible
}

// Write returns what of the input so far can be told and was not returned before. The result is good until the next call, and may
// be a part of p.
func (s *Stream) Write(p []byte) []byte {
	m := s.set.matcher.Load()
	if m == nil && len(s.held) == 0 {
		return p
	}
	return s.pass(m, p, false)
}

// End returns what was held back. The stream can be used again, as a new one.
func (s *Stream) End() []byte { return s.pass(s.set.matcher.Load(), nil, true) }

func (s *Stream) pass(m *matcher, p []byte, last bool) []byte {
	text := p
	if len(s.held) > 0 {
		s.held = append(s.held, p...)
		text = s.held
	}
	hold := s.look(m, text)
	if last {
		hold = len(text)
	}
	told := text[:hold]
	if len(s.found) > 0 || s.covered > 0 {
		told = s.replace(m, told)
	}
	if last {
		s.covered = 0
	}
	s.held, s.spare = append(s.spare[:0], text[hold:]...), s.held // told may be a part of what was held
	return told
}

// look finds the secrets in a text, in the order in which they begin, and returns from where on the text is held back.
func (s *Stream) look(m *matcher, text []byte) int {
	s.found = s.found[:0]
	s.seen.reset()
	if m == nil {
		return len(text)
	}
	from := m.begins.leap(text)
	if from == len(text) { // neither a secret nor a sequence begins
		return from
	}
	s.found = m.find(text, from, s.found)
	hold := m.hold(text)
	if bytes.IndexByte(text[from:], escape) < 0 {
		return hold
	}
	v := &s.seen
	unfinished := v.read(text)
	direct := len(s.found)
	s.found = m.find(v.text, 0, s.found)
	for i := range s.found[direct:] {
		f := &s.found[direct+i]
		f.start, f.end = v.origin(f.start), v.origin(f.end-1)+1
	}
	slices.SortStableFunc(s.found, func(a, b match) int { return cmp.Compare(a.start, b.start) })
	if at := m.hold(v.text); at < len(v.text) {
		hold = min(hold, v.origin(at))
	}
	return v.before(min(hold, unfinished))
}

// replace returns a text with the secrets that were found replaced. Those that overlap are replaced together.
func (s *Stream) replace(m *matcher, text []byte) []byte {
	out := s.out[:0]
	begin, end := 0, s.covered // of the part that is replaced now
	var counted []int
	for _, f := range s.found {
		if f.start >= len(text) {
			break
		}
		if f.start >= end {
			out = s.keepSequences(m, out, text, begin, end)
			out = append(out, text[end:f.start]...)
			out = append(out, replacement...)
			begin, s.region = f.start, s.region[:0]
		}
		end = max(end, f.end)
		for _, secret := range m.needles[f.needle].secrets {
			if !slices.Contains(s.region, secret) {
				s.region, counted = append(s.region, secret), append(counted, secret)
			}
		}
	}
	s.set.count(counted)
	out = s.keepSequences(m, out, text, begin, min(end, len(text)))
	if end < len(text) {
		out = append(out, text[end:]...)
	}
	s.covered = max(end-len(text), 0)
	s.out = out
	return out
}

// keepSequences appends the ANSI sequences between two places, so that colours end where they should; unless a secret may have some.
func (s *Stream) keepSequences(m *matcher, out, text []byte, begin, end int) []byte {
	if m == nil || m.escapes {
		return out
	}
	for _, q := range s.seen.sequences {
		if begin <= q.start && q.end <= end {
			out = append(out, text[q.start:q.end]...)
		}
	}
	return out
}
