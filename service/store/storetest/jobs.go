package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

func jobs(t *testing.T, h Harness) {
	s := open(t, h)
	j := newJob(t, 1, func(s *job.Spec) { s.Labels = map[string]string{"a": "b"} })
	commit(t, s, &store.Batch{Accepted: []*job.Job{j}})
	got, err := s.Job(t.Context(), j.ID)
	if err != nil || !reflect.DeepEqual(got, *j) {
		t.Fatalf("got %+v, want %+v, %v", got, *j, err)
	}
	changed := assign(t, j)
	commit(t, s, &store.Batch{Changed: []*job.Job{changed}})
	if got, err = s.Job(t.Context(), j.ID); err != nil || !reflect.DeepEqual(got, *changed) {
		t.Fatalf("got %+v, want %+v, %v", got, changed, err)
	}
	if _, err := s.Job(t.Context(), id(99)); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("a job that is not there gave %v", err)
	}
	commit(t, s, &store.Batch{})
}

func listing(t *testing.T, h Harness) {
	s := open(t, h)
	var batch store.Batch
	for n := range 40 {
		j := newJob(t, n, func(s *job.Spec) {
			s.Namespace = []string{"one", "two", "on"}[n%3]
			s.Queue = []string{"fast", "slow"}[n%2]
			s.Labels = map[string]string{"n": string(rune('a' + n%5))}
		})
		if n%4 == 0 {
			j = end(t, j)
		}
		batch.Accepted = append(batch.Accepted, j)
	}
	commit(t, s, &batch)
	for name, filter := range map[string]store.Filter{
		"all": {}, "namespace": {Namespace: "one"}, "a prefix of a namespace": {Namespace: "on"}, "queue": {Queue: "slow"},
		"state": {States: []job.State{job.Succeeded, job.Failed}}, "label": {Labels: map[string]string{"n": "c"}}, "name": {Name: "job 7"},
		"ids": {IDs: []job.ID{id(3), id(9), id(3), id(99)}}, "both": {Namespace: "two", Queue: "fast"}, "nothing": {Namespace: "none"},
	} {
		var want []job.ID
		for i := len(batch.Accepted) - 1; i >= 0; i-- {
			if filter.Matches(batch.Accepted[i]) {
				want = append(want, batch.Accepted[i].ID)
			}
		}
		for _, size := range []int{1, 3, 100} {
			var got []job.ID
			for before := (job.ID{}); ; before = got[len(got)-1] {
				page, err := s.ListJobs(t.Context(), filter, before, size)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, ids(page)...)
				if len(page) < size {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: got %v, want %v", name, size, got, want)
			}
		}
	}
}

func unfinished(t *testing.T, h Harness) {
	s := open(t, h)
	one, two, three := newJob(t, 1, nil), newJob(t, 2, nil), newJob(t, 3, nil)
	commit(t, s, &store.Batch{Accepted: []*job.Job{one, two, three, end(t, newJob(t, 4, nil))}})
	commit(t, s, &store.Batch{Changed: []*job.Job{end(t, two)}})
	var got []job.Job
	visit := func(j job.Job) error { got = append(got, j); return nil }
	if damaged, err := s.Unfinished(t.Context(), visit); err != nil || damaged != 0 || !slices.Equal(ids(got), []job.ID{one.ID, three.ID}) {
		t.Errorf("got %v, %d damaged, %v", ids(got), damaged, err)
	}
	stop := errors.New("stop")
	if _, err := s.Unfinished(t.Context(), func(job.Job) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the visitor's error came back as %v", err)
	}
}

func requests(t *testing.T, h Harness) {
	s := open(t, h)
	r := store.Request{ID: "ns/r", Hash: [32]byte{1, 2}, Jobs: []job.ID{id(1), id(2)}, Expires: time.Unix(99, 0).UTC()}
	commit(t, s, &store.Batch{Requests: []store.Request{r}})
	if got, err := s.Request(t.Context(), "ns/r"); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, want %+v, %v", got, r, err)
	}
	if _, err := s.Request(t.Context(), "ns/other"); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("a request that is not there gave %v", err)
	}
}

func records(t *testing.T, h Harness) {
	s := open(t, h)
	commit(t, s, &store.Batch{Records: []store.Record{
		{Kind: "a", Key: "2", Value: []byte("two")}, {Kind: "a", Key: "1", Value: []byte("one")}, {Kind: "ab", Key: "1", Value: []byte("other")},
	}})
	got, err := s.ListRecords(t.Context(), "a")
	if err != nil || len(got) != 2 || got[0].Key != "1" || string(got[1].Value) != "two" {
		t.Errorf("got %+v, %v", got, err)
	}
	commit(t, s, &store.Batch{Records: []store.Record{{Kind: "a", Key: "1"}}})
	if _, err := s.Record(t.Context(), "a", "1"); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("a record that was deleted gave %v", err)
	}
	if value, err := s.Record(t.Context(), "ab", "1"); err != nil || string(value) != "other" {
		t.Errorf("got %q, %v", value, err)
	}
}

