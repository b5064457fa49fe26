package pebblestore

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// AppendLogs implements store.Logs.
func (s *Store) AppendLogs(_ context.Context, chunks []store.Chunk, ends []store.LogEnd) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	return s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		for i := range chunks {
			w.set(chunkKey(chunks[i].Ref, chunks[i].Offset), storerecord.AppendChunk(w.value[:0], &chunks[i]))
		}
		for i := range ends {
			w.set(logKey(ends[i].Ref, partEnd), storerecord.AppendLogEnd(w.value[:0], &ends[i]))
		}
		return w.err
	})
}

// ReadLogs implements store.Logs.
func (s *Store) ReadLogs(ctx context.Context, ref store.LogRef, offset uint64, maxBytes int) ([]store.Chunk, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	prefix := logKey(ref, partChunk)
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, err
	}
	// The chunk that contains offset is the last one that begins at or before it.
	ok := it.SeekLT(chunkKey(ref, offset+1)) || it.First()
	var chunks []store.Chunk
	for bytes := 0; ok && bytes < max(maxBytes, 1); ok = it.Next() {
		c, err := decodeChunk(it, ref)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		if end := c.Offset + uint64(len(c.Data)); end <= offset {
			continue
		}
		if c.Offset < offset {
			c.Data, c.Offset = c.Data[offset-c.Offset:], offset
		}
		chunks = append(chunks, c)
		bytes += len(c.Data)
	}
	return chunks, errors.Join(it.Error(), it.Close())
}

func decodeChunk(it *pebble.Iterator, ref store.LogRef) (store.Chunk, error) {
	c := store.Chunk{Ref: ref}
	value, err := it.ValueAndErr()
	if err != nil {
		return c, err
	}
	offset, ok := chunkOffset(it.Key())
	if !ok {
		return c, fmt.Errorf("the log of job %s has a key without an offset", ref.Job)
	}
	c.Offset = offset
	if err := storerecord.DecodeChunk(value, &c); err != nil {
		return c, fmt.Errorf("the log of job %s at byte %d: %w", ref.Job, offset, err)
	}
	return c, nil
}

// LogState implements store.Logs.
func (s *Store) LogState(ctx context.Context, ref store.LogRef) (store.LogState, error) {
	if err := s.calls.enter(); err != nil {
		return store.LogState{}, err
	}
	defer s.calls.leave()
	var state store.LogState
	prefix := logKey(ref, partChunk)
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return state, err
	}
	if it.Last() {
		c, err := decodeChunk(it, ref)
		if err != nil {
			return state, errors.Join(err, it.Close())
		}
		state.Bytes = c.Offset + uint64(len(c.Data))
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return state, err
	}
	value, err := s.get(logKey(ref, partEnd))
	switch {
	case err == nil:
		state.End, err = storerecord.DecodeLogEnd(value, ref)
	case errors.Is(err, pebble.ErrNotFound):
		err = nil
	}
	return state, err
}

// Record implements store.Records.
func (s *Store) Record(_ context.Context, kind, key string) ([]byte, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	value, err := s.get(recordKey(kind, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument, "there is no %s %q", kind, key)
	}
	return value, err
}

// ListRecords implements store.Records.
func (s *Store) ListRecords(ctx context.Context, kind string) ([]store.Record, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	prefix := recordKey(kind, "")
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, err
	}
	var records []store.Record
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		records = append(records, store.Record{
			Kind: kind, Key: string(it.Key()[len(prefix):]), Value: append([]byte(nil), value...),
		})
	}
	return records, errors.Join(it.Error(), it.Close())
}
