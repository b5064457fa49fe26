package pebblestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

var errNoState = errors.New("the job has a spec and no state: the data folder is damaged; restore a backup")

// appendAccepted writes what is known of a job when it is accepted: when that was, and its spec.
func appendAccepted(b []byte, j *job.Job) []byte {
	return storerecord.AppendSpec(binary.BigEndian.AppendUint64(b, uint64(j.Created.UnixNano())), j.Spec)
}

// isAsAccepted reports whether a job's state follows from its spec and the time of its acceptance.
func isAsAccepted(j *job.Job) bool {
	queued := j.State == job.Queued && j.NextAttempt.IsZero()
	delayed := j.State == job.Delayed && j.NextAttempt.Equal(j.Spec.RunAfter)
	return j.Revision == 1 && j.Attempt == 0 && (queued || delayed)
}

// decode puts a job together. state is nil for a job that is as it was accepted.
func decode(id job.ID, accepted, state []byte) (job.Job, error) {
	if len(accepted) < 8 {
		return job.Job{}, errors.New("the record of the spec is cut off")
	}
	if state != nil {
		return storerecord.DecodeJob(id, accepted[8:], state)
	}
	spec, err := storerecord.DecodeSpec(accepted[8:])
	if err != nil {
		return job.Job{}, err
	}
	return job.Accepted(id, spec, time.Unix(0, int64(binary.BigEndian.Uint64(accepted))).UTC())
}

// Job implements store.Jobs.
func (s *Store) Job(_ context.Context, id job.ID) (job.Job, error) {
	// First whether it is unfinished: a job that ends meanwhile is then found as ended.
	state, unfinished := s.hot.find(id)
	accepted, err := s.get(jobKey(nil, id, partAccepted))
	if errors.Is(err, pebble.ErrNotFound) {
		return job.Job{}, job.NotFound(id.String())
	}
	if err == nil && !unfinished {
		if state, err = s.get(jobKey(nil, id, partEnded)); errors.Is(err, pebble.ErrNotFound) {
			err = errNoState
		}
	}
	if err != nil {
		return job.Job{}, fmt.Errorf("reading job %s: %w", id, err)
	}
	j, err := decode(id, accepted, state)
	if err != nil {
		return job.Job{}, fmt.Errorf("job %s: %w", id, err)
	}
	return j, nil
}

// JobsByID implements store.Jobs.
func (s *Store) JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error {
	for _, id := range ids {
		j, err := s.Job(ctx, id)
		switch {
		case err == nil:
			visit(j)
		case job.CodeOf(err) != job.CodeNotFound:
			s.logger.Error("a job cannot be read", "job", id, "error", err)
		}
	}
	return ctx.Err()
}

// ListJobs implements store.Jobs.
func (s *Store) ListJobs(ctx context.Context, filter store.Filter, before job.ID, limit int) ([]job.Job, error) {
	l := &listing{store: s, filter: filter, limit: limit}
	if ids, few := s.candidates(&filter); few {
		l.named(ctx, ids, before)
		return l.jobs, ctx.Err()
	}
	if prefixes := lists(&filter); prefixes != nil {
		return l.jobs, l.listed(ctx, prefixes, before)
	}
	return l.jobs, l.scan(ctx, before)
}

