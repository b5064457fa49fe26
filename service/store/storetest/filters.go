package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// filters: a list has exactly the jobs that Matches selects.
func filters(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){"Each": eachFilter, "Lookalikes": lookalikes, "States": stateFilters, "ByID": byID})
}

// wantLists checks filters against the jobs that there are.
func wantLists(t *testing.T, s store.Store, jobs []*job.Job, filters map[string]store.Filter) {
	t.Helper()
	for name, filter := range filters {
		var want []job.ID
		for _, j := range jobs {
			if filter.Matches(j) {
				want = append(want, j.ID)
			}
		}
		slices.SortFunc(want, func(a, b job.ID) int { return b.Compare(a) })
		for _, size := range []int{1, 3, 100} {
			if got := listAll(t, s, filter, size); !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: got %v, want %v", name, size, got, want)
			}
		}
	}
}

func eachFilter(t *testing.T, h Harness) {
	s := open(t, h)
	var batch store.Batch
	for n := range 40 {
		j := newJob(t, n, func(s *job.Spec) {
			s.Namespace = []string{"one", "two", "on"}[n%3]
			s.Queue = []string{"fast", "slow"}[n%2]
			s.Labels = map[string]string{"n": string(rune('a' + n%5)), "m": fmt.Sprint(n % 2)}
		})
		if n%4 == 0 {
			j = end(t, j)
		}
		batch.Accepted = append(batch.Accepted, j)
	}
	commit(t, s, &batch)
	ended := []job.State{job.Succeeded, job.Failed}
	wantLists(t, s, batch.Accepted, map[string]store.Filter{
		"all": {}, "namespace": {Namespace: "one"}, "a prefix of a namespace": {Namespace: "on"}, "queue": {Queue: "slow"},
		"state": {States: ended}, "label": {Labels: map[string]string{"n": "c"}}, "name": {Name: "job 7"},
		"ids": {IDs: []job.ID{id(3), id(9), id(3), id(99)}}, "both": {Namespace: "two", Queue: "fast"}, "nothing": {Namespace: "none"},
		"two namespaces": {Namespaces: []string{"two", "one", "two"}}, "queue of two namespaces": {Namespaces: []string{"one", "on"}, Queue: "fast"},
		"no namespace of these": {Namespaces: []string{"none"}}, "states of two namespaces": {Namespaces: []string{"one", "two"}, States: ended},
		"state of a namespace": {Namespace: "one", States: ended}, "queue and state": {Namespace: "one", Queue: "fast", States: ended},
		"two labels": {Namespace: "one", Labels: map[string]string{"n": "c", "m": "0"}}, "a label that no job has": {Labels: map[string]string{"x": ""}},
		"name in a namespace": {Namespace: "two", Name: "job 7"}, "name in the wrong namespace": {Namespace: "one", Name: "job 7"},
		"ids of a namespace": {Namespace: "one", IDs: []job.ID{id(3), id(4), id(5), id(6)}}, "state and ids": {States: ended, IDs: []job.ID{id(4), id(5)}},
		"label, queue and state": {Namespace: "one", Queue: "slow", States: []job.State{job.Queued}, Labels: map[string]string{"m": "1"}},
	})
}

// lookalikes: names that are prefixes of each other, or come to the same when they are put together, are not mixed up.
func lookalikes(t *testing.T, h Harness) {
	s := open(t, h)
	specs := []job.Spec{
		{Namespace: "a", Queue: "b", Name: "c"},
		{Namespace: "ab", Queue: "b", Name: "c"},
		{Namespace: "a", Queue: "bc", Name: "c\x01"},
		{Namespace: "a", Queue: "b", Name: "cc"},
		{Namespace: "a", Queue: "c", Name: ""},
		{Namespace: "a", Queue: "b", Name: "ÿÿ"},
		{Namespace: "a", Labels: map[string]string{"x": "y"}},
		{Namespace: "a", Labels: map[string]string{"x": "yy"}},
		{Namespace: "a", Labels: map[string]string{"x": ""}},
		{Namespace: "a", Labels: map[string]string{"xy": ""}},
		{Namespace: "a", Labels: map[string]string{"x": "y=z"}},
		{Namespace: "a", Name: "SUCCEEDED"},
		{Namespace: "a", Labels: map[string]string{"x": "ÿ"}},
	}
	var jobs []*job.Job
	filters := make(map[string]store.Filter)
	for n, spec := range specs {
		jobs = append(jobs, newJob(t, n, func(s *job.Spec) {
			s.Namespace, s.Queue, s.Name, s.Labels = spec.Namespace, spec.Queue, spec.Name, spec.Labels
		}))
		filters[fmt.Sprintf("job %d", n)] = store.Filter{Namespace: spec.Namespace, Queue: spec.Queue, Name: spec.Name, Labels: spec.Labels}
		filters[fmt.Sprintf("queue of job %d", n)] = store.Filter{Namespace: spec.Namespace, Queue: spec.Queue}
	}
	commit(t, s, &store.Batch{Accepted: jobs})
	wantLists(t, s, jobs, filters)
}

// stateFilters follow jobs through every state.
func stateFilters(t *testing.T, h Harness) {
	s := h.Open(t)
	var jobs []*job.Job
	check := func() {
		t.Helper()
		filters := make(map[string]store.Filter)
		for state := job.Blocked; state <= job.Skipped; state++ {
			filters[state.String()] = store.Filter{States: []job.State{state}}
			filters[state.String()+" in a namespace"] = store.Filter{Namespace: "team-1", States: []job.State{state, state}}
			filters["not "+state.String()] = store.Filter{Namespace: "team-1", States: []job.State{state%job.Skipped + 1, (state+4)%job.Skipped + 1}}
		}
		wantLists(t, s, jobs, filters)
	}
	for n, life := range [][]*job.Job{lives(t, 1), lives(t, 2), lives(t, 3)} {
		jobs = append(jobs, life[0])
		commit(t, s, &store.Batch{Accepted: life[:1]})
		for i, j := range life[1:] {
			jobs[n] = j
			commit(t, s, &store.Batch{Changed: []*job.Job{j}})
			if i%4 == n {
				check()
			}
		}
	}
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	check()
}

// byID: those that are there are visited in order, once for each id.
func byID(t *testing.T, h Harness) {
	s := open(t, h)
	jobs := []*job.Job{newJob(t, 1, nil), end(t, newJob(t, 3, nil)), newJob(t, 5, nil)}
	commit(t, s, &store.Batch{Accepted: jobs})
	for _, asked := range [][]job.ID{nil, {id(9)}, {id(1), id(3), id(5)}, {id(0), id(1), id(2), id(5), id(6)}} {
		var got, want []job.ID
		for _, j := range jobs {
			if slices.Contains(asked, j.ID) {
				want = append(want, j.ID)
			}
		}
		if err := s.JobsByID(t.Context(), asked, func(j job.Job) { got = append(got, j.ID) }); err != nil || !slices.Equal(got, want) {
			t.Errorf("of %v there are %v, want %v, %v", asked, got, want, err)
		}
	}
}
