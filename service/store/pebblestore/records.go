package pebblestore

import (
	"context"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

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
