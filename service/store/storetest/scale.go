package storetest

import (
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// scale: with many jobs, most of which have ended, counts and order stay right, also after the store was opened anew and
// after the old ones were removed. A backlog that is older than all of them is in nobody's way.
func scale(t *testing.T, h Harness) {
	s := h.Open(t)
	total := scaleOf(t)
	backlog := min(total/2+total/20, 20_000) // the oldest stay unfinished
	const batchSize = 1000
	m := scaled{total: total, backlog: backlog}
	for from := 0; from < total; from += batchSize {
		batch := &store.Batch{}
		var ends []*job.Job
		for n := from; n < min(from+batchSize, total); n++ {
			j := newJob(t, n, func(s *job.Spec) { s.Namespace, s.Queue, s.Name = "many", m.queue(n), "" })
			batch.Accepted = append(batch.Accepted, j)
			if m.ended(n) {
				ends = append(ends, end(t, j))
			}
		}
		commit(t, s, batch)
		commit(t, s, &store.Batch{Changed: ends})
	}
	s = h.Reopen(t, s)
	m.check(t, s, map[string]scaledList{
		"all":     {store.Filter{}, func(int) bool { return true }},
		"queue":   {store.Filter{Namespace: "many", Queue: "odd"}, func(n int) bool { return n%2 == 1 }},
		"nothing": {store.Filter{Namespace: "many", Name: "none"}, func(int) bool { return false }},
	})
	m.expired = backlog + (total-backlog)/2
	want := 0
	for n := range m.expired {
		if m.ended(n) {
			want++
		}
	}
	if removed := expire(t, s, at(m.expired+9), at(0)); removed != want {
		t.Errorf("%d jobs were removed, want %d", removed, want)
	}
	m.check(t, s, map[string]scaledList{
		"namespace": {store.Filter{Namespace: "many"}, func(int) bool { return true }},
		"state":     {store.Filter{Namespace: "many", States: []job.State{job.Succeeded}}, m.ended},
	})
	s = h.Reopen(t, s)
	m.check(t, s, map[string]scaledList{"queue": {store.Filter{Namespace: "many", Queue: "even"}, func(n int) bool { return n%2 == 0 }}})
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// scaled says which jobs there are, by their numbers.
type scaled struct{ total, backlog, expired int }

func (m *scaled) queue(n int) string { return []string{"even", "odd"}[n%2] }
func (m *scaled) ended(n int) bool   { return n >= m.backlog && n%100 != 7 }
func (m *scaled) there(n int) bool   { return n >= m.expired || !m.ended(n) }

// scaledList is a filter and which jobs it selects.
type scaledList struct {
	filter   store.Filter
	selected func(n int) bool
}

func (m *scaled) check(t *testing.T, s store.Store, lists map[string]scaledList) {
	t.Helper()
	pageSize := max(m.total/6, 777)
	for name, list := range lists {
		got := listAll(t, s, list.filter, pageSize)
		i := 0
		for n := m.total - 1; n >= 0; n-- {
			if !m.there(n) || !list.selected(n) {
				continue
			}
			if i >= len(got) || got[i] != id(n) {
				t.Fatalf("%s: place %d of %d does not have job %d", name, i, len(got), n)
			}
			i++
		}
		if i != len(got) {
			t.Errorf("%s: there are %d jobs, want %d", name, len(got), i)
		}
	}
	next := 0
	damaged, err := s.Unfinished(t.Context(), func(j job.Job) error {
		for m.ended(next) {
			next++
		}
		if j.ID != id(next) || j.State != job.Queued {
			t.Fatalf("instead of job %d there is %s, which is %s", next, j.ID, j.State)
		}
		next++
		return nil
	})
	for next < m.total && m.ended(next) {
		next++
	}
	if err != nil || damaged != 0 || next != m.total {
		t.Errorf("the last unfinished job is before %d of %d, %d damaged, %v", next, m.total, damaged, err)
	}
}
