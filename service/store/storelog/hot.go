package storelog

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Hot knows the unfinished jobs. In the store it is a log: each commit appends one block that says which jobs were
// accepted, changed and ended.
//
// A block is deleted when no job's newest entry is in it and all older blocks are gone, so that reading all blocks in order
// gives exactly the unfinished jobs. When the log has grown to more than twice what counts in it, commits copy the entries
// that count from its oldest blocks to its end.
//
// One goroutine commits (NewBlock, Shrink, Apply, Drop); Find, OnWorkers and IDs may be called from any.
type Hot struct {
	mu     sync.RWMutex
	where  map[job.ID]uint32 // the block of the newest entry of every unfinished job; the lower half of its number
	states map[job.ID][]byte // the state of those that are no longer as they were accepted

	// Of the one who commits.
	first   uint64     // number of the oldest block
	blocks  []hotBlock // from the oldest on
	entries int        // in all blocks
}

type hotBlock struct {
	entries int // in all
	newest  int // those that are the newest of an unfinished job
}

const (
	// hotSlack is how many entries the log may have before it is copied at all; small logs are not worth it.
	hotSlack = 16_384
	// copyBlocks bounds how many old blocks one commit copies from.
	copyBlocks = 8
)

// Kinds of entries. An entry is: kind (1), id (16), and for a change the length of the state (be32) and the state.
const (
	hotAccepted byte = 'A'
	hotChanged  byte = 'C'
	hotEnded    byte = 'E'
)

type hotEntry struct {
	kind  byte
	id    job.ID
	state []byte
}

// NewHot makes an empty log.
func NewHot() *Hot {
	return &Hot{where: make(map[job.ID]uint32), states: make(map[job.ID][]byte)}
}

// Block gathers the entries of a commit. States are slices of its buffer, which is therefore never reused.
type Block struct {
	buffer  []byte
	entries []hotEntry
}

// NewBlock begins the block of a commit of about so many jobs.
func NewBlock(jobs int) *Block {
	return &Block{buffer: append(make([]byte, 0, 1+64*jobs), storerecord.Version), entries: make([]hotEntry, 0, jobs)}
}

// Bytes is what is to be stored.
func (b *Block) Bytes() []byte { return b.buffer }

// Accept notes a new job that has not ended.
func (b *Block) Accept(j *job.Job) {
	if isAsAccepted(j) {
		b.add(hotAccepted, j.ID)
	} else {
		b.Change(j)
	}
}

// Change notes how an unfinished job stands.
func (b *Block) Change(j *job.Job) {
	b.change(j.ID, func(buffer []byte) []byte { return storerecord.AppendState(buffer, j) })
}

// End notes that a job is no longer unfinished.
func (b *Block) End(id job.ID) { b.add(hotEnded, id) }

func (b *Block) add(kind byte, id job.ID) {
	b.buffer = append(append(b.buffer, kind), id[:]...)
	b.entries = append(b.entries, hotEntry{kind: kind, id: id})
}

