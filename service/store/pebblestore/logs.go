package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// AppendLogs implements store.Logs.
func (s *Store) AppendLogs(_ context.Context, blocks []store.LogBlock, ends []store.LogEnd) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	return s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		for i := range blocks {
			w.logBlock(&blocks[i])
		}
		for i := range ends {
			w.logEnd(&ends[i])
		}
		return w.err
	})
}

func (w *writer) logBlock(b *store.LogBlock) {
	w.value = storerecord.AppendLogBlock(w.value[:0], b)
	w.set(logBlockKey(b.Ref, b.Offset), w.value)
}

func (w *writer) logEnd(e *store.LogEnd) {
	w.value = storerecord.AppendLogEnd(w.value[:0], e)
	w.set(logKey(e.Ref, partEnd), w.value)
}

// blocks returns an iterator over the blocks of a log.
func (s *Store) blocks(ctx context.Context, ref store.LogRef) (*pebble.Iterator, error) {
	prefix := logKey(ref, partBlock)
	return s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
}

// ReadLogs implements store.Logs. An iterator sees one moment.
func (s *Store) ReadLogs(ctx context.Context, ref store.LogRef, offset uint64, maxBytes int) ([]store.LogBlock, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	it, err := s.blocks(ctx, ref)
	if err != nil {
		return nil, err
	}
	// The block that contains offset is the last one that begins at or before it.
	ok := it.SeekLT(logBlockKey(ref, min(offset, math.MaxUint64-1)+1)) || it.First()
	var blocks []store.LogBlock
	for size := 0; ok && size < max(maxBytes, 1); ok = it.Next() {
		b, err := decodeBlock(it, ref)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		if b.End() > offset {
			b.Data = bytes.Clone(b.Data)
			blocks = append(blocks, b)
			size += len(b.Data)
		}
	}
	return blocks, errors.Join(it.Error(), it.Close())
}

// decodeBlock reads the block at an iterator. Its data is good until the iterator moves.
func decodeBlock(it *pebble.Iterator, ref store.LogRef) (store.LogBlock, error) {
	b := store.LogBlock{Ref: ref}
	value, err := it.ValueAndErr()
	if err != nil {
		return b, err
	}
	offset, ok := blockOffset(it.Key())
	if !ok {
		return b, fmt.Errorf("the log of job %s has a key without an offset", ref.Job)
	}
	b.Offset = offset
	if err := storerecord.DecodeLogBlock(value, &b); err != nil {
		return b, fmt.Errorf("the log of job %s at byte %d: %w", ref.Job, offset, err)
	}
	return b, nil
}

// MergeLogs implements store.Logs. It is not synced: the block and the deletion of those before it become durable together.
func (s *Store) MergeLogs(ctx context.Context, blocks []store.LogBlock) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	s.expiring.Lock() // what is looked at must not be removed before it is replaced
	defer s.expiring.Unlock()
	return s.writeWith(pebble.NoSync, s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		for i := range blocks {
			if err := s.merge(ctx, &w, &blocks[i]); err != nil {
				return err
			}
		}
		return w.err
	})
}

// merge puts a block in the place of those that begin inside it, if together they hold as much.
func (s *Store) merge(ctx context.Context, w *writer, b *store.LogBlock) error {
	it, err := s.blocks(ctx, b.Ref)
	if err != nil {
		return err
	}
	var keys [][]byte
	size := uint64(0)
	for ok := it.SeekGE(logBlockKey(b.Ref, b.Offset)); ok; ok = it.Next() {
		old, err := decodeBlock(it, b.Ref)
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if old.Offset >= b.End() {
			break
		}
		keys = append(keys, bytes.Clone(it.Key()))
		size += uint64(old.Bytes)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil || size != uint64(b.Bytes) {
		return err
	}
	for _, key := range keys {
		w.delete(key)
	}
	w.logBlock(b)
	return w.err
}

// RemoveLogs implements store.Logs.
func (s *Store) RemoveLogs(_ context.Context, ends []store.LogEnd) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	s.expiring.Lock() // an end must not come back after its job was forgotten
	defer s.expiring.Unlock()
	return s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		for i := range ends {
			if _, err := s.get(logKey(ends[i].Ref, partEnd)); errors.Is(err, pebble.ErrNotFound) {
				continue
			} else if err != nil {
				return err
			}
			prefix := logKey(ends[i].Ref, partBlock)
			w.deleteRange(prefix, after(prefix))
			w.logEnd(&ends[i])
		}
		return w.err
	})
}

// LogState implements store.Logs.
func (s *Store) LogState(ctx context.Context, ref store.LogRef) (store.LogState, error) {
	if err := s.calls.enter(); err != nil {
		return store.LogState{}, err
	}
	defer s.calls.leave()
	var state store.LogState
	// The end first: whoever sees it must see all bytes before it, and no more come after it.
	value, err := s.get(logKey(ref, partEnd))
	switch {
	case err == nil:
		state.End, err = storerecord.DecodeLogEnd(value, ref)
	case errors.Is(err, pebble.ErrNotFound):
		err = nil
	}
	if err != nil {
		return state, err
	}
	it, err := s.blocks(ctx, ref)
	if err != nil {
		return state, err
	}
	if it.Last() {
		b, err := decodeBlock(it, ref)
		if err != nil {
			return state, errors.Join(err, it.Close())
		}
		state.Bytes, state.Lines = b.End(), b.Line+uint64(b.Lines)
	}
	return state, errors.Join(it.Error(), it.Close())
}