// candidates returns the jobs that a filter can select, when memory knows that there are few.
func (s *Store) candidates(filter *store.Filter) ([]job.ID, bool) {
	if len(filter.IDs) > 0 {
		return slices.Clone(filter.IDs), true
	}
	if len(filter.States) == 0 || slices.ContainsFunc(filter.States, func(st job.State) bool { return !st.OnWorker() }) {
		return nil, false
	}
	s.hot.mu.RLock()
	defer s.hot.mu.RUnlock()
	ids := make([]job.ID, 0, len(s.hot.states))
	for id := range s.hot.states {
		ids = append(ids, id)
	}
	return ids, true
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

func (l *listing) full() bool { return len(l.jobs) >= l.limit }

func (l *listing) named(ctx context.Context, ids []job.ID, before job.ID) {
	slices.SortFunc(ids, func(a, b job.ID) int { return b.Compare(a) })
	for _, id := range slices.Compact(ids) {
		if l.full() || ctx.Err() != nil {
			return
		}
		if before.IsZero() || id.Compare(before) < 0 {
			l.add(ctx, id)
		}
	}
}

// listed goes through lists of the index, the newest of all of them first.
func (l *listing) listed(ctx context.Context, prefixes [][]byte, before job.ID) (err error) {
	readers := make([]*listReader, 0, len(prefixes))
	defer func() {
		for _, r := range readers {
			err = errors.Join(err, r.it.Close())
		}
	}()
	heads := make(map[*listReader]job.ID)
	for _, prefix := range prefixes {
		r, err := l.store.readList(ctx, prefix, before)
		if err != nil {
			return err
		}
		readers = append(readers, r)
		if id, ok, err := r.next(); err != nil {
			return err
		} else if ok {
			heads[r] = id
		}
	}
	for !l.full() && len(heads) > 0 && ctx.Err() == nil {
		var newest *listReader
		for r, id := range heads {
			if newest == nil || id.Compare(heads[newest]) > 0 {
				newest = r
			}
		}
		l.add(ctx, heads[newest])
		id, ok, err := newest.next()
		if err != nil {
			return err
		}
		if heads[newest] = id; !ok {
			delete(heads, newest)
		}
	}
	return ctx.Err()
}

// scan goes through all jobs, from the newest on.
func (l *listing) scan(ctx context.Context, before job.ID) error {
	upper := []byte{jobPrefix + 1}
	if !before.IsZero() {
		upper = idPrefix(nil, jobPrefix, before)
	}
	it, err := l.store.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: []byte{jobPrefix}, UpperBound: upper})
	if err != nil {
		return err
	}
	for ok := it.Last(); ok && !l.full() && ctx.Err() == nil; ok = it.Prev() {
		if id, part := jobOf(it.Key()); part == partAccepted {
			l.add(ctx, id)
		}
	}
	return errors.Join(ctx.Err(), it.Error(), it.Close())
}

// Unfinished implements store.Jobs.
func (s *Store) Unfinished(ctx context.Context, visit func(job.Job) error) (int, error) {
	ids := s.hot.ids()
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: []byte{jobPrefix}, UpperBound: []byte{jobPrefix + 1}})
	if err != nil {
		return 0, err
	}
	var damaged []job.ID
	var key []byte
	for _, id := range ids {
		key = jobKey(key[:0], id, partAccepted)
		if !(it.Valid() && it.Next() && bytes.Equal(it.Key(), key)) { // jobs that follow each other need no search
			it.SeekGE(key)
		}
		j, err := s.readUnfinished(it, id)
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

func (s *Store) readUnfinished(it *pebble.Iterator, id job.ID) (job.Job, error) {
	if !it.Valid() || !bytes.Equal(it.Key(), jobKey(nil, id, partAccepted)) {
		return job.Job{}, errors.New("its spec is gone")
	}
	accepted, err := it.ValueAndErr()
	if err != nil {
		return job.Job{}, err
	}
	state, _ := s.hot.find(id)
	return decode(id, accepted, state)
}

// ids returns the unfinished jobs, the oldest first.
func (h *hot) ids() []job.ID {
	h.mu.RLock()
	ids := make([]job.ID, 0, len(h.where))
	for id := range h.where {
		ids = append(ids, id)
	}
	h.mu.RUnlock()
	slices.SortFunc(ids, job.ID.Compare)
	return ids
}

// quarantine moves the records of unfinished jobs that cannot be read to where nothing looks, but a person can.
func (s *Store) quarantine(ids []job.ID) error {
	if len(ids) == 0 {
		return nil
	}
	s.committing.Lock()
	defer s.committing.Unlock()
	block := newBlockWriter(len(ids))
	var keys [][]byte
	for _, id := range ids {
		block.add(hotEnded, id)
		keys = append(keys, jobKey(nil, id, partAccepted))
	}
	return s.setAside(keys, block)
}

// setAside moves records away, in one batch with a block of the log of unfinished jobs, if there is one.
func (s *Store) setAside(keys [][]byte, block *blockWriter) error {
	if len(keys) == 0 {
		return nil
	}
	err := s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		for _, key := range keys {
			value, err := s.get(key)
			if errors.Is(err, pebble.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			w.set(append([]byte{quarantinePrefix}, key...), value)
			w.delete(key)
		}
		if block != nil {
			w.set(hotKey(s.hot.next()), block.buffer)
		}
		return w.err
	})
	if err == nil && block != nil {
		s.hot.apply(block.entries)
	}
	return err
}
