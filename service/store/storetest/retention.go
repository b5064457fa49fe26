package storetest

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// retention: what is old enough goes, with all that belongs to it; nothing else does.
func retention(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){
		"Jobs": expiry, "Boundary": expiryBoundary, "Requests": requestExpiry, "WhileJobsEnd": expiryWhileJobsEnd,
	})
}

// expiry: ended jobs go with their logs, others stay, and lists know it.
func expiry(t *testing.T, h Harness) {
	s := h.Open(t)
	var batch store.Batch
	var unfinished []*job.Job
	for n := range 30 {
		j := newJob(t, n*60, listed)
		if n%10 != 5 {
			j = end(t, j)
		} else {
			unfinished = append(unfinished, j)
		}
		batch.Accepted = append(batch.Accepted, j)
	}
	commit(t, s, &batch)
	gone, stays := store.LogRef{Job: id(60), Attempt: 1}, store.LogRef{Job: id(29 * 60), Attempt: 1}
	blocks := append(blocksOf(gone, "x"), blocksOf(stays, "y")...)
	if err := s.AppendLogs(t.Context(), blocks, []store.LogEnd{{Ref: gone, Bytes: 1}}); err != nil {
		t.Fatal(err)
	}
	if total := expire(t, s, at(0), at(0)); total != 0 {
		t.Errorf("%d jobs were removed before anything was old enough", total)
	}
	total := expire(t, s, at(20*60), at(0))
	var want []job.ID
	for n := 29; n >= 0; n-- {
		if n >= 20 || n%10 == 5 {
			want = append(want, id(n*60))
		}
	}
	if total != 30-len(want) {
		t.Errorf("%d jobs were removed, want %d", total, 30-len(want))
	}
	for range 2 {
		for name, filter := range ways {
			if got := listAll(t, s, filter, 4); !slices.Equal(got, want) {
				t.Errorf("%s: there are %v, want %v", name, got, want)
			}
		}
		wantUnfinished(t, s, unfinished)
		wantNoJob(t, s, id(60))
		if state, err := s.LogState(t.Context(), gone); err != nil || state.Bytes != 0 || state.End != nil {
			t.Errorf("the log of a removed job is %+v, %v", state, err)
		}
		if chunks, err := s.ReadLogs(t.Context(), gone, 0, 100); err != nil || len(chunks) != 0 {
			t.Errorf("the log of a removed job has %+v, %v", chunks, err)
		}
		if state, err := s.LogState(t.Context(), stays); err != nil || state.Bytes != 2 {
			t.Errorf("the log of a job that stays is %+v, %v", state, err)
		}
		s = h.Reopen(t, s)
	}
	// Those that stayed may end later and go then.
	commit(t, s, &store.Batch{Changed: []*job.Job{end(t, unfinished[0]), end(t, unfinished[1])}})
	if total := expire(t, s, at(20*60), at(0)); total != 2 {
		t.Errorf("%d jobs were removed after two had ended", total)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// expiryBoundary: a job that ended at the very time stays, and so does one that began before it and ended after it.
func expiryBoundary(t *testing.T, h Harness) {
	s := open(t, h)
	var jobs []*job.Job
	for n := range 20 { // job n ends 9 s after it was made
		jobs = append(jobs, end(t, newJob(t, n, nil)))
	}
	commit(t, s, &store.Batch{Accepted: jobs})
	if total := expire(t, s, at(15), at(0)); total != 6 {
		t.Errorf("%d jobs ended before 15 s, want 6", total)
	}
	wantNoJob(t, s, id(5))
	wantJob(t, s, jobs[6])
	if total := expire(t, s, at(15).Add(1), at(0)); total != 1 {
		t.Errorf("%d jobs ended before the next nanosecond, want 1", total)
	}
	if total := expire(t, s, at(1000), at(0)); total != 13 || len(listAll(t, s, store.Filter{}, 10)) != 0 {
		t.Errorf("%d jobs were removed at last, want 13", total)
	}
}

func requestExpiry(t *testing.T, h Harness) {
	s := h.Open(t)
	begin := time.Unix(10_000_000, 0)
	var batch store.Batch
	for n := range 3 {
		expires := begin.Add(time.Duration(n) * 48 * time.Hour).UTC()
		batch.Requests = append(batch.Requests, store.Request{ID: "r" + string(rune('0'+n)), Jobs: []job.ID{id(n)}, Expires: expires})
	}
	commit(t, s, &batch)
	expire(t, s, at(0), begin.Add(24*time.Hour))
	for range 2 {
		if _, err := s.Request(t.Context(), "r0"); job.CodeOf(err) != job.CodeNotFound {
			t.Errorf("an expired request gave %v", err)
		}
		for _, r := range []string{"r1", "r2"} {
			if _, err := s.Request(t.Context(), r); err != nil {
				t.Errorf("a request that has not expired gave %v", err)
			}
		}
		s = h.Reopen(t, s)
	}
	commit(t, s, &store.Batch{Requests: []store.Request{{ID: "r0", Jobs: []job.ID{id(7)}, Expires: begin.Add(24 * time.Hour).UTC()}}})
	if r, err := s.Request(t.Context(), "r0"); err != nil || len(r.Jobs) != 1 || r.Jobs[0] != id(7) {
		t.Errorf("a request that was used again is %+v, %v", r, err)
	}
	expire(t, s, at(0), begin.Add(1000*time.Hour))
	for _, r := range []string{"r0", "r1", "r2"} {
		if _, err := s.Request(t.Context(), r); job.CodeOf(err) != job.CodeNotFound {
			t.Errorf("a request that expired at last gave %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// expiryWhileJobsEnd: old jobs are removed while others that are as old end. Those are in the lists, wherever they stood
// when the removal looked at them.
func expiryWhileJobsEnd(t *testing.T, h Harness) {
	s := open(t, h)
	const total = 400
	var accepted, long []*job.Job
	for n := range total {
		j := newJob(t, n, listed)
		if n%2 == 0 {
			long = append(long, j)
		} else {
			j = end(t, j)
		}
		accepted = append(accepted, j)
	}
	commit(t, s, &store.Batch{Accepted: accepted})
	var group sync.WaitGroup
	late := at(100_000)
	for i, j := range long {
		long[i] = must(t)(assign(t, j).Finish(job.Cause{Kind: job.CauseExitCode}, late))
	}
	group.Go(func() {
		for _, j := range long {
			if err := s.Commit(context.Background(), &store.Batch{Changed: []*job.Job{j}}); err != nil {
				t.Error(err)
			}
		}
	})
	removed := 0
	for n := 10; n <= total+10; n += 10 { // a little more each time
		removed += expire(t, s, at(n), at(0))
	}
	group.Wait()
	if removed != total/2 {
		t.Errorf("%d jobs were removed, want %d", removed, total/2)
	}
	want := make([]job.ID, len(long))
	for i, j := range long {
		want[len(long)-1-i] = j.ID
	}
	filters := map[string]store.Filter{"state": {Namespace: "default", States: []job.State{job.Succeeded}}}
	for name, filter := range ways {
		filters[name] = filter
	}
	for name, filter := range filters {
		if got := listAll(t, s, filter, 100); !slices.Equal(got, want) {
			t.Errorf("%s: %d jobs, want %d", name, len(got), len(want))
		}
	}
	wantUnfinished(t, s, nil)
}
