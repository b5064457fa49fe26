package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// requestSpan is the time whose requests expire together: they are deleted with one range.
const requestSpan = 6 * time.Hour

// requestSpanOf numbers spans from 1, so that 0 is none.
func requestSpanOf(t time.Time) uint32 {
	return 1 + uint32(max(t.Unix(), 0)/int64(requestSpan/time.Second))
}

func requestSpanKey(span uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{requestPrefix}, span)
}

func requestKey(r *store.Request) []byte {
	return append(requestSpanKey(requestSpanOf(r.Expires)), r.ID...)
}

// Request implements store.Jobs. It looks into every span that there is, which are a few.
func (s *Store) Request(_ context.Context, id string) (store.Request, error) {
	if err := s.calls.enter(); err != nil {
		return store.Request{}, err
	}
	defer s.calls.leave()
	first, last := s.spans.bounds()
	for span := last; last > 0 && span >= first; span-- {
		value, err := s.get(append(requestSpanKey(span), id...))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return store.Request{}, err
		}
		return storerecord.DecodeRequest(value, id)
	}
	return store.Request{}, job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument, "request_id %q was not used", id)
}

// spans are the spans that have requests, from the oldest to the newest.
type spans struct {
	mu          sync.Mutex
	first, last uint32 // 0: none
}

func (s *spans) add(span uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first == 0 || span < s.first {
		s.first = span
	}
	s.last = max(s.last, span)
}

func (s *spans) bounds() (first, last uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.last
}

func (s *spans) anyBefore(span uint32) bool {
	first, last := s.bounds()
	return last > 0 && first < span
}

// drop forgets the spans before one.
func (s *spans) drop(span uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first = max(s.first, span); s.first > s.last {
		s.first, s.last = 0, 0
	}
}

// loadSpans finds the oldest and the newest span of requests.
func (s *Store) loadSpans() error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{requestPrefix}, UpperBound: []byte{requestPrefix + 1}})
	if err != nil {
		return err
	}
	for _, move := range []func() bool{it.First, it.Last} {
		if move() && len(it.Key()) >= 5 {
			s.spans.add(binary.BigEndian.Uint32(it.Key()[1:]))
		}
	}
	return errors.Join(it.Error(), it.Close())
}

// expirePiece is how many jobs one call of Expire removes.
const expirePiece = 50_000

// Expire implements store.Expirer. Runs of jobs that are old enough go with two range deletions, whatever their number.
func (s *Store) Expire(ctx context.Context, endedBefore, expiredBefore time.Time) (removed int, more bool, err error) {
	if err := s.calls.enter(); err != nil {
		return 0, false, err
	}
	defer s.calls.leave()
	s.expiring.Lock()
	defer s.expiring.Unlock()
	sweep := sweep{store: s, before: endedBefore}
	more, err = sweep.collect(ctx)
	if err != nil {
		return 0, false, err
	}
	limit := requestSpanOf(expiredBefore)
	if sweep.removed == 0 && !s.spans.anyBefore(limit) {
		return 0, more, nil
	}
	// While lists are written anew no commit may add to them.
	s.committing.Lock()
	defer s.committing.Unlock()
	if err := sweep.lookAgain(); err != nil {
		return 0, false, err
	}
	err = s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		sweep.write(&w)
		w.deleteRange([]byte{requestPrefix}, requestSpanKey(limit))
		return w.err
	})
	if err != nil {
		return 0, false, err
	}
	s.spans.drop(limit)
	return sweep.removed, more, nil
}

// sweep is one call's work.
type sweep struct {
	store   *Store
	before  time.Time
	runs    [][2]job.ID       // first and last of jobs that follow each other and all go
	kept    storelog.Postings // the places in lists of jobs among those that go
	live    []job.ID          // those of the kept ones that had not ended
	last    job.ID            // the last one that was looked at
	removed int
}

// collect looks at the oldest jobs. It reports whether there are more that may be old enough.
func (w *sweep) collect(ctx context.Context) (more bool, err error) {
	bounds := &pebble.IterOptions{LowerBound: []byte{jobPrefix}, UpperBound: idPrefix(nil, jobPrefix, job.NewID(w.before, 0, 0))}
	it, err := w.store.db.NewIterWithContext(ctx, bounds)
	if err != nil {
		return false, err
	}
	open := false // the last run goes on
	for ok := it.First(); ok && ctx.Err() == nil; ok = it.Next() {
		id, part := jobOf(it.Key())
		if part != partAccepted {
			continue
		}
		if w.removed == expirePiece {
			more = true
			break
		}
		w.last = id
		j, err := w.store.job(w.last)
		switch {
		case err == nil && j.State.Terminal() && j.Ended.Before(w.before):
			w.removed++
			if !open {
				w.runs = append(w.runs, [2]job.ID{w.last, w.last})
			}
			w.runs[len(w.runs)-1][1] = w.last
			open = true
			continue
		case err == nil:
			w.kept.Accept(&j)
			if j.State.Terminal() {
				w.kept.End(&j)
			} else {
				w.live = append(w.live, j.ID)
			}
		default:
			w.store.logger.Error("a job that cannot be read is kept beyond its time", "job", w.last, "error", err)
		}
		open = false
	}
	return more, errors.Join(ctx.Err(), it.Error(), it.Close())
}

// lookAgain finds the kept jobs that have ended meanwhile: their places in the lists of those that have ended are to stay.
func (w *sweep) lookAgain() error {
	for _, id := range w.live {
		if _, unfinished := w.store.hot.Find(id); unfinished {
			continue
		}
		accepted, err := w.store.get(jobKey(nil, id, partAccepted))
		if errors.Is(err, pebble.ErrNotFound) {
			continue // it was set aside
		}
		if err != nil {
			return err
		}
		state, err := w.store.ending(id)
		if err != nil {
			return err
		}
		j, err := storelog.Decode(id, accepted, state)
		if err != nil {
			return fmt.Errorf("job %s: %w", id, err)
		}
		w.kept.End(&j)
	}
	return nil
}

func (w *sweep) write(out *writer) {
	if w.removed == 0 {
		return
	}
	for _, run := range w.runs {
		for _, prefix := range []byte{jobPrefix, logPrefix} {
			out.deleteRange(idPrefix(nil, prefix, run[0]), after(idPrefix(nil, prefix, run[1])))
		}
	}
	if out.err == nil {
		out.err = w.trimIndex(out)
	}
	out.lists(&w.kept) // which went with those of the others
}

// trimIndex deletes, of every list, the postings that have only jobs that were looked at.
func (w *sweep) trimIndex(out *writer) error {
	it, err := w.store.db.NewIter(&pebble.IterOptions{LowerBound: []byte{indexPrefix}, UpperBound: []byte{indexPrefix + 1}})
	if err != nil {
		return err
	}
	for ok := it.First(); ok; {
		key := append([]byte(nil), it.Key()...)
		if len(key) < len(w.last) {
			return errors.Join(fmt.Errorf("the index has a key of %d bytes", len(key)), it.Close())
		}
		prefix := key[:len(key)-len(w.last)]
		out.deleteRange(prefix, after(append(prefix[:len(prefix):len(prefix)], w.last[:]...)))
		ok = it.SeekGE(after(prefix))
	}
	return errors.Join(it.Error(), it.Close())
}
