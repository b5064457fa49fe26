// Package memstore keeps everything in memory: for tests and simulations. It has the manners of a store on a disk, errors
// included, but forgets when the process ends.
package memstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Store is a store.Store. The zero value is not usable; use New.
type Store struct {
	mu       sync.RWMutex
	jobs     map[job.ID]job.Job
	requests map[string]store.Request
	records  map[[2]string][]byte
	logs     map[store.LogRef]*logData
	fail     func() error
	failed   error
	closed   bool
	term     uint64
	newest   job.ID // the largest id that was accepted
}

// New makes an empty store.
func New() *Store {
	return &Store{
		jobs: make(map[job.ID]job.Job), requests: make(map[string]store.Request),
		records: make(map[[2]string][]byte), logs: make(map[store.LogRef]*logData),
	}
}

// FailWith makes every later write ask fail first: an error of it is what the write returns, and from then on all writes
// fail, as on a disk whose sync has failed. Nil lets writes pass again as long as none has failed.
func (s *Store) FailWith(fail func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

var errClosed = errors.New("the store is closed")

// write runs a change under the lock, if writes are still taken.
func (s *Store) write(change func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.failed != nil:
		return s.failed
	case s.fail != nil:
		if s.failed = s.fail(); s.failed != nil {
			return s.failed
		}
	}
	change()
	return nil
}

// read runs a look at what is there under the lock, unless the store is closed.
func (s *Store) read(look func()) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errClosed
	}
	look()
	return nil
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// Commit implements store.Committer.
func (s *Store) Commit(_ context.Context, b *store.Batch) error {
	var refused error
	err := s.write(func() {
		if refused = s.refuse(b); refused != nil {
			return
		}
		for _, list := range [][]*job.Job{b.Accepted, b.Changed} {
			for _, j := range list {
				s.jobs[j.ID] = *j // a job is a value that never changes
			}
		}
		for _, e := range b.Ends {
			s.log(e.Ref).end = &e
		}
		for _, r := range b.Requests {
			r.Jobs = slices.Clone(r.Jobs)
			s.requests[r.ID] = r
		}
		for _, r := range b.Records {
			if key := [2]string{r.Kind, r.Key}; len(r.Value) == 0 {
				delete(s.records, key)
			} else {
				s.records[key] = slices.Clone(r.Value)
			}
		}
	})
	return cmp.Or(err, refused)
}

// refuse says what is wrong with a batch.
func (s *Store) refuse(b *store.Batch) error {
	if b.Term != 0 && b.Term != s.term {
		return store.ErrDeposed
	}
	newest := s.newest
	for _, j := range b.Accepted {
		if j.ID.Compare(newest) <= 0 {
			return fmt.Errorf("job %s is accepted after job %s, whose id is not smaller", j.ID, newest)
		}
		newest = j.ID
	}
	for _, j := range b.Changed {
		if before, ok := s.jobs[j.ID]; !ok || before.State.Terminal() {
			return fmt.Errorf("job %s changes, but it has ended or was never accepted", j.ID)
		}
	}
	s.newest = newest
	return nil
}

// Newest implements store.Jobs.
func (s *Store) Newest(context.Context) (job.ID, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.newest, nil
}

// Lead implements store.Leader.
func (s *Store) Lead(context.Context) (term uint64, err error) {
	err = s.write(func() {
		s.term++
		term = s.term
	})
	return term, err
}

// Expire implements store.Expirer.
func (s *Store) Expire(_ context.Context, endedBefore, expiredBefore time.Time) (removed int, more bool, err error) {
	err = s.write(func() {
		for id, j := range s.jobs {
			if !j.State.Terminal() || !j.Ended.Before(endedBefore) {
				continue
			}
			removed++
			delete(s.jobs, id)
			maps.DeleteFunc(s.logs, func(ref store.LogRef, _ *logData) bool { return ref.Job == id })
		}
		maps.DeleteFunc(s.requests, func(_ string, r store.Request) bool { return r.Expires.Before(expiredBefore) })
	})
	return removed, false, err
}

// JobsByID implements store.Jobs.
func (s *Store) JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error {
	for _, id := range ids {
		j, err := s.Job(ctx, id)
		switch {
		case err == nil:
			visit(j)
		case job.CodeOf(err) != job.CodeNotFound:
			return err
		}
	}
	return errors.Join(s.read(func() {}), ctx.Err())
}

// Job implements store.Jobs.
func (s *Store) Job(_ context.Context, id job.ID) (j job.Job, err error) {
	var ok bool
	if err = s.read(func() { j, ok = s.jobs[id] }); err == nil && !ok {
		err = job.NotFound(id.String())
	}
	return j, err
}

// ListJobs implements store.Jobs.
func (s *Store) ListJobs(_ context.Context, filter store.Filter, before job.ID, limit int) (out []job.Job, err error) {
	err = s.read(func() {
		for _, id := range slices.Backward(slices.SortedFunc(maps.Keys(s.jobs), job.ID.Compare)) {
			if len(out) >= limit {
				break
			}
			if j := s.jobs[id]; (before.IsZero() || id.Compare(before) < 0) && filter.Matches(&j) {
				out = append(out, j)
			}
		}
	})
	return out, err
}

// Unfinished implements store.Jobs.
func (s *Store) Unfinished(_ context.Context, visit func(job.Job) error) (int, error) {
	var unfinished []job.Job
	err := s.read(func() {
		for _, id := range slices.SortedFunc(maps.Keys(s.jobs), job.ID.Compare) {
			if j := s.jobs[id]; !j.State.Terminal() {
				unfinished = append(unfinished, j)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	for _, j := range unfinished {
		if err := visit(j); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// Request implements store.Jobs.
func (s *Store) Request(_ context.Context, id string) (r store.Request, err error) {
	var ok bool
	if err = s.read(func() { r, ok = s.requests[id] }); err == nil && !ok {
		err = job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument, "request_id %q was not used", id)
	}
	return r, err
}

// Record implements store.Records.
func (s *Store) Record(_ context.Context, kind, key string) (value []byte, err error) {
	var ok bool
	if err = s.read(func() { value, ok = s.records[[2]string{kind, key}] }); err == nil && !ok {
		err = job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument, "there is no %s %q", kind, key)
	}
	return slices.Clone(value), err
}

// ListRecords implements store.Records.
func (s *Store) ListRecords(ctx context.Context, kind string) ([]store.Record, error) {
	return s.PageRecords(ctx, kind, store.RecordPage{Limit: math.MaxInt})
}

// PageRecords implements store.Records.
func (s *Store) PageRecords(_ context.Context, kind string, page store.RecordPage) (out []store.Record, err error) {
	order := strings.Compare
	if page.Descending {
		order = func(a, b string) int { return strings.Compare(b, a) }
	}
	err = s.read(func() {
		var keys []string
		for key := range s.records {
			if key[0] == kind && (page.After == "" || order(page.After, key[1]) < 0) {
				keys = append(keys, key[1])
			}
		}
		slices.SortFunc(keys, order)
		for _, key := range keys[:min(len(keys), max(page.Limit, 0))] {
			out = append(out, store.Record{Kind: kind, Key: key, Value: slices.Clone(s.records[[2]string{kind, key}])})
		}
	})
	return out, err
}
