package storetest

import (
	"slices"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// quarantine: a record that cannot be decoded is reported, never served as something else, and hides no other.
func quarantine(t *testing.T, h Harness) {
	if h.Damage == nil {
		t.Log("the store keeps no records that could be damaged")
		return
	}
	aspects(t, h, map[string]func(*testing.T, Harness){
		"SpecOfAnUnfinishedJob": damagedUnfinishedSpec, "RecordsOfEndedJobs": damagedEnded, "WhatACommitDid": damagedBlock,
		"Logs": damagedLogs, "Request": damagedRequest,
	})
}

// commitEach commits jobs one by one, so that no record is about two of them.
func commitEach(t *testing.T, s store.Store, jobs ...*job.Job) {
	t.Helper()
	for _, j := range jobs {
		commit(t, s, &store.Batch{Accepted: []*job.Job{j}})
	}
}

// wantDamaged counts the unfinished jobs that are set aside and those that are left.
func wantDamaged(t *testing.T, s store.Store, damaged, seen int) {
	t.Helper()
	visited := 0
	if got, err := s.Unfinished(t.Context(), func(job.Job) error { visited++; return nil }); err != nil || got != damaged || visited != seen {
		t.Errorf("%d unfinished jobs and %d damaged, want %d and %d, %v", visited, got, seen, damaged, err)
	}
}

// wantUnreadable checks that a job is not served, and neither are lists without it broken.
func wantUnreadable(t *testing.T, s store.Store, jobID job.ID, others []job.ID) {
	t.Helper()
	if j, err := s.Job(t.Context(), jobID); err == nil {
		t.Errorf("a damaged job was served as %+v", j)
	}
	var byID []job.ID
	asked := append(slices.Clone(others), jobID)
	slices.SortFunc(asked, job.ID.Compare)
	if err := s.JobsByID(t.Context(), asked, func(j job.Job) { byID = append(byID, j.ID) }); err != nil {
		t.Error(err)
	}
	if slices.Reverse(byID); !slices.Equal(byID, others) {
		t.Errorf("by id there are %v, want %v", byID, others)
	}
	for name, filter := range ways {
		if got := listAll(t, s, filter, 2); !slices.Equal(got, others) {
			t.Errorf("%s: there are %v, want %v", name, got, others)
		}
	}
}

func damagedUnfinishedSpec(t *testing.T, h Harness) {
	s := h.Open(t)
	commitEach(t, s, newJob(t, 1, listed), newJob(t, 2, listed), newJob(t, 3, listed), newJob(t, 4, listed))
	commit(t, s, &store.Batch{Changed: []*job.Job{assign(t, newJob(t, 3, listed))}})
	for _, n := range []int{2, 3} {
		s = h.Damage(t, s, Stored{Kind: StoredSpec, Job: id(n)})
		if j, err := s.Job(t.Context(), id(n)); err == nil || job.CodeOf(err) == job.CodeNotFound {
			t.Errorf("before it is set aside, a damaged job gives %+v, %v", j, err)
		}
	}
	others := []job.ID{id(4), id(1)}
	wantUnreadable(t, s, id(2), others)
	wantDamaged(t, s, 2, 2)
	wantDamaged(t, s, 0, 2) // once is enough
	commit(t, s, &store.Batch{Accepted: []*job.Job{newJob(t, 5, listed)}, Changed: []*job.Job{end(t, newJob(t, 1, listed))}})
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	wantDamaged(t, s, 0, 2)
	wantUnreadable(t, s, id(3), []job.ID{id(5), id(4), id(1)})
}

func damagedEnded(t *testing.T, h Harness) {
	s := h.Open(t)
	commitEach(t, s, end(t, newJob(t, 1, listed)), newJob(t, 2, listed), newJob(t, 3, listed), newJob(t, 4, listed))
	commit(t, s, &store.Batch{Changed: []*job.Job{end(t, newJob(t, 2, listed)), end(t, newJob(t, 3, listed))}})
	s = h.Damage(t, s, Stored{Kind: StoredSpec, Job: id(1)})
	s = h.Damage(t, s, Stored{Kind: StoredEnding, Job: id(2)})
	defer s.Close() //nolint:errcheck // what counts was read
	wantDamaged(t, s, 0, 1)
	for _, n := range []int{1, 2} {
		wantUnreadable(t, s, id(n), []job.ID{id(4), id(3)})
	}
	if total := expire(t, s, at(1000), at(0)); total != 1 {
		t.Errorf("%d jobs were removed; a job that cannot be read is kept", total)
	}
	wantJob(t, s, newJob(t, 4, listed))
}

// damagedBlock: what the last commit did to unfinished jobs is unknown. It is counted; jobs that have ended stay so, and of
// the jobs that it accepted nothing is served.
func damagedBlock(t *testing.T, h Harness) {
	s := h.Open(t)
	commit(t, s, &store.Batch{Accepted: []*job.Job{newJob(t, 1, listed), newJob(t, 2, listed)}})
	ended := end(t, newJob(t, 1, listed))
	commit(t, s, &store.Batch{Accepted: []*job.Job{newJob(t, 3, listed)}, Changed: []*job.Job{ended}})
	s = h.Damage(t, s, Stored{Kind: StoredUnfinished})
	wantDamaged(t, s, 1, 1)
	wantDamaged(t, s, 0, 1)
	wantUnreadable(t, s, id(3), []job.ID{id(2), id(1)})
	wantJob(t, s, ended)
	commit(t, s, &store.Batch{Accepted: []*job.Job{newJob(t, 4, listed)}, Changed: []*job.Job{assign(t, newJob(t, 2, listed))}})
	for range 2 {
		wantJob(t, s, ended)
		wantUnfinished(t, s, []*job.Job{assign(t, newJob(t, 2, listed)), newJob(t, 4, listed)})
		s = h.Reopen(t, s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func damagedLogs(t *testing.T, h Harness) {
	s := h.Open(t)
	ref, other := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 2}
	ends := []store.LogEnd{{Ref: ref, Bytes: 6}, {Ref: other, Bytes: 1}}
	blocks := append(blocksOf(ref, "a", "b", "c"), blocksOf(other, "x")...)
	if err := s.AppendLogs(t.Context(), blocks, ends); err != nil {
		t.Fatal(err)
	}
	s = h.Damage(t, s, Stored{Kind: StoredLogBlock, Log: ref, Offset: 2})
	s = h.Damage(t, s, Stored{Kind: StoredLogEnd, Log: other})
	defer s.Close() //nolint:errcheck // what counts was read
	if got, err := s.ReadLogs(t.Context(), ref, 0, 100); err == nil {
		t.Errorf("a damaged log was read as %+v", got)
	}
	if got, err := s.ReadLogs(t.Context(), ref, 4, 100); err != nil || len(got) != 1 || string(got[0].Data) != "c" {
		t.Errorf("what follows the damage is %+v, %v", got, err)
	}
	if state, err := s.LogState(t.Context(), other); err == nil {
		t.Errorf("a damaged end was read as %+v", state)
	}
	if got, err := s.ReadLogs(t.Context(), other, 0, 100); err != nil || len(got) != 1 {
		t.Errorf("the log whose end is damaged is %+v, %v", got, err)
	}
}

func damagedRequest(t *testing.T, h Harness) {
	s := h.Open(t)
	commit(t, s, &store.Batch{Requests: []store.Request{{ID: "ns/1", Expires: at(1)}, {ID: "ns/2", Expires: at(1)}}})
	s = h.Damage(t, s, Stored{Kind: StoredRequest, Request: "ns/1"})
	defer s.Close() //nolint:errcheck // what counts was read
	if r, err := s.Request(t.Context(), "ns/1"); err == nil || job.CodeOf(err) == job.CodeNotFound {
		t.Errorf("a damaged request gave %+v, %v", r, err)
	}
	if _, err := s.Request(t.Context(), "ns/2"); err != nil {
		t.Errorf("another request gave %v", err)
	}
}
