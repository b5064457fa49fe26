package audit_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

// pages reads a whole list by pages, and returns the numbers of its records.
func (w *world) pages(f audit.Filter, limit int, newestFirst bool) (all []uint64) {
	w.t.Helper()
	k := w.keeper()
	for after := uint64(0); ; {
		found, next, err := k.List(w.t.Context(), f, after, limit, newestFirst)
		if err != nil || len(found) > limit {
			w.t.Fatalf("%d records, %v", len(found), err)
		}
		for _, r := range found {
			all = append(all, r.Seq)
		}
		if after = next; next == 0 {
			return all
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memstore.New())
		if got := w.pages(audit.Filter{Since: time.Now()}, 10, true); got != nil {
			t.Errorf("an empty trail has %v", got)
		}
		began := time.Now()
		var all []chain.Entry
		for n := range 1200 { // one each minute
			e := chain.Entry{
				Actor: fmt.Sprint("user/", n%3), Action: []string{"hodei.v1.JobService/SubmitJob", "hodei.v1.JobService/CancelJob", "hodei.admin.v1.TokenService/CreateToken"}[n%3],
				Namespace: []string{"a", "b"}[n%2], Targets: []string{fmt.Sprint("job_", n%10), "job_x"}, Outcome: chain.OK,
			}
			if n%50 == 0 {
				e.Outcome = chain.Denied
			}
			w.write(e)
			all = append(all, e)
			time.Sleep(time.Minute)
		}
		at := func(n int) time.Time { return began.Add(time.Duration(n) * time.Minute) }
		for name, c := range map[string]struct {
			filter  audit.Filter
			matches func(n int, e *chain.Entry) bool
		}{
			"all":        {audit.Filter{}, func(int, *chain.Entry) bool { return true }},
			"actor":      {audit.Filter{Actor: "user/1"}, func(n int, _ *chain.Entry) bool { return n%3 == 1 }},
			"action":     {audit.Filter{Action: "hodei.v1.JobService/"}, func(n int, _ *chain.Entry) bool { return n%3 < 2 }},
			"namespace":  {audit.Filter{Namespace: "b"}, func(n int, _ *chain.Entry) bool { return n%2 == 1 }},
			"outcome":    {audit.Filter{Outcome: chain.Denied}, func(n int, _ *chain.Entry) bool { return n%50 == 0 }},
			"target":     {audit.Filter{Target: "job_7"}, func(n int, _ *chain.Entry) bool { return n%10 == 7 }},
			"none":       {audit.Filter{Actor: "user/"}, func(int, *chain.Entry) bool { return false }},
			"since":      {audit.Filter{Since: at(700)}, func(n int, _ *chain.Entry) bool { return n >= 700 }},
			"until":      {audit.Filter{Until: at(700)}, func(n int, _ *chain.Entry) bool { return n < 700 }},
			"time":       {audit.Filter{Since: at(300), Until: at(310)}, func(n int, _ *chain.Entry) bool { return n >= 300 && n < 310 }},
			"before":     {audit.Filter{Until: at(0)}, func(int, *chain.Entry) bool { return false }},
			"after":      {audit.Filter{Since: at(5000)}, func(int, *chain.Entry) bool { return false }},
			"everything": {audit.Filter{Actor: "user/2", Namespace: "a", Since: at(100), Until: at(900), Outcome: chain.OK, Target: "job_x", Action: "hodei.admin"}, func(n int, e *chain.Entry) bool { return n%3 == 2 && n%2 == 0 && n >= 100 && n < 900 && n%50 != 0 }},
		} {
			var want []uint64
			for n := range all {
				if c.matches(n, &all[n]) {
					want = append(want, uint64(n+1))
				}
			}
			for _, limit := range []int{7, 1000} {
				if got := w.pages(c.filter, limit, false); !slices.Equal(got, want) {
					t.Errorf("%s by %d: got %v, want %v", name, limit, got, want)
				}
			}
			slices.Reverse(want)
			if got := w.pages(c.filter, 90, true); !slices.Equal(got, want) {
				t.Errorf("%s, the newest first: got %v, want %v", name, got, want)
			}
		}
	})
}

func TestListAfterTheClockWasSetBackAndWithDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, memstore.New())
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var want []uint64
	since, until := start.Add(20*time.Minute), start.Add(40*time.Minute)
	for n := range 100 {
		at := start.Add(time.Duration(n) * time.Minute)
		if n >= 50 {
			at = at.Add(-45 * time.Minute)
		}
		seq, line := w.chain.Append(chain.Entry{Actor: "server"}, at)
		if n == 30 || n == 70 {
			line = []byte("damaged")
		} else if !at.Before(since) && at.Before(until) {
			want = append(want, seq)
		}
		w.commit(store.Record{Kind: chain.Kind, Key: chain.Key(seq), Value: line})
	}
	if got := w.pages(audit.Filter{Since: since, Until: until}, 10, false); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	slices.Reverse(want)
	if got := w.pages(audit.Filter{Since: since, Until: until}, 10, true); !slices.Equal(got, want) {
		t.Errorf("the newest first: got %v, want %v", got, want)
	}
}

// A search that finds nothing looks at a bounded number of records at once, and says where to go on.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, memstore.New())
	var records []store.Record
	for range 25_000 {
		seq, line := w.chain.Append(chain.Entry{Actor: "server"}, time.Now())
		records = append(records, store.Record{Kind: chain.Kind, Key: chain.Key(seq), Value: line})
	}
	w.commit(records...)
	found, next, err := w.keeper().List(t.Context(), audit.Filter{Actor: "user/ada"}, 0, 10, false)
	if err != nil || len(found) != 0 || next != 20_000 {
		t.Errorf("got %d records, and goes on after %d, %v", len(found), next, err)
	}
	if got := w.pages(audit.Filter{Actor: "user/ada"}, 10, false); got != nil {
		t.Errorf("got %v", got)
	}
}
