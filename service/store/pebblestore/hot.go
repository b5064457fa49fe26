package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// loadHot reads the log of unfinished jobs. Blocks that cannot be read are set aside: the jobs that only they knew are found as
// damaged, those that they changed stand as they did before, and those that they ended have ended.
func (s *Store) loadHot() error {
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
		if err := s.hot.Load(number, append([]byte(nil), value...)); err != nil {
			s.logger.Error("a record of unfinished jobs cannot be read and is set aside", "block", number, "error", err)
			damaged = append(damaged, append([]byte(nil), it.Key()...))
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("reading the unfinished jobs: %w", err)
	}
	if len(damaged) == 0 {
		return nil
	}
	s.damagedBlocks = len(damaged)
	block, err := s.endings()
	if err != nil {
		return err
	}
	return s.setAside(damaged, block)
}

// endings is the block that ends those jobs whose end is recorded and which the log has as unfinished, because the block that
// said so cannot be read.
func (s *Store) endings() (*storelog.Block, error) {
	block := storelog.NewBlock(0)
	for _, id := range s.hot.IDs() {
		switch _, err := s.ending(id); {
		case err == nil:
			block.End(id)
		case !errors.Is(err, errNoState):
			return nil, fmt.Errorf("looking for jobs that have ended: %w", err)
		}
	}
	return block, nil
}

// shrink deletes blocks of the log that are no longer needed, in the batch of a commit.
func (s *Store) shrink(w *writer, block *storelog.Block) (gone int, err error) {
	first := s.hot.First()
	gone, err = s.hot.Shrink(block, func(number uint64) ([]byte, error) { return s.get(hotKey(number)) })
	if err != nil {
		return 0, fmt.Errorf("copying the log of unfinished jobs: %w", err)
	}
	for n := range gone {
		w.delete(hotKey(first + uint64(n)))
	}
	return gone, w.err
}
