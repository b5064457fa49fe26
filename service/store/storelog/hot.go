package storelog

import (
	"fmt"
	"slices"
	"sync"

	"github.com/hodei-jobs/hodei/service/job"
)

// hot knows the unfinished jobs, by page. In the store it is a log: each commit appends one block.
//
// A block is deleted when no job's newest entry is in it and all older blocks are gone, so that reading all blocks in order
// gives exactly the unfinished jobs. When the log has grown to more than twice what counts in it, commits copy the entries
// that count from its oldest blocks to its end.
//
// One goroutine commits (shrink, apply); the other methods may be called from any.
type hot struct {
	mu sync.RWMutex
	state
}

// state is what hot knows.
type state struct {
	pages    []*livePage // by their last id; those without unfinished jobs go now and then
	finished int         // how many of the pages have no unfinished jobs
	jobs     int         // unfinished

	// Of the one who commits.
	newest  job.ID     // the largest id that was accepted
	first   uint64     // number of the oldest block
	blocks  []hotBlock // from the oldest on
	entries int        // in all blocks
}

type hotBlock struct {
	entries int // in all
	newest  int // those that are the newest of an unfinished job
}

// livePage is a page with unfinished jobs. A waiting job costs 20 bytes.
type livePage struct {
	last    job.ID
	ids     []job.ID  // by position; an id that is not known any more is that of the position before
	waiting positions // unfinished, and as they were accepted
	changed positions // unfinished, with a state
	states  [][]byte  // by position; nil until a job has changed
	newest  []uint32  // by position: the block of the newest entry; the lower half of its number
}

func (p *livePage) unfinished() positions { return p.waiting | p.changed }

const (
	// hotSlack is how many entries the log may have before it is copied at all; small logs are not worth it.
	hotSlack = 16_384
	// copyBlocks bounds how many old blocks one commit copies from.
	copyBlocks = 8
)

// next is the number of the block that the next commit writes.
func (h *hot) next() uint64 { return h.first + uint64(len(h.blocks)) }

// page returns the page with the first last id that is not smaller than id, nil when there is none.
func (h *hot) page(id job.ID) *livePage {
	i, _ := slices.BinarySearchFunc(h.pages, id, func(p *livePage, id job.ID) int { return p.last.Compare(id) })
	if i == len(h.pages) {
		return nil
	}
	return h.pages[i]
}

// position returns where in the page an unfinished job is. No page has none.
func (p *livePage) position(id job.ID) (int, bool) {
	if p == nil {
		return 0, false
	}
	i, found := slices.BinarySearchFunc(p.ids, id, job.ID.Compare)
	return i, found && p.unfinished().has(i)
}

// find returns whether a job is unfinished, and its state, nil for one that is as it was accepted.
func (h *hot) find(page job.ID, at int) (state []byte, unfinished bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	p := h.page(page)
	switch {
	case p == nil || p.last != page || !p.unfinished().has(at):
		return nil, false
	case p.changed.has(at):
		return p.states[at], true
	}
	return nil, true
}

// address is some jobs of a page.
type address struct {
	page job.ID
	at   positions
}

// unfinished returns the unfinished jobs, the oldest first; with onlyChanged those that are no longer as they were
// accepted, which are the ones on workers and few others.
func (h *hot) unfinished(onlyChanged bool) []address {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var out []address
	for _, p := range h.pages {
		at := p.changed
		if !onlyChanged {
			at |= p.waiting
		}
		if at != 0 {
			out = append(out, address{p.last, at})
		}
	}
	return out
}

// load takes in the next block of the log. Numbers may be missing. After an error, the block cannot be read and counts as
// empty.
func (h *hot) load(number uint64, value []byte) error {
	if len(h.blocks) == 0 {
		h.first = number
	}
	for h.next() < number { // numbers that were set aside
		h.blocks = append(h.blocks, hotBlock{})
	}
	sections, err := readBlock(value)
	for i := range sections {
		sections[i].ownStates()
	}
	if err != nil {
		return fmt.Errorf("block %d of the unfinished jobs: %w", number, err)
	}
	h.apply(sections)
	return nil
}

// apply makes a block that was written count.
func (h *hot) apply(sections []section) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := uint32(h.next())
	h.blocks = append(h.blocks, hotBlock{})
	for i := range sections {
		s := &sections[i]
		p := h.page(s.page)
		if p == nil || p.last != s.page {
			if s.kind == sectionEnded {
				continue // of a page that is gone, or was never read because its block was damaged
			}
			p = h.insert(s.page)
		}
		n := s.at.count()
		h.entries += n
		h.blocks[len(h.blocks)-1].entries += n
		h.forget(p, s.at)
		if s.kind != sectionEnded {
			h.blocks[len(h.blocks)-1].newest += n
			h.jobs += n
			p.take(s, number)
		}
		if p.unfinished() == 0 {
			h.finished++
		}
	}
	h.compact()
}

