package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// fencing: whoever leads last is the only one who may write as a leader.
func fencing(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){
		"Terms": terms, "Concurrently": deposedWhileWriting, "TwoOpenings": twoOpenings, "ManyLeaders": manyLeaders,
	})
}

func terms(t *testing.T, h Harness) {
	s := h.Open(t)
	first := lead(t, s)
	commit(t, s, &store.Batch{Term: first, Accepted: []*job.Job{newJob(t, 1, nil)}})
	second := lead(t, s)
	if first == 0 || second <= first {
		t.Fatalf("the term after %d is %d", first, second)
	}
	for _, batch := range []*store.Batch{
		{Term: first, Accepted: []*job.Job{newJob(t, 2, nil)}},
		{Term: first, Changed: []*job.Job{end(t, newJob(t, 1, nil))}},
		{Term: first, Records: []store.Record{{Kind: "k", Key: "old", Value: []byte("v")}}},
		{Term: first, Ends: []store.LogEnd{{Ref: store.LogRef{Job: id(1), Attempt: 1}}}},
		{Term: first, Requests: []store.Request{{ID: "old", Expires: at(1)}}},
	} {
		if err := s.Commit(t.Context(), batch); !errors.Is(err, store.ErrDeposed) {
			t.Errorf("a commit of an old term gave %v", err)
		}
	}
	wantNoJob(t, s, id(2))
	wantJob(t, s, newJob(t, 1, nil))
	commit(t, s, &store.Batch{Term: second, Accepted: []*job.Job{newJob(t, 3, nil)}})
	commit(t, s, &store.Batch{Records: []store.Record{{Kind: "k", Key: "k", Value: []byte("of whoever leads")}}})
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	if third := lead(t, s); third <= second {
		t.Errorf("after the store was opened anew the term after %d is %d", second, third)
	}
	if err := s.Commit(t.Context(), &store.Batch{Term: second, Accepted: []*job.Job{newJob(t, 4, nil)}}); !errors.Is(err, store.ErrDeposed) {
		t.Errorf("a commit of a term from before gave %v", err)
	}
}

// deposedWhileWriting: a writer goes on with its term while another one takes the lead. From then on nothing of it is
// written, and all that was acknowledged before is.
func deposedWhileWriting(t *testing.T, h Harness) {
	s := open(t, h)
	for round := range 5 { // each a thousand ids after the one before
		term := lead(t, s)
		var deposed atomic.Bool
		var written int
		var group sync.WaitGroup
		batches := make([]store.Batch, 200)
		for n := range batches {
			batches[n] = store.Batch{Term: term, Accepted: []*job.Job{newJob(t, 1000*round+n, nil)}}
		}
		underWay := make(chan struct{})
		group.Go(func() {
			for n := range batches {
				late := deposed.Load()
				err := s.Commit(context.Background(), &batches[n])
				switch {
				case errors.Is(err, store.ErrDeposed):
					return
				case err != nil:
					t.Error(err)
					return
				case late:
					t.Error("a commit that began after the next term was acknowledged")
				}
				if written++; written == 10 {
					close(underWay)
				}
			}
		})
		<-underWay
		lead(t, s)
		deposed.Store(true)
		group.Wait()
		for n := range batches {
			if n < written {
				wantJob(t, s, batches[n].Accepted[0])
			} else {
				wantNoJob(t, s, batches[n].Accepted[0].ID)
			}
		}
	}
}

// twoOpenings: a second server is refused, or else only one of the two can write at a time and each lead finds all that was
// written under the one before.
func twoOpenings(t *testing.T, h Harness) {
	if h.OpenSecond == nil {
		t.Log("nobody else can open this store, so there is nothing to fence")
		return
	}
	one := open(t, h)
	first := lead(t, one)
	commit(t, one, &store.Batch{Term: first, Accepted: []*job.Job{newJob(t, 1, nil), newJob(t, 2, nil)}})
	two, err := h.OpenSecond(t, one)
	if err != nil {
		commit(t, one, &store.Batch{Term: first, Accepted: []*job.Job{newJob(t, 3, nil)}}) // who has it keeps it
		return
	}
	closeAfter(t, two)
	second := lead(t, two)
	if second <= first {
		t.Fatalf("the term after %d is %d", first, second)
	}
	wantUnfinished(t, two, []*job.Job{newJob(t, 1, nil), newJob(t, 2, nil)})
	for _, batch := range []*store.Batch{
		{Term: first, Changed: []*job.Job{end(t, newJob(t, 1, nil))}}, {Changed: []*job.Job{end(t, newJob(t, 1, nil))}},
	} {
		if err := one.Commit(t.Context(), batch); !errors.Is(err, store.ErrDeposed) {
			t.Fatalf("a commit of the one that was deposed gave %v", err)
		}
	}
	ended := end(t, newJob(t, 2, nil))
	commit(t, two, &store.Batch{Term: second, Changed: []*job.Job{ended}})
	wantJob(t, two, ended)
	third := lead(t, one) // and back
	wantUnfinished(t, one, []*job.Job{newJob(t, 1, nil)})
	if err := two.Commit(t.Context(), &store.Batch{Term: second, Accepted: []*job.Job{newJob(t, 5, nil)}}); !errors.Is(err, store.ErrDeposed) {
		t.Errorf("a commit of the other one that was deposed gave %v", err)
	}
	commit(t, one, &store.Batch{Term: third, Changed: []*job.Job{end(t, newJob(t, 1, nil))}})
	wantUnfinished(t, one, nil)
}

// manyLeaders: no term is given out twice.
func manyLeaders(t *testing.T, h Harness) {
	s := open(t, h)
	var group sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[uint64]bool)
	for range 4 {
		group.Go(func() {
			before := uint64(0)
			for range 10 {
				term, err := s.Lead(context.Background())
				mu.Lock()
				if err != nil || seen[term] || term <= before {
					t.Errorf("the term after %d is %d, which was given out: %t, %v", before, term, seen[term], err)
				}
				seen[term] = true
				mu.Unlock()
				before = term
			}
		})
	}
	group.Wait()
}
