package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Job implements store.Jobs.
func (s *Store) Job(_ context.Context, id job.ID) (job.Job, error) {
	spec, err := s.get(specKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return job.Job{}, job.Errorf(job.CodeNotFound, job.ReasonJobNotFound, "there is no job %q; `hodei job list` shows those that are known", id)
	}
	if err != nil {
		return job.Job{}, fmt.Errorf("reading the spec of job %s: %w", id, err)
	}
	state, err := s.get(stateKey(id))
	if err != nil {
		return job.Job{}, fmt.Errorf("reading the state of job %s: %w", id, err)
	}
	j, err := storerecord.DecodeJob(id, spec, state)
	if err != nil {
		return job.Job{}, fmt.Errorf("job %s: %w", id, err)
	}
	return j, nil
}

// ListJobs implements store.Jobs.
func (s *Store) ListJobs(ctx context.Context, filter store.Filter, before job.ID, limit int) ([]job.Job, error) {
	l := &listing{store: s, filter: filter, limit: limit}
	if len(filter.IDs) > 0 {
		return l.named(ctx, before), nil
	}
	return l.scan(ctx, before)
}

// listing gathers one page.
type listing struct {
	store  *Store
	filter store.Filter
	limit  int
	jobs   []job.Job
}

// add takes a job in if it matches. A job that cannot be read is left out of lists, so that one damaged record does not
// hide all others; Job tells about it.
func (l *listing) add(ctx context.Context, id job.ID) {
	j, err := l.store.Job(ctx, id)
	switch {
	case err == nil && l.filter.Matches(&j):
		l.jobs = append(l.jobs, j)
	case err != nil && job.CodeOf(err) != job.CodeNotFound:
		l.store.logger.Error("a job was left out of a list", "job", id, "error", err)
	}
}

func (l *listing) named(ctx context.Context, before job.ID) []job.Job {
	ids := slices.Clone(l.filter.IDs)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	slices.Reverse(ids)
	for _, id := range ids {
		if len(l.jobs) == l.limit {
			break
		}
		if before != "" && id >= before {
			continue
		}
		l.add(ctx, id)
	}
	return l.jobs
}

// scan goes through the index of the namespace, or through all jobs, from the newest on.
func (l *listing) scan(ctx context.Context, before job.ID) ([]job.Job, error) {
	prefix := []byte{'j'}
	if l.filter.Namespace != "" {
		prefix = namespacePrefix(l.filter.Namespace)
	}
	upper := after(prefix)
	if before != "" {
		upper = append(slices.Clone(prefix), before...)
	}
	it, err := l.store.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	for ok := it.Last(); ok && len(l.jobs) < l.limit && ctx.Err() == nil; ok = it.Prev() {
		l.add(ctx, job.ID(it.Key()[len(prefix):]))
	}
	return l.jobs, errors.Join(ctx.Err(), it.Error(), it.Close())
}

// Unfinished implements store.Jobs.
func (s *Store) Unfinished(ctx context.Context, visit func(job.Job) error) (int, error) {
	prefix := unfinishedKey("")
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return 0, err
	}
	var damaged []job.ID
	for ok := it.First(); ok; ok = it.Next() {
		id := job.ID(it.Key()[len(prefix):])
		j, err := s.Job(ctx, id)
		if err != nil {
			s.logger.Error("an unfinished job cannot be read and is set aside", "job", id, "error", err)
			damaged = append(damaged, id)
			continue
		}
		if err := visit(j); err != nil {
			return 0, errors.Join(err, it.Close())
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return 0, err
	}
	return len(damaged), s.quarantine(damaged)
}

// quarantine moves the records of jobs that cannot be read to where nothing looks, but a person can.
func (s *Store) quarantine(ids []job.ID) error {
	if len(ids) == 0 {
		return nil
	}
	return s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		for _, id := range ids {
			w.delete(unfinishedKey(id))
			for _, key := range [][]byte{specKey(id), stateKey(id)} {
				if value, err := s.get(key); err == nil {
					w.set(append([]byte{'q'}, key...), value)
					w.delete(key)
				}
			}
		}
		return w.err
	})
}

// Request implements store.Jobs.
func (s *Store) Request(_ context.Context, id string) (store.Request, error) {
	value, err := s.get(requestKey(id))
	if errors.Is(err, pebble.ErrNotFound) {
		return store.Request{}, job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument, "request_id %q was not used", id)
	}
	if err != nil {
		return store.Request{}, err
	}
	return storerecord.DecodeRequest(value, id)
}
