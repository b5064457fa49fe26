package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// atomicity: of a batch there is all or nothing.
func atomicity(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){
		"RefusedBatch": refusedBatch, "BrokenOff": brokenOff, "Readers": readersSeeWholeBatches,
	})
}

// wholeBatch has one of everything; its parts name n.
func wholeBatch(t tester, n int) *store.Batch {
	t.Helper()
	return &store.Batch{
		Accepted: []*job.Job{newJob(t, 2*n, nil), end(t, newJob(t, 2*n+1, nil))},
		Ends:     []store.LogEnd{{Ref: store.LogRef{Job: id(2*n + 1), Attempt: 1}, Bytes: uint64(n + 1)}},
		Requests: []store.Request{{ID: fmt.Sprintf("ns/%d", n), Jobs: []job.ID{id(2 * n), id(2*n + 1)}, Expires: at(n + 1)}},
		Records:  []store.Record{{Kind: "k", Key: fmt.Sprint(n), Value: []byte{1}}},
	}
}

// parts counts what of a wholeBatch is there, and how many parts there are in all.
func parts(t tester, s store.Store, n int) (have, all int) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	count := func(err error, there bool) {
		t.Helper()
		all++
		switch {
		case err == nil && there:
			have++
		case err != nil && job.CodeOf(err) != job.CodeNotFound:
			t.Fatal(err)
		}
	}
	for _, jobID := range []job.ID{id(2 * n), id(2*n + 1)} {
		_, err := s.Job(ctx, jobID)
		count(err, true)
	}
	state, err := s.LogState(ctx, store.LogRef{Job: id(2*n + 1), Attempt: 1})
	count(err, state.End != nil && state.End.Bytes == uint64(n+1))
	_, err = s.Request(ctx, fmt.Sprintf("ns/%d", n))
	count(err, true)
	_, err = s.Record(ctx, "k", fmt.Sprint(n))
	count(err, true)
	for _, filter := range []store.Filter{{Namespace: "default"}, {Namespace: "default", Queue: "default"}} {
		for _, j := range []int{2 * n, 2*n + 1} {
			page, err := s.ListJobs(ctx, filter, id(j+1), 1)
			count(err, len(page) == 1 && page[0].ID == id(j))
		}
	}
	return have, all
}

func refusedBatch(t *testing.T, h Harness) {
	s := open(t, h)
	old := lead(t, s)
	batch := wholeBatch(t, 1)
	batch.Term = old
	lead(t, s)
	if err := s.Commit(t.Context(), batch); err == nil {
		t.Fatal("the batch of an old term was written")
	}
	if have, all := parts(t, s, 1); have != 0 {
		t.Errorf("of a batch that was refused %d of %d parts are there", have, all)
	}
}

// brokenOff: callers give up in the middle; whatever became of their batches, none is there in part.
func brokenOff(t *testing.T, h Harness) {
	s := h.Open(t)
	random := seeded(3)
	acknowledged := make(map[int]bool)
	const rounds = 40
	for n := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		spins := random.IntN(2000)
		group.Go(func() {
			for range spins { // a while, from nothing to about as long as a commit takes
				if ctx.Err() != nil {
					return
				}
			}
			cancel()
		})
		err := s.Commit(ctx, wholeBatch(t, n))
		acknowledged[n] = err == nil
		group.Wait()
		cancel()
		if err != nil { // whether it was written is unknown until the store is opened again
			s = h.Reopen(t, s)
		}
	}
	defer s.Close() //nolint:errcheck // what counts was read
	for n := range rounds {
		have, all := parts(t, s, n)
		if have != all && (acknowledged[n] || have != 0) {
			t.Errorf("of batch %d, which was acknowledged: %t, %d of %d parts are there", n, acknowledged[n], have, all)
		}
	}
}

// readersSeeWholeBatches: what one read returns is from between two batches, not from the middle of one.
func readersSeeWholeBatches(t *testing.T, h Harness) {
	s := open(t, h)
	var group sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				records, err := s.ListRecords(context.Background(), "pair")
				if err != nil {
					t.Error(err)
					return
				}
				if len(records) != 0 && (len(records) != 2 || string(records[0].Value) != string(records[1].Value)) {
					t.Errorf("a reader saw half of a batch: %+v", records)
					return
				}
			}
		})
	}
	for n := range 100 {
		value := []byte(fmt.Sprint(n))
		commit(t, s, &store.Batch{Records: []store.Record{{Kind: "pair", Key: "a", Value: value}, {Kind: "pair", Key: "b", Value: value}}})
	}
	close(done)
	group.Wait()
}
