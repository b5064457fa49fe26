package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

var errNoState = errors.New("the job has a spec and no state: the data folder is damaged; restore a backup")

// Job implements store.Jobs.
func (s *Store) Job(_ context.Context, id job.ID) (job.Job, error) {
	if err := s.calls.enter(); err != nil {
		return job.Job{}, err
	}
	defer s.calls.leave()
	return s.job(id)
}

func (s *Store) job(id job.ID) (job.Job, error) {
	// First whether it is unfinished: a job that ends meanwhile is then found as ended.
	state, unfinished := s.hot.Find(id)
	accepted, err := s.get(jobKey(nil, id, partAccepted))
	if errors.Is(err, pebble.ErrNotFound) {
		return job.Job{}, job.NotFound(id.String())
	}
	if err == nil && !unfinished {
		state, err = s.ending(id)
		if errors.Is(err, errNoState) { // its commit may be under way: what it wrote is seen before it is over
			s.committing.Lock()
			state, unfinished = s.hot.Find(id)
			s.committing.Unlock()
			if err = nil; !unfinished {
				state, err = s.ending(id)
			}
		}
	}
	if err != nil {
		return job.Job{}, fmt.Errorf("reading job %s: %w", id, err)
	}
	j, err := storelog.Decode(id, accepted, state)
	if err != nil {
		return job.Job{}, fmt.Errorf("job %s: %w", id, err)
	}
	return j, nil
}

// ending returns the state of a job that has ended.
func (s *Store) ending(id job.ID) ([]byte, error) {
	state, err := s.get(jobKey(nil, id, partEnded))
	if errors.Is(err, pebble.ErrNotFound) {
		err = errNoState
	}
	return state, err
}

// JobsByID implements store.Jobs.
func (s *Store) JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	for _, id := range ids {
		j, err := s.job(id)
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
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	l := &listing{store: s, filter: filter, limit: limit}
	if limit <= 0 {
		return nil, ctx.Err()
	}
	if ids, few := s.hot.Few(&filter); few {
		l.named(ctx, ids, before)
		return l.jobs, ctx.Err()
	}
	if keys := storelog.ListsFor(&filter); keys != nil {
		err := l.listed(ctx, keys, before)
		return l.jobs, err
	}
	err := l.scan(ctx, before)
	return l.jobs, err
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
func (l *listing) add(id job.ID) {
	j, err := l.store.job(id)
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
			l.add(id)
		}
	}
}

// listed goes through lists, the newest job of all of them first.
func (l *listing) listed(ctx context.Context, keys []storelog.ListKey, before job.ID) (err error) {
	readers := make([]*storelog.ListReader, len(keys))
	for i, key := range keys {
		prefix := listPrefix(key)
		it, openErr := l.store.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		if readers[i], err = storelog.NewListReader(postings(it), before); err != nil {
			return err
		}
	}
	err = storelog.Merge(readers, func(id job.ID) bool {
		l.add(id)
		return !l.full() && ctx.Err() == nil
	})
	return errors.Join(err, ctx.Err())
}

// postings goes through a list from its end.
func postings(it *pebble.Iterator) storelog.PostingSource {
	move := it.Last
	return func() (last job.ID, ids []byte, ok bool, err error) {
		if !move() {
			return last, nil, false, it.Error()
		}
		move = it.Prev
		value, err := it.ValueAndErr()
		return idOf(it.Key()), append([]byte(nil), value...), err == nil, err
	}
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
			l.add(id)
		}
	}
	return errors.Join(ctx.Err(), it.Error(), it.Close())
}

// Unfinished implements store.Jobs.
func (s *Store) Unfinished(ctx context.Context, visit func(job.Job) error) (int, error) {
	if err := s.calls.enter(); err != nil {
		return 0, err
	}
	defer s.calls.leave()
	ids := s.hot.IDs()
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: []byte{jobPrefix}, UpperBound: []byte{jobPrefix + 1}})
	if err != nil {
		return 0, err
	}
	var damaged []job.ID
	var key []byte
	for _, id := range ids {
		key = jobKey(key[:0], id, partAccepted)
		if !it.Valid() || !it.Next() || !bytes.Equal(it.Key(), key) { // jobs that follow each other need no search
			it.SeekGE(key)
		}
		state, unfinished := s.hot.Find(id)
		if !unfinished {
			continue // it has ended meanwhile
		}
		j, err := readUnfinished(it, id, state)
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
	blocks, err := s.quarantine(damaged)
	return len(damaged) + blocks, err
}

func readUnfinished(it *pebble.Iterator, id job.ID, state []byte) (job.Job, error) {
	if !it.Valid() || !bytes.Equal(it.Key(), jobKey(nil, id, partAccepted)) {
		return job.Job{}, errors.New("its spec is gone")
	}
	accepted, err := it.ValueAndErr()
	if err != nil {
		return job.Job{}, err
	}
	return storelog.Decode(id, accepted, state)
}

// quarantine moves the records of unfinished jobs that cannot be read to where nothing looks, but a person can. It returns how
// many blocks of the log of unfinished jobs were set aside when the store was opened.
func (s *Store) quarantine(ids []job.ID) (blocks int, err error) {
	s.committing.Lock()
	defer s.committing.Unlock()
	blocks, s.damagedBlocks = s.damagedBlocks, 0
	if len(ids) == 0 {
		return blocks, nil
	}
	block := storelog.NewBlock(len(ids))
	var keys [][]byte
	for _, id := range ids {
		block.End(id)
		keys = append(keys, jobKey(nil, id, partAccepted))
	}
	return blocks, s.setAside(keys, block)
}

// setAside moves records away, in one batch with a block of the log of unfinished jobs, if there is one.
func (s *Store) setAside(keys [][]byte, block *storelog.Block) error {
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
			w.set(hotKey(s.hot.Next()), block.Bytes())
		}
		return w.err
	})
	if err == nil && block != nil {
		s.hot.Apply(block)
	}
	return err
}