// insert makes a page; most come in order.
func (h *hot) insert(last job.ID) *livePage {
	p := &livePage{last: last}
	i, _ := slices.BinarySearchFunc(h.pages, last, func(p *livePage, id job.ID) int { return p.last.Compare(id) })
	h.pages = slices.Insert(h.pages, i, p)
	h.finished++ // until it takes a job
	if h.newest.Compare(last) < 0 {
		h.newest = last
	}
	return p
}

// forget takes jobs out of a page, whose newest entries count no longer.
func (h *hot) forget(p *livePage, at positions) {
	if p.unfinished() == 0 {
		h.finished--
	}
	for i := range (p.unfinished() & at).up() {
		h.blocks[p.newest[i]-uint32(h.first)].newest--
		h.jobs--
		if p.changed.has(i) {
			p.states[i] = nil
		}
	}
	p.waiting &^= at
	p.changed &^= at
}

// take puts jobs into a page.
func (p *livePage) take(s *section, number uint32) {
	n := 0
	for i := range s.at.up() {
		p.know(i, s.ids[n])
		p.newest[i] = number
		if s.kind == sectionChanged {
			if p.states == nil {
				p.states = make([][]byte, len(p.ids), pageJobs)
			}
			for len(p.states) <= i {
				p.states = append(p.states, nil)
			}
			p.states[i] = s.states[n]
		}
		n++
	}
	if s.kind == sectionChanged {
		p.changed |= s.at
	} else {
		p.waiting |= s.at
	}
}

// know notes the id at a position.
func (p *livePage) know(at int, id job.ID) {
	var before job.ID
	if n := len(p.ids); n > 0 {
		before = p.ids[n-1]
	}
	for len(p.ids) <= at {
		p.ids = append(p.ids, before)
		p.newest = append(p.newest, 0)
	}
	for i := at; i < len(p.ids) && p.ids[i].Compare(id) < 0; i++ {
		p.ids[i] = id
	}
}

// compact lets pages go that have no unfinished jobs.
func (h *hot) compact() {
	if h.finished <= len(h.pages)/2 {
		return
	}
	h.pages = slices.DeleteFunc(h.pages, func(p *livePage) bool { return p.unfinished() == 0 })
	h.finished = 0
}

// shrink says that the oldest gone blocks are to be deleted in the commit of a block, to which it appends the entries of
// them that count. read returns the bytes of a block.
func (h *hot) shrink(b *block, read func(number uint64) ([]byte, error)) (gone int, err error) {
	entries, copied := h.entries, 0
	touched := make(map[job.ID]positions) // the jobs that are in the commit's block
	for gone < len(h.blocks) {
		oldest := h.blocks[gone]
		if oldest.newest > 0 {
			if entries <= 2*h.jobs+hotSlack || copied == copyBlocks {
				return gone, nil
			}
			if copied == 0 {
				for i := range b.sections {
					touched[b.sections[i].page] |= b.sections[i].at
				}
			}
			copied++
			if err := h.copyNewest(h.first+uint64(gone), b, touched, read); err != nil {
				return gone, err
			}
		}
		entries -= oldest.entries
		gone++
	}
	return gone, nil
}

// copyNewest appends the entries of an old block that are the newest of their jobs, unless the commit has newer ones.
func (h *hot) copyNewest(number uint64, b *block, touched map[job.ID]positions, read func(uint64) ([]byte, error)) error {
	value, err := read(number)
	if err != nil {
		return err
	}
	sections, err := readBlock(value)
	if err != nil {
		return fmt.Errorf("block %d of the unfinished jobs: %w", number, err)
	}
	for i := range sections {
		p := h.page(sections[i].page)
		if p == nil || p.last != sections[i].page {
			continue
		}
		var counts positions
		for at := range (p.unfinished() & sections[i].at &^ touched[p.last]).up() {
			if p.newest[at] == uint32(number) {
				counts |= 1 << at
			}
		}
		if counts != 0 {
			touched[p.last] |= counts // a block may have several entries of a job; the state that counts is in memory
			b.add(p.section(sectionAccepted, p.waiting&counts))
			b.add(p.section(sectionChanged, p.changed&counts))
		}
	}
	return nil
}

// section makes a section of jobs as they stand.
func (p *livePage) section(kind byte, at positions) section {
	s := section{kind: kind, page: p.last, at: at}
	for i := range at.up() {
		s.ids = append(s.ids, p.ids[i])
		if kind == sectionChanged {
			s.states = append(s.states, p.states[i])
		}
	}
	return s
}

// drop forgets the oldest blocks, which were deleted.
func (h *hot) drop(n int) {
	for _, b := range h.blocks[:n] {
		h.entries -= b.entries
	}
	h.first += uint64(n)
	h.blocks = h.blocks[n:]
}
