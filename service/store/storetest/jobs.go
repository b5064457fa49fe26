package storetest

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

func jobs(t *testing.T, h Harness) {
	s := open(t, h)
	j := newJob(t, 1, func(s *job.Spec) { s.Labels = map[string]string{"a": "b"} })
	commit(t, s, &store.Batch{Accepted: []job.Job{j}})
	got, err := s.Job(t.Context(), j.ID)
	if err != nil || !reflect.DeepEqual(got, j) {
		t.Fatalf("got %+v, want %+v, %v", got, j, err)
	}
	changed, err := j.Assign("wkr_1", 3)
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, &store.Batch{Changed: []job.Job{changed}})
	if got, err = s.Job(t.Context(), j.ID); err != nil || !reflect.DeepEqual(got, changed) {
		t.Fatalf("got %+v, want %+v, %v", got, changed, err)
	}
	if _, err := s.Job(t.Context(), "job_nope"); job.CodeOf(err) != job.CodeNotFound {
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
		"ids": {IDs: []job.ID{id(3), id(9), id(3), "job_nope"}}, "both": {Namespace: "two", Queue: "fast"}, "nothing": {Namespace: "none"},
	} {
		var want []job.ID
		for i := len(batch.Accepted) - 1; i >= 0; i-- {
			if filter.Matches(&batch.Accepted[i]) {
				want = append(want, batch.Accepted[i].ID)
			}
		}
		for _, size := range []int{1, 3, 100} {
			var got []job.ID
			for before := job.ID(""); ; before = got[len(got)-1] {
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
	commit(t, s, &store.Batch{Accepted: []job.Job{three, one, two, end(t, newJob(t, 4, nil))}})
	commit(t, s, &store.Batch{Changed: []job.Job{end(t, two)}})
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
	r := store.Request{ID: "ns/r", Hash: [32]byte{1, 2}, Job: "job_1", Expires: time.Unix(99, 0).UTC()}
	commit(t, s, &store.Batch{Requests: []store.Request{r}})
	if got, err := s.Request(t.Context(), "ns/r"); err != nil || got != r {
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
	var group sync.WaitGroup
	for writer := range 8 {
		var batches []store.Batch
		for n := range 20 {
			batches = append(batches, store.Batch{Accepted: []job.Job{newJob(t, writer*100+n, nil)}})
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
	}
	group.Wait()
	if all, err := s.ListJobs(t.Context(), store.Filter{}, "", 1000); err != nil || len(all) != 160 {
		t.Errorf("%d jobs, %v", len(all), err)
	}
}

func reopening(t *testing.T, h Harness) {
	s := h.Open(t)
	j := newJob(t, 1, nil)
	chunk := store.Chunk{Ref: store.LogRef{Job: j.ID, Attempt: 1}, Stream: store.Stdout, Time: time.Unix(1, 0).UTC(), Data: []byte("x")}
	commit(t, s, &store.Batch{Accepted: []job.Job{j}, Records: []store.Record{{Kind: "k", Key: "k", Value: []byte("v")}}})
	if err := s.AppendLogs(t.Context(), []store.Chunk{chunk}, nil); err != nil {
		t.Fatal(err)
	}
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	if got, err := s.Job(t.Context(), j.ID); err != nil || !reflect.DeepEqual(got, j) {
		t.Errorf("got %+v, want %+v, %v", got, j, err)
	}
	if got, err := s.ReadLogs(t.Context(), chunk.Ref, 0, 100); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], chunk) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := s.Record(t.Context(), "k", "k"); err != nil || string(got) != "v" {
		t.Errorf("got %q, %v", got, err)
	}
}