func (b *Block) change(id job.ID, appendState func([]byte) []byte) {
	b.buffer = append(append(b.buffer, hotChanged), id[:]...)
	at := len(b.buffer)
	b.buffer = appendState(append(b.buffer, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b.buffer[at:], uint32(len(b.buffer)-at-4))
	b.entries = append(b.entries, hotEntry{kind: hotChanged, id: id, state: b.buffer[at+4:]})
}

// readBlock visits the entries of a block.
func readBlock(block []byte, visit func(hotEntry)) error {
	if len(block) == 0 || block[0] != storerecord.Version {
		return errors.New("the block has another form")
	}
	for block = block[1:]; len(block) > 0; {
		e := hotEntry{kind: block[0]}
		if len(block) < 1+len(e.id) {
			return errors.New("the block is cut off")
		}
		copy(e.id[:], block[1:])
		block = block[1+len(e.id):]
		if e.kind == hotChanged {
			if len(block) < 4 || uint64(binary.BigEndian.Uint32(block)) > uint64(len(block)-4) {
				return errors.New("the block is cut off")
			}
			n := 4 + binary.BigEndian.Uint32(block)
			e.state, block = block[4:n], block[n:]
		}
		visit(e)
	}
	return nil
}

// Load takes in the next block of the log, whose bytes it keeps. Numbers may be missing. After an error, the block cannot
// be read and counts as empty.
func (h *Hot) Load(number uint64, block []byte) error {
	if len(h.blocks) == 0 {
		h.first = number
	}
	for h.Next() < number { // numbers that were set aside
		h.blocks = append(h.blocks, hotBlock{})
	}
	var entries []hotEntry
	if err := readBlock(block, func(e hotEntry) { entries = append(entries, e) }); err != nil {
		return err
	}
	h.apply(entries)
	return nil
}

// Become takes over all that another log knows, which is not used any more.
func (h *Hot) Become(other *Hot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.where, h.states = other.where, other.states
	h.first, h.blocks, h.entries = other.first, other.blocks, other.entries
}

// Next is the number of the block that the next commit writes.
func (h *Hot) Next() uint64 { return h.first + uint64(len(h.blocks)) }

// Apply makes a block that was written count.
func (h *Hot) Apply(b *Block) { h.apply(b.entries) }

func (h *Hot) apply(entries []hotEntry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := uint32(h.Next())
	h.blocks = append(h.blocks, hotBlock{entries: len(entries)})
	h.entries += len(entries)
	for i := range entries {
		e := &entries[i]
		if before, ok := h.where[e.id]; ok {
			h.blocks[before-uint32(h.first)].newest--
		}
		if e.kind == hotEnded {
			delete(h.where, e.id)
			delete(h.states, e.id)
			continue
		}
		h.where[e.id] = number
		h.blocks[len(h.blocks)-1].newest++
		if e.kind == hotChanged {
			h.states[e.id] = e.state
		}
	}
}

// Shrink says that the oldest gone blocks are to be deleted in the commit of a block, to which it appends the entries of
// them that count. read returns the bytes of a block.
func (h *Hot) Shrink(b *Block, read func(number uint64) ([]byte, error)) (gone int, err error) {
	entries, copied := h.entries, 0
	inBlock := make(map[job.ID]bool)
	for gone < len(h.blocks) {
		oldest := h.blocks[gone]
		if oldest.newest > 0 {
			if entries <= 2*len(h.where)+hotSlack || copied == copyBlocks {
				return gone, nil
			}
			if copied == 0 {
				for i := range b.entries {
					inBlock[b.entries[i].id] = true
				}
			}
			copied++
			if err := h.copyNewest(h.first+uint64(gone), b, inBlock, read); err != nil {
				return gone, err
			}
		}
		entries -= oldest.entries
		gone++
	}
	return gone, nil
}

// copyNewest appends the entries of an old block that are the newest of their jobs, unless this commit has newer ones.
func (h *Hot) copyNewest(number uint64, b *Block, inBlock map[job.ID]bool, read func(uint64) ([]byte, error)) error {
	value, err := read(number)
	if err != nil {
		return err
	}
	return readBlock(value, func(e hotEntry) {
		if at, ok := h.where[e.id]; !ok || at != uint32(number) || inBlock[e.id] || e.kind == hotEnded {
			return
		}
		inBlock[e.id] = true // a block may have several entries of a job; the state that counts is in memory
		if state, ok := h.states[e.id]; ok {
			b.change(e.id, func(buffer []byte) []byte { return append(buffer, state...) })
		} else {
			b.add(hotAccepted, e.id)
		}
	})
}

// First is the number of the oldest block.
func (h *Hot) First() uint64 { return h.first }

// Drop forgets the oldest blocks, which were deleted.
func (h *Hot) Drop(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.blocks[:n] {
		h.entries -= b.entries
	}
	h.first += uint64(n)
	h.blocks = h.blocks[n:]
}

// Find returns whether a job is unfinished, and its state, nil for one that is as it was accepted.
func (h *Hot) Find(id job.ID) (state []byte, unfinished bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	_, unfinished = h.where[id]
	return h.states[id], unfinished
}

// Changed returns the unfinished jobs that are no longer as they were accepted: those on workers, and few others.
func (h *Hot) Changed() []job.ID {
	h.mu.RLock()
	defer h.mu.RUnlock()
	ids := make([]job.ID, 0, len(h.states))
	for id := range h.states {
		ids = append(ids, id)
	}
	return ids
}

// IDs returns the unfinished jobs, the oldest first.
func (h *Hot) IDs() []job.ID {
	h.mu.RLock()
	ids := make([]job.ID, 0, len(h.where))
	for id := range h.where {
		ids = append(ids, id)
	}
	h.mu.RUnlock()
	slices.SortFunc(ids, job.ID.Compare)
	return ids
}
