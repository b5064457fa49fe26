package pebblestore

import (
	"context"
	"errors"
	"math"

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
	return s.PageRecords(ctx, kind, store.RecordPage{Limit: math.MaxInt})
}

// PageRecords implements store.Records.
func (s *Store) PageRecords(ctx context.Context, kind string, page store.RecordPage) ([]store.Record, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	prefix := recordKey(kind, "")
	options := &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)}
	switch at := recordKey(kind, page.After); {
	case page.After == "":
	case page.Descending:
		options.UpperBound = at
	default:
		options.LowerBound = append(at, 0) // the smallest key behind it
	}
	it, err := s.db.NewIterWithContext(ctx, options)
	if err != nil {
		return nil, err
	}
	first, next := it.First, it.Next
	if page.Descending {
		first, next = it.Last, it.Prev
	}
	var records []store.Record
	for ok := page.Limit > 0 && first(); ok; ok = len(records) < page.Limit && next() {
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
