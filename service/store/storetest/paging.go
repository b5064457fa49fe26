package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// paging: pages of any size, put together, are the list: no job twice, none left out, the newest first.
func paging(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){
		"Sizes": pageSizes, "WhileJobsComeAndEnd": pagesOfAMovingList, "OutOfOrder": outOfOrder,
	})
}

// ways are filters that take each way through a store, and select all jobs of these tests.
var ways = map[string]store.Filter{
	"all": {}, "namespace": {Namespace: "default"}, "queue": {Namespace: "default", Queue: "default"},
	"label": {Namespace: "default", Labels: map[string]string{"a": "b"}}, "name": {Namespace: "default", Name: "same"},
}

func listed(s *job.Spec) { s.Name, s.Labels = "same", map[string]string{"a": "b"} }

func pageSizes(t *testing.T, h Harness) {
	s := open(t, h)
	const total = 60
	var want []job.ID
	for n := range total {
		j := newJob(t, 2*n, listed)
		commit(t, s, &store.Batch{Accepted: []*job.Job{j}})
		want = slices.Insert(want, 0, j.ID)
	}
	var all []job.ID
	for n := range 2*total + 10 {
		all = append(all, id(n))
	}
	filters := map[string]store.Filter{"ids": {IDs: all}, "state": {States: []job.State{job.Queued}}}
	for name, filter := range ways {
		filters[name] = filter
	}
	for name, filter := range filters {
		for _, size := range []int{1, 7, total - 1, total, total + 1, 10_000} {
			if got := listAll(t, s, filter, size); !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: got %v, want %v", name, size, got, want)
			}
		}
		for _, limit := range []int{0, -1} {
			if page, err := s.ListJobs(t.Context(), filter, job.ID{}, limit); err != nil || len(page) != 0 {
				t.Errorf("%s: a page of %d has %d jobs, %v", name, limit, len(page), err)
			}
		}
		// Pages may begin anywhere: at a job, between two, before the first and after the last.
		for n := -1; n < 2*total+3; n += 13 {
			page, err := s.ListJobs(t.Context(), filter, id(n), 5)
			older := slices.DeleteFunc(slices.Clone(want), func(jobID job.ID) bool { return jobID.Compare(id(n)) >= 0 })
			if err != nil || !slices.Equal(ids(page), older[:min(5, len(older))]) {
				t.Errorf("%s from %d on: got %v, want %v, %v", name, n, ids(page), older[:min(5, len(older))], err)
			}
		}
	}
}

// pagesOfAMovingList: what is added and what ends between two pages neither hides nor repeats a job that was there.
func pagesOfAMovingList(t *testing.T, h Harness) {
	s := open(t, h)
	var old []*job.Job
	for n := range 50 {
		old = append(old, newJob(t, n, listed))
	}
	commit(t, s, &store.Batch{Accepted: old})
	next := 100
	for name, filter := range ways {
		var got []job.ID
		for before := id(50); ; before = got[len(got)-1] {
			page, err := s.ListJobs(t.Context(), filter, before, 4)
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, ids(page)...); len(page) < 4 {
				break
			}
			batch := &store.Batch{Accepted: []*job.Job{newJob(t, next, listed)}}
			if i := (next * 7) % len(old); !old[i].State.Terminal() {
				old[i] = end(t, old[i])
				batch.Changed = append(batch.Changed, old[i])
			}
			next++
			commit(t, s, batch)
		}
		if len(got) != len(old) || !slices.IsSortedFunc(got, func(a, b job.ID) int { return b.Compare(a) }) {
			t.Errorf("%s: %d of %d jobs: %v", name, len(got), len(old), got)
		}
	}
}

// outOfOrder: jobs are committed in batches that overlap, the newest not always last, several in one millisecond.
func outOfOrder(t *testing.T, h Harness) {
	s := open(t, h)
	random := seeded(5)
	var all []*job.Job
	for n := range 200 {
		j := newJob(t, n, listed)
		j.ID = job.NewID(time.Unix(0, int64(n/9)*int64(time.Millisecond)), uint16(n%3), uint64(n+1))
		all = append(all, j)
	}
	want := make([]job.ID, len(all))
	for i, j := range all {
		want[i] = j.ID
	}
	slices.SortFunc(want, func(a, b job.ID) int { return b.Compare(a) })
	random.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	for batch := range slices.Chunk(all, 7) {
		commit(t, s, &store.Batch{Accepted: batch})
	}
	for name, filter := range ways {
		for _, size := range []int{3, 1000} {
			if got := listAll(t, s, filter, size); !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: got %v, want %v", name, size, got, want)
			}
		}
	}
	wantUnfinished(t, s, all)
}
