package storetest

import (
	"reflect"
	"slices"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// order: ids grow, later commits win over earlier ones, and so does what comes later in a batch.
func order(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){"IdsGrow": idsGrow, "WithinABatch": withinABatch, "Churn": churn})
}

// idsGrow: what is not larger than all before is refused, and with it all that is in the batch; also after the newest one
// has ended and the store was opened anew.
func idsGrow(t *testing.T, h Harness) {
	s := h.Open(t)
	wantNewest := func(want job.ID) {
		t.Helper()
		if newest, err := s.Newest(t.Context()); err != nil || newest != want {
			t.Errorf("the newest job is %s, want %s, %v", newest, want, err)
		}
	}
	wantNewest(job.ID{})
	commit(t, s, &store.Batch{Accepted: []*job.Job{newJob(t, 3, nil), end(t, newJob(t, 5, nil))}})
	for range 2 {
		wantNewest(id(5))
		for _, late := range [][]int{{4}, {5}, {7, 6}, {8, 8}} {
			b := &store.Batch{Records: []store.Record{{Kind: "k", Key: "late", Value: []byte("1")}}}
			for _, n := range late {
				b.Accepted = append(b.Accepted, newJob(t, n, nil))
			}
			if err := s.Commit(t.Context(), b); err == nil {
				t.Errorf("jobs %v were accepted after job 5", late)
			}
		}
		for _, changed := range []*job.Job{assign(t, newJob(t, 9, nil)), end(t, newJob(t, 5, nil))} {
			if err := s.Commit(t.Context(), &store.Batch{Changed: []*job.Job{changed}}); err == nil {
				t.Errorf("the change of job %s was taken, which has ended or was never accepted", changed.ID)
			}
		}
		if _, err := s.Record(t.Context(), "k", "late"); job.CodeOf(err) != job.CodeNotFound {
			t.Errorf("of a batch that was refused there is a record: %v", err)
		}
		s = h.Reopen(t, s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func withinABatch(t *testing.T, h Harness) {
	s := h.Open(t)
	one, two, three := newJob(t, 1, nil), newJob(t, 2, nil), newJob(t, 3, nil)
	assigned, ended, born := assign(t, one), end(t, two), end(t, three)
	commit(t, s, &store.Batch{Accepted: []*job.Job{one, two}})
	commit(t, s, &store.Batch{
		Accepted: []*job.Job{born}, Changed: []*job.Job{assign(t, two), assigned, ended},
		Requests: []store.Request{{ID: "r", Jobs: []job.ID{id(1)}, Expires: at(1)}, {ID: "r", Jobs: []job.ID{id(2)}, Expires: at(1)}},
		Records: []store.Record{
			{Kind: "k", Key: "a", Value: []byte("1")}, {Kind: "k", Key: "a"}, {Kind: "k", Key: "b"}, {Kind: "k", Key: "b", Value: []byte("2")},
		},
	})
	for range 2 {
		for _, j := range []*job.Job{assigned, ended, born} {
			wantJob(t, s, j)
		}
		if r, err := s.Request(t.Context(), "r"); err != nil || !slices.Equal(r.Jobs, []job.ID{id(2)}) {
			t.Errorf("the request is %+v, %v", r, err)
		}
		if got, err := s.ListRecords(t.Context(), "k"); err != nil || len(got) != 1 || got[0].Key != "b" {
			t.Errorf("the records are %+v, %v", got, err)
		}
		if got := listAll(t, s, store.Filter{Namespace: "default", States: []job.State{job.Succeeded}}, 10); !slices.Equal(got, []job.ID{id(3), id(2)}) {
			t.Errorf("those that have ended are %v", got)
		}
		s = h.Reopen(t, s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// churn: whatever jobs go through, in whatever batches and however often the store is opened anew, it has them as they were
// written last.
func churn(t *testing.T, h Harness) {
	s := h.Open(t)
	random := seeded(1)
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
				addTo(batch, live[i], isNew[live[i].ID])
				delete(isNew, live[i].ID)
				delete(changed, live[i].ID)
				live = slices.Delete(live, i, i+1)
			}
		}
		for _, j := range live {
			if want[j.ID] = j; isNew[j.ID] || changed[j.ID] {
				addTo(batch, j, isNew[j.ID])
			}
		}
		slices.SortFunc(batch.Accepted, func(a, b *job.Job) int { return a.ID.Compare(b.ID) })
		commit(t, s, batch)
		if round%100 == 99 {
			s = h.Reopen(t, s)
		}
	}
	defer s.Close() //nolint:errcheck // what counts was read
	wantUnfinished(t, s, live)
	for _, j := range want {
		wantJob(t, s, j)
	}
}

func addTo(b *store.Batch, j *job.Job, isNew bool) {
	if isNew {
		b.Accepted = append(b.Accepted, j)
	} else {
		b.Changed = append(b.Changed, j)
	}
}

// wantUnfinished checks that exactly these jobs are unfinished, and none damaged.
func wantUnfinished(t tester, s store.Store, want []*job.Job) {
	t.Helper()
	want = slices.Clone(want)
	slices.SortFunc(want, func(a, b *job.Job) int { return a.ID.Compare(b.ID) })
	i := 0
	damaged, err := s.Unfinished(t.Context(), func(j job.Job) error {
		if i >= len(want) || !reflect.DeepEqual(j, *want[i]) {
			t.Fatalf("unfinished job %d of %d is %+v", i, len(want), j)
		}
		i++
		return nil
	})
	if err != nil || i != len(want) || damaged != 0 {
		t.Fatalf("%d of %d unfinished jobs, %d damaged, %v", i, len(want), damaged, err)
	}
}
