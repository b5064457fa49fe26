package scheduler

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

// best looks at every worker.
func (s *Scheduler) bestOfAll(sh *shape) *cell {
	var best *choice
	for _, c := range s.cells.all {
		if c == nil || firstRefusal(sh, c) >= 0 {
			continue
		}
		if new := (choice{sh.score(c), c}); best == nil || new.compare(best) < 0 {
			best = &new
		}
	}
	if best == nil {
		return nil
	}
	return best.cell
}

// What a shape remembers of the workers never makes it choose another one than a look at all of them would, whatever happens
// between two choices.
func TestRememberedWorkersAreTheBest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := New(Options{})
		workers := rapid.IntRange(1, 2*bestKept).Draw(t, "workers")
		set := func(i int) {
			s.SetWorker(&job.Worker{
				ID: job.WorkerID(fmt.Sprint("w", i)), Connected: rapid.IntRange(0, 9).Draw(t, "away") > 0, Slots: 8,
				Labels:   map[string]string{"zone": rapid.SampledFrom([]string{"a", "b"}).Draw(t, "zone"), "price": "0.5"},
				Queues:   rapid.SampledFrom([][]string{nil, nil, {"n/q"}, {"n/other"}, {"n/*"}}).Draw(t, "scope"),
				Capacity: job.Resources{MilliCPU: 4000 * rapid.Int32Range(1, 2).Draw(t, "size"), MemoryMiB: 8000},
			})
		}
		for i := range workers {
			set(i)
		}
		specs := []*job.Spec{
			{Namespace: "n", Queue: "other", Name: "other", Resources: job.Resources{MilliCPU: 500}},
			{Namespace: "n", Queue: "unnamed", Name: "unnamed", Resources: job.Resources{MilliCPU: 500}},
			{Namespace: "n", Queue: "q", Name: "small", Resources: job.Resources{MilliCPU: 500}},
			{Namespace: "n", Queue: "q", Name: "memory", Resources: job.Resources{MilliCPU: 1000, MemoryMiB: 3000}},
			{Namespace: "n", Queue: "q", Name: "zone", Constraints: []job.Constraint{{Label: "zone", Operator: job.OperatorIn, Values: []string{"a"}}}},
			{Namespace: "n", Queue: "q", Name: "apart", Placement: &job.Placement{Apart: "zone"}},
			{Namespace: "n", Queue: "q", Name: "spread", Placement: &job.Placement{Spread: "zone"}},
			{Namespace: "n", Queue: "q", Name: "likes", Placement: &job.Placement{Affinities: []job.Affinity{
				{Constraint: job.Constraint{Label: "zone", Operator: job.OperatorIn, Values: []string{"b"}}, Weight: 50},
			}}},
		}
		var running []*Running
		for n := range rapid.IntRange(1, 120).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				set(rapid.IntRange(0, workers-1).Draw(t, "worker"))
			case 1:
				s.SetLoad(job.WorkerID(fmt.Sprint("w", rapid.IntRange(0, workers-1).Draw(t, "loaded"))),
					job.Resources{MilliCPU: rapid.Int32Range(-1, 8000).Draw(t, "cpu"), MemoryMiB: 10})
			case 2, 3:
				if len(running) > 0 {
					i := rapid.IntRange(0, len(running)-1).Draw(t, "ended")
					s.End(running[i])
					running = append(running[:i], running[i+1:]...)
				}
			case 4:
				if id := job.WorkerID(fmt.Sprint("w", rapid.IntRange(0, workers-1).Draw(t, "removed"))); rapid.IntRange(0, 3).Draw(t, "remove") == 0 {
					s.RemoveWorker(id)
				}
			default:
				spec := rapid.SampledFrom(specs).Draw(t, "spec")
				l := s.line(spec, false)
				got, want := s.choose(l.shape, func(*cell) bool { return true }), s.bestOfAll(l.shape)
				if got != want {
					t.Fatalf("step %d: for %s %v was chosen instead of %v", n, spec.Name, got, want)
				}
				if got != nil {
					running = append(running, s.begin(l, job.NewID(time.Unix(int64(n), 0), 0, 0), got, time.Unix(int64(n), 0)))
				}
			}
		}
	})
}

// What nobody serves any more tells nothing apart any more.
func TestScopesGoWithTheirWorkers(t *testing.T) {
	t.Parallel()
	s := New(Options{})
	first, second := s.line(&job.Spec{Namespace: "n", Queue: "q"}, false), s.line(&job.Spec{Namespace: "n", Queue: "r"}, false)
	for _, l := range []*line{first, second} {
		s.begin(l, job.NewID(time.Unix(1, 0), 0, 0), s.cell("other"), time.Unix(1, 0))
	}
	same := func(what string, want bool) {
		if first.shape == second.shape != want || len(s.shapes) > 2 {
			t.Errorf("%s: one shape is %t, of %d", what, first.shape == second.shape, len(s.shapes))
		}
	}
	same("without workers", true)
	for i := range 5 {
		s.SetWorker(&job.Worker{ID: "w", Queues: []string{"n/q", fmt.Sprint("n/x", i)}})
		same("with one that is bound", false)
	}
	s.SetWorker(&job.Worker{ID: "all", Queues: []string{"n/*", "n/q"}})
	s.RemoveWorker("all")
	same("after one of two is gone", false)
	s.RemoveWorker("w")
	same("after both are gone", true)
	if len(s.scopes) > 0 {
		t.Errorf("%v are remembered", s.scopes)
	}
}
