package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// loadHot reads the log of unfinished jobs. Blocks that cannot be read are set aside.
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
	return s.setAside(damaged, nil)
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
