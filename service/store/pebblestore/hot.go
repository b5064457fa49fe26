package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// hot knows the unfinished jobs. On the disk it is a log: each commit appends one block that says which jobs were accepted,
// changed and ended. A job that passes through costs a few bytes in three blocks instead of records that are written, looked
// for and deleted again; what stays of it for good are its spec and its last state.
//
// A block is deleted when no job's newest entry is in it and all older blocks are gone, so that reading all blocks in order
// gives exactly the unfinished jobs. When the log has grown to more than twice what counts in it, commits copy the entries
// that count from its oldest blocks to its end.
type hot struct {
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

// hotSlack is how many entries the log may have before it is copied at all; small logs are not worth it.
const hotSlack = 16_384

// copyBlocks bounds how many old blocks one commit copies from.
const copyBlocks = 8

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

// blockWriter gathers the entries of a commit. States are slices of its buffer, which is therefore never reused.
type blockWriter struct {
	buffer  []byte
	entries []hotEntry
}

func newBlockWriter(jobs int) *blockWriter {
	return &blockWriter{buffer: append(make([]byte, 0, 1+40*jobs), storerecord.Version), entries: make([]hotEntry, 0, jobs)}
}

func (w *blockWriter) add(kind byte, id job.ID) {
	w.buffer = append(append(w.buffer, kind), id[:]...)
	w.entries = append(w.entries, hotEntry{kind: kind, id: id})
}

func (w *blockWriter) change(id job.ID, appendState func([]byte) []byte) {
	w.buffer = append(append(w.buffer, hotChanged), id[:]...)
	at := len(w.buffer)
	w.buffer = append(w.buffer, 0, 0, 0, 0)
	w.buffer = appendState(w.buffer)
	binary.BigEndian.PutUint32(w.buffer[at:], uint32(len(w.buffer)-at-4))
	w.entries = append(w.entries, hotEntry{kind: hotChanged, id: id, state: w.buffer[at+4:]})
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

// load reads the log. Blocks that cannot be read are set aside.
func (s *Store) loadHot() error {
	h := &s.hot
	h.where, h.states = make(map[job.ID]uint32), make(map[job.ID][]byte)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{hotPrefix}, UpperBound: []byte{hotPrefix + 1}})
	if err != nil {
		return err
	}
	var damaged [][]byte
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(fmt.Errorf("reading the unfinished jobs: %w", err), it.Close())
		}
		number := binary.BigEndian.Uint64(it.Key()[1:])
		if len(h.blocks) == 0 {
			h.first = number
		}
		for h.next() < number { // numbers that were set aside
			h.blocks = append(h.blocks, hotBlock{})
		}
		var entries []hotEntry
		if err := readBlock(append([]byte(nil), value...), func(e hotEntry) { entries = append(entries, e) }); err != nil {
			s.logger.Error("a record of unfinished jobs cannot be read and is set aside", "block", number, "error", err)
			damaged = append(damaged, append([]byte(nil), it.Key()...))
			continue
		}
		h.apply(entries)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("reading the unfinished jobs: %w", err)
	}
	return s.setAside(damaged, nil)
}

// next is the number of the block that the next commit writes.
func (h *hot) next() uint64 { return h.first + uint64(len(h.blocks)) }

// apply makes a block that was written count.
func (h *hot) apply(entries []hotEntry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	number := uint32(h.next())
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

// shrink deletes the oldest blocks in the batch of a commit, and appends the entries of them that count to its block. It
// returns how many blocks go.
func (s *Store) shrink(w *writer, block *blockWriter) int {
	h := &s.hot
	gone, entries, copied := 0, h.entries, 0
	inBlock := make(map[job.ID]bool)
	for gone < len(h.blocks) && w.err == nil {
		oldest := h.blocks[gone]
		if oldest.newest > 0 {
			if entries <= 2*len(h.where)+hotSlack || copied == copyBlocks {
				break
			}
			if copied == 0 {
				for i := range block.entries {
					inBlock[block.entries[i].id] = true
				}
			}
			copied++
			w.err = s.copyNewest(h.first+uint64(gone), block, inBlock)
		}
		w.delete(hotKey(h.first + uint64(gone)))
		entries -= oldest.entries
		gone++
	}
	return gone
}

// copyNewest appends the entries of an old block that are the newest of their jobs, unless this commit has newer ones.
func (s *Store) copyNewest(number uint64, block *blockWriter, inBlock map[job.ID]bool) error {
	value, err := s.get(hotKey(number))
	if err != nil {
		return fmt.Errorf("reading block %d of the unfinished jobs: %w", number, err)
	}
	return readBlock(value, func(e hotEntry) {
		if at, ok := s.hot.where[e.id]; !ok || at != uint32(number) || inBlock[e.id] || e.kind == hotEnded {
			return
		}
		inBlock[e.id] = true // a block may have several entries of a job; the state that counts is in memory
		if state, ok := s.hot.states[e.id]; ok {
			block.change(e.id, func(b []byte) []byte { return append(b, state...) })
		} else {
			block.add(hotAccepted, e.id)
		}
	})
}

// drop forgets the oldest blocks, which were deleted.
func (h *hot) drop(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.blocks[:n] {
		h.entries -= b.entries
	}
	h.first += uint64(n)
	h.blocks = h.blocks[n:]
}

// find returns whether a job is unfinished, and its state, nil for one that is as it was accepted.
func (h *hot) find(id job.ID) (state []byte, unfinished bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	_, unfinished = h.where[id]
	return h.states[id], unfinished
}
