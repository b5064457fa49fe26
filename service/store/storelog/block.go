package storelog

import (
	"encoding/binary"

	"github.com/hodei-jobs/hodei/service/job"
)

// A block is sections, each with what happened to jobs of one page: its kind (1), the page (16), the
// positions (8), then for each position
//
//	A  accepted, and as it was accepted: the id
//	C  changed: the id, and the state with its length
//	E  no longer unfinished: nothing
const (
	sectionAccepted byte = 'A'
	sectionChanged  byte = 'C'
	sectionEnded    byte = 'E'
)

// section is one section of a block.
type section struct {
	kind   byte
	page   job.ID
	at     positions
	ids    []job.ID // of the positions, in order; none for E
	states [][]byte // likewise, for C only; in memory of their own, because they stay for as long as the jobs run
}

// block gathers the sections of a commit, and what is to be stored of them.
type block struct {
	buffer   []byte
	sections []section
}

func newBlock(jobs int) *block {
	return &block{buffer: make([]byte, 0, 64+80*jobs)}
}

func (b *block) add(s section) {
	if s.at == 0 {
		return
	}
	b.buffer = append(append(b.buffer, s.kind), s.page[:]...)
	b.buffer = binary.BigEndian.AppendUint64(b.buffer, uint64(s.at))
	var before job.ID
	for i, id := range s.ids {
		b.buffer = appendID(b.buffer, before, id)
		before = id
		if s.kind == sectionChanged {
			b.buffer = appendValue(b.buffer, func(b []byte) []byte { return append(b, s.states[i]...) })
		}
	}
	b.sections = append(b.sections, s)
}

// readBlock reads the sections of a block. States share its memory.
func readBlock(value []byte) ([]section, error) {
	b, err := unpack(value)
	if err != nil {
		return nil, err
	}
	var sections []section
	for len(b) > 0 {
		const head = 1 + len(job.ID{}) + 8
		if len(b) < head {
			return nil, errDamaged
		}
		s := section{kind: b[0], page: job.ID(b[1:]), at: positions(binary.BigEndian.Uint64(b[head-8:]))}
		if b, err = s.readBody(b[head:]); err != nil {
			return nil, err
		}
		sections = append(sections, s)
	}
	return sections, nil
}

func (s *section) readBody(b []byte) (rest []byte, err error) {
	switch s.kind {
	case sectionEnded:
		return b, nil
	case sectionAccepted, sectionChanged:
	default:
		return nil, errDamaged
	}
	var id job.ID
	for range s.at.count() {
		if id, b, err = cutID(b, id); err != nil {
			return nil, err
		}
		s.ids = append(s.ids, id)
		if s.kind == sectionAccepted {
			continue
		}
		var state []byte
		if state, b, err = cutValue(b); err != nil {
			return nil, err
		}
		s.states = append(s.states, state)
	}
	return b, nil
}

// ownStates gives the states of a section that was read memory of their own, so that a job that runs for long does not keep
// the whole block in memory.
func (s *section) ownStates() {
	n := 0
	for _, state := range s.states {
		n += len(state)
	}
	memory := make([]byte, 0, n)
	for i, state := range s.states {
		memory = append(memory, state...)
		s.states[i] = memory[len(memory)-len(state) : len(memory) : len(memory)]
	}
}
