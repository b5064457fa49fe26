package storetest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// concurrency: all methods may be called at once.
func concurrency(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){"Writers": manyWriters, "Readers": readersWhileWriting, "Everything": everythingAtOnce})
}

// manyWriters: one writes jobs, whose ids grow, and others records and output.
func manyWriters(t *testing.T, h Harness) {
	s := open(t, h)
	const total = 160
	var group sync.WaitGroup
	batches := make([]store.Batch, total)
	for n := range batches {
		batches[n] = store.Batch{Accepted: []*job.Job{newJob(t, n, nil)}}
	}
	group.Go(func() {
		for i := range batches {
			if err := s.Commit(context.Background(), &batches[i]); err != nil {
				t.Error(err)
			}
			if _, err := s.Job(context.Background(), batches[i].Accepted[0].ID); err != nil {
				t.Errorf("a job is not there right after its commit: %v", err)
			}
		}
	})
	for writer := range 7 {
		group.Go(func() {
			key, ref := string(rune('a'+writer)), store.LogRef{Job: id(writer), Attempt: 1}
			for n := range 20 {
				value := []byte{byte(n + 1)}
				if err := s.Commit(context.Background(), &store.Batch{Records: []store.Record{{Kind: "k", Key: key, Value: value}}}); err != nil {
					t.Error(err)
				}
				if got, err := s.Record(context.Background(), "k", key); err != nil || !slices.Equal(got, value) {
					t.Errorf("right after its commit a record is %v, %v", got, err)
				}
				if err := s.AppendLogs(context.Background(), []store.LogBlock{{Ref: ref, Offset: uint64(n), Bytes: 1, Data: value}}, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if all := listAll(t, s, store.Filter{}, 1000); len(all) != total {
		t.Errorf("%d jobs, want %d", len(all), total)
	}
	for writer := range 7 {
		if state, err := s.LogState(t.Context(), store.LogRef{Job: id(writer), Attempt: 1}); err != nil || state.Bytes != 20 {
			t.Errorf("a log has %d bytes, want 20, %v", state.Bytes, err)
		}
	}
}

// readersWhileWriting: readers find a job or find that it is not there, in a state that it had, and never an older one than
// they saw before. Lists are in order and have every job whose commit was over when they were asked for.
func readersWhileWriting(t *testing.T, h Harness) {
	s := open(t, h)
	const total = 150
	all := make([][]*job.Job, total)
	for n := range all {
		all[n] = lives(t, n)
	}
	var mu sync.Mutex
	acknowledged := 0
	done := make(chan struct{})
	var group sync.WaitGroup
	for reader := range 3 {
		group.Go(func() {
			seen := make([]int32, total)
			for random := seeded(uint64(reader)); ; {
				select {
				case <-done:
					return
				default:
				}
				mu.Lock()
				there := acknowledged
				mu.Unlock()
				n := min(max(there+2-random.IntN(10), 0), total-1)
				j, err := s.Job(context.Background(), all[n][0].ID)
				switch {
				case job.CodeOf(err) == job.CodeNotFound && n >= there && seen[n] == 0:
				case err != nil:
					t.Errorf("job %d of %d that were acknowledged: %v", n, there, err)
					return
				case j.Revision < seen[n] || !slices.ContainsFunc(all[n], func(was *job.Job) bool { return reflect.DeepEqual(*was, j) }):
					t.Errorf("a job that was seen in revision %d is now %+v", seen[n], j)
					return
				default:
					seen[n] = j.Revision
				}
				page, err := s.ListJobs(context.Background(), store.Filter{Namespace: "team-1"}, job.ID{}, total+1)
				if err != nil || len(page) < there || !slices.IsSortedFunc(page, func(a, b job.Job) int { return b.ID.Compare(a.ID) }) {
					t.Errorf("a list of %d jobs of %d that were acknowledged, %v: %v", len(page), there, err, ids(page))
					return
				}
			}
		})
	}
	for n, life := range all {
		commit(t, s, &store.Batch{Accepted: life[:1]})
		mu.Lock()
		acknowledged = n + 1
		mu.Unlock()
		if n%3 == 0 {
			for _, j := range life[1:] {
				commit(t, s, &store.Batch{Changed: []*job.Job{j}})
			}
		}
	}
	close(done)
	group.Wait()
}

// everythingAtOnce runs all methods until the store is closed under their hands: then they fail, and nothing breaks.
func everythingAtOnce(t *testing.T, h Harness) {
	s := h.Open(t)
	for n := range 20 {
		commit(t, s, wholeBatch(t, n))
	}
	ctx := context.Background()
	ref := store.LogRef{Job: id(3), Attempt: 1}
	calls := allMethods(ctx, s, ref)
	var group sync.WaitGroup
	for name, call := range calls {
		group.Go(func() {
			for n := 0; ; n++ {
				if err := call(n); err != nil && job.CodeOf(err) != job.CodeNotFound && !errors.Is(err, store.ErrDeposed) {
					return // closed
				}
				if n == 200_000 {
					t.Errorf("%s goes on after the store was closed", name)
					return
				}
			}
		})
	}
	for n := range 20 { // a while
		if _, err := s.ListRecords(ctx, "k"); err != nil {
			t.Errorf("list %d: %v", n, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
	for name, call := range calls {
		if err := call(-1); err == nil || job.CodeOf(err) == job.CodeNotFound {
			t.Errorf("%s after Close gave %v", name, err)
		}
	}
}

// allMethods are calls of every method of a store.
func allMethods(ctx context.Context, s store.Store, ref store.LogRef) map[string]func(n int) error {
	return map[string]func(n int) error{
		"Lead": func(int) error { _, err := s.Lead(ctx); return err },
		"Commit": func(n int) error {
			return s.Commit(ctx, &store.Batch{Records: []store.Record{{Kind: "n", Key: "n", Value: []byte{byte(n)}}}})
		},
		"AppendLogs": func(n int) error {
			return s.AppendLogs(ctx, []store.LogBlock{{Ref: ref, Offset: uint64(max(n, 0)), Bytes: 1, Data: []byte("x")}}, nil)
		},
		"MergeLogs": func(n int) error {
			return s.MergeLogs(ctx, []store.LogBlock{{Ref: ref, Offset: uint64(max(n, 0)), Bytes: 2, Data: []byte("xx")}})
		},
		"RemoveLogs": func(n int) error {
			return s.RemoveLogs(ctx, []store.LogEnd{{Ref: store.LogRef{Job: id(5), Attempt: 1}, Removed: "why"}})
		},
		"Job":      func(n int) error { _, err := s.Job(ctx, id(max(n, 0)%30)); return err },
		"JobsByID": func(int) error { return s.JobsByID(ctx, []job.ID{id(1), id(2)}, func(job.Job) {}) },
		"ListJobs": func(int) error { _, err := s.ListJobs(ctx, store.Filter{}, job.ID{}, 10); return err },
		"By id": func(int) error {
			_, err := s.ListJobs(ctx, store.Filter{IDs: []job.ID{id(1)}}, job.ID{}, 10)
			return err
		},
		"By name": func(int) error {
			_, err := s.ListJobs(ctx, store.Filter{Namespace: "default"}, job.ID{}, 10)
			return err
		},
		"Unfinished":  func(int) error { _, err := s.Unfinished(ctx, func(job.Job) error { return nil }); return err },
		"Request":     func(n int) error { _, err := s.Request(ctx, "ns/1"); return err },
		"Expire":      func(int) error { _, _, err := s.Expire(ctx, at(0), at(0)); return err },
		"ReadLogs":    func(int) error { _, err := s.ReadLogs(ctx, ref, 0, 100); return err },
		"LogState":    func(int) error { _, err := s.LogState(ctx, ref); return err },
		"Record":      func(int) error { _, err := s.Record(ctx, "k", "1"); return err },
		"ListRecords": func(int) error { _, err := s.ListRecords(ctx, "k"); return err },
		"PageRecords": func(int) error { _, err := s.PageRecords(ctx, "k", store.RecordPage{Limit: 1}); return err },
	}
}
