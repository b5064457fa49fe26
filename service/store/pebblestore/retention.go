package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
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

// Expire implements store.Expirer. What follows each other goes with one range deletion, whatever its number.
func (s *Store) Expire(ctx context.Context, endedBefore, expiredBefore time.Time) (removed int, more bool, err error) {
	if err := s.calls.enter(); err != nil {
		return 0, false, err
	}
	defer s.calls.leave()
	s.expiring.Lock()
	defer s.expiring.Unlock()
	sweep, next, err := s.log.Sweep(ctx, endedBefore, s.sweptTo)
	if err != nil {
		return 0, false, err
	}
	if s.sweptTo = next; !sweep.More {
		s.sweptTo = job.ID{} // the next sweep begins with the oldest again
	}
	limit := requestSpanOf(expiredBefore)
	if sweep.Removed == 0 && !s.spans.anyBefore(limit) {
		return 0, sweep.More, nil
	}
	err = s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		w.sweep(sweep)
		w.deleteRange([]byte{requestPrefix}, requestSpanKey(limit))
		return w.err
	})
	if err != nil {
		return 0, false, err
	}
	s.spans.drop(limit)
	return sweep.Removed, sweep.More, nil
}

func (w *writer) sweep(sweep *storelog.Sweep) {
	for _, run := range sweep.Jobs {
		w.deleteRange(idPrefix(nil, logPrefix, run.First), after(idPrefix(nil, logPrefix, run.Last)))
	}
	for _, run := range sweep.Pages {
		w.deleteRange(idPrefix(nil, jobPrefix, run.First), after(idPrefix(nil, jobPrefix, run.Last)))
	}
	for _, run := range sweep.Lists {
		prefix := listKey(nil, run.List)
		prefix = prefix[:len(prefix):len(prefix)]
		w.deleteRange(append(prefix, run.First[:]...), after(append(prefix, run.Last[:]...)))
	}
	w.rest(sweep.Rest)
}