func concurrency(t *testing.T, h Harness) {
	s := open(t, h)
	var last atomic.Int64
	var group sync.WaitGroup
	var batches []store.Batch
	for n := range 160 {
		batches = append(batches, store.Batch{Accepted: []*job.Job{newJob(t, n, nil)}})
	}
	group.Go(func() {
		for i := range batches {
			if err := s.Commit(context.Background(), &batches[i]); err != nil {
				t.Error(err)
			}
			last.Store(int64(i) + 1)
		}
	})
	for range 4 {
		group.Go(func() {
			for last.Load() < int64(len(batches)) {
				if n := last.Load(); n > 0 {
					if _, err := s.Job(context.Background(), batches[n-1].Accepted[0].ID); err != nil {
						t.Errorf("a job is not there right after its commit: %v", err)
					}
				}
				record := store.Record{Kind: "k", Key: "k", Value: []byte("v")}
				if err := s.Commit(context.Background(), &store.Batch{Records: []store.Record{record}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if all, err := s.ListJobs(t.Context(), store.Filter{}, job.ID{}, 1000); err != nil || len(all) != 160 {
		t.Errorf("%d jobs, %v", len(all), err)
	}
}

func reopening(t *testing.T, h Harness) {
	s := h.Open(t)
	j := newJob(t, 1, nil)
	chunk := store.Chunk{Ref: store.LogRef{Job: j.ID, Attempt: 1}, Stream: store.Stdout, Time: time.Unix(1, 0).UTC(), Data: []byte("x")}
	commit(t, s, &store.Batch{Accepted: []*job.Job{j}, Records: []store.Record{{Kind: "k", Key: "k", Value: []byte("v")}}})
	if err := s.AppendLogs(t.Context(), []store.Chunk{chunk}, nil); err != nil {
		t.Fatal(err)
	}
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	if got, err := s.Job(t.Context(), j.ID); err != nil || !reflect.DeepEqual(got, *j) {
		t.Errorf("got %+v, want %+v, %v", got, *j, err)
	}
	if got, err := s.ReadLogs(t.Context(), chunk.Ref, 0, 100); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], chunk) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := s.Record(t.Context(), "k", "k"); err != nil || string(got) != "v" {
		t.Errorf("got %q, %v", got, err)
	}
}

// terms: whoever leads last is the only one who may write as a leader.
func terms(t *testing.T, h Harness) {
	s := open(t, h)
	first, err := s.Lead(t.Context())
	if err != nil || first == 0 {
		t.Fatalf("the first term is %d, %v", first, err)
	}
	commit(t, s, &store.Batch{Term: first, Accepted: []*job.Job{newJob(t, 1, nil)}})
	second, err := s.Lead(t.Context())
	if err != nil || second <= first {
		t.Fatalf("the term after %d is %d, %v", first, second, err)
	}
	if err := s.Commit(t.Context(), &store.Batch{Term: first, Accepted: []*job.Job{newJob(t, 2, nil)}}); !errors.Is(err, store.ErrDeposed) {
		t.Errorf("a commit of an old term gave %v", err)
	}
	if _, err := s.Job(t.Context(), id(2)); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("a job of a deposed writer is there: %v", err)
	}
	commit(t, s, &store.Batch{Term: second, Accepted: []*job.Job{newJob(t, 3, nil)}})
	commit(t, s, &store.Batch{Records: []store.Record{{Kind: "k", Key: "k", Value: []byte("of whoever leads")}}})
}

// expiry: ended jobs go with their logs, others stay, and lists know it.
func expiry(t *testing.T, h Harness) {
	s := open(t, h)
	var batch store.Batch
	for n := range 30 {
		j := newJob(t, n*60, func(s *job.Spec) { s.Labels = map[string]string{"a": "b"} })
		if n%10 != 5 {
			j = end(t, j)
		}
		batch.Accepted = append(batch.Accepted, j)
	}
	at := time.Unix(10_000_000, 0)
	for n := range 3 {
		expires := at.Add(time.Duration(n) * 48 * time.Hour).UTC()
		batch.Requests = append(batch.Requests, store.Request{ID: "r" + string(rune('0'+n)), Jobs: []job.ID{id(n)}, Expires: expires})
	}
	commit(t, s, &batch)
	gone, stays := store.LogRef{Job: id(60), Attempt: 1}, store.LogRef{Job: id(29 * 60), Attempt: 1}
	chunks := []store.Chunk{{Ref: gone, Data: []byte("x")}, {Ref: stays, Data: []byte("y")}}
	if err := s.AppendLogs(t.Context(), chunks, []store.LogEnd{{Ref: gone, Bytes: 1}}); err != nil {
		t.Fatal(err)
	}
	total := 0
	for more := true; more; {
		var removed int
		var err error
		if removed, more, err = s.Expire(t.Context(), time.Unix(20*60, 0), at.Add(24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		total += removed
	}
	want := []job.ID{}
	for n := 29; n >= 0; n-- {
		if n >= 20 || n%10 == 5 {
			want = append(want, id(n*60))
		}
	}
	for name, filter := range map[string]store.Filter{
		"all": {}, "namespace": {Namespace: "default"}, "label": {Namespace: "default", Labels: map[string]string{"a": "b"}},
	} {
		if all, err := s.ListJobs(t.Context(), filter, job.ID{}, 100); err != nil || !slices.Equal(ids(all), want) {
			t.Errorf("%s: after %d were removed there are %v, want %v, %v", name, total, ids(all), want, err)
		}
	}
	if _, err := s.Job(t.Context(), id(60)); total != 30-len(want) || job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("%d jobs were removed, and the second gives %v", total, err)
	}
	if state, err := s.LogState(t.Context(), gone); err != nil || state.Bytes != 0 || state.End != nil {
		t.Errorf("the log of a removed job is %+v, %v", state, err)
	}
	if state, err := s.LogState(t.Context(), stays); err != nil || state.Bytes != 1 {
		t.Errorf("the log of a job that stays is %+v, %v", state, err)
	}
	if _, err := s.Request(t.Context(), "r0"); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("an expired request gave %v", err)
	}
	if _, err := s.Request(t.Context(), "r2"); err != nil {
		t.Errorf("a request that has not expired gave %v", err)
	}
}

// churn: whatever jobs go through, in whatever batches and however often the store is opened anew, it has them as they were
// written last.
func churn(t *testing.T, h Harness) {
	s := h.Open(t)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test that repeats
	var live []*job.Job
	want := make(map[job.ID]*job.Job)
	for n, round := 0, 0; round < 300; round++ {
		batch := &store.Batch{}
		isNew := make(map[job.ID]bool)
		for range random.IntN(20) {
			n++
			j := newJob(t, n, nil)
			isNew[j.ID] = true
			live = append(live, j)
		}
		changed := make(map[job.ID]bool)
		for range min(random.IntN(40), len(live)) {
			i := random.IntN(len(live))
			if live[i].State == job.Queued {
				live[i] = assign(t, live[i])
			} else {
				live[i] = endAssigned(t, live[i])
			}
			changed[live[i].ID] = true
			if live[i].State.Terminal() {
				want[live[i].ID] = live[i]
				if isNew[live[i].ID] {
					batch.Accepted = append(batch.Accepted, live[i])
				} else {
					batch.Changed = append(batch.Changed, live[i])
				}
				delete(isNew, live[i].ID)
				delete(changed, live[i].ID)
				live = slices.Delete(live, i, i+1)
			}
		}
		for _, j := range live {
			want[j.ID] = j
			switch {
			case isNew[j.ID]:
				batch.Accepted = append(batch.Accepted, j)
			case changed[j.ID]:
				batch.Changed = append(batch.Changed, j)
			}
		}
		slices.SortFunc(batch.Accepted, func(a, b *job.Job) int { return a.ID.Compare(b.ID) })
		commit(t, s, batch)
		if round%100 == 99 {
			s = h.Reopen(t, s)
		}
	}
	defer s.Close() //nolint:errcheck // what counts was read
	slices.SortFunc(live, func(a, b *job.Job) int { return a.ID.Compare(b.ID) })
	i := 0
	if _, err := s.Unfinished(t.Context(), func(j job.Job) error {
		if i >= len(live) || !reflect.DeepEqual(j, *live[i]) {
			t.Fatalf("unfinished job %d is %+v", i, j)
		}
		i++
		return nil
	}); err != nil || i != len(live) {
		t.Errorf("%d of %d unfinished jobs, %v", i, len(live), err)
	}
	for jobID, j := range want {
		if got, err := s.Job(t.Context(), jobID); err != nil || !reflect.DeepEqual(got, *j) {
			t.Fatalf("got %+v, want %+v, %v", got, *j, err)
		}
	}
}

func endAssigned(t *testing.T, j *job.Job) *job.Job {
	t.Helper()
	ended, err := j.Finish(job.Cause{Kind: job.CauseExitCode}, j.Created.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return &ended
}
