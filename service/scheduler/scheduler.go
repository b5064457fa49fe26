// Package scheduler decides which waiting job goes to which worker, and says why a job has to wait.
//
// It is pure: Place looks at a view and returns a plan. Filters say on which workers a job may run and explain themselves
// where it may not; scorers choose among the workers that are left.
package scheduler

import (
	"cmp"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// View is what the scheduler looks at. It must not change while Place runs; Place does not change it.
type View struct {
	Queued  []*job.Job    // in any order
	Workers []*job.Worker // in any order; all that are known, connected or not
}

// Placement gives a job to a worker.
type Placement struct {
	Job    job.ID
	Worker job.WorkerID
}

// Rejection says why a job has to wait.
type Rejection struct {
	Job    job.ID
	Reason string // one sentence
}

// Plan is what Place decided.
type Plan struct {
	Placements []Placement // in the order of decision
	Rejections []Rejection
}

// Place goes through the queued jobs, the most urgent first, and gives each to the best worker that can take it. The plan
// never gives a worker more than it has free, and is the same whatever the order of the view's lists.
func Place(view View) Plan {
	workers := candidates(view.Workers)
	queued := slices.Clone(view.Queued)
	slices.SortFunc(queued, byUrgency)
	var plan Plan
	refused := make(map[string]string) // by shape: jobs that ask for the same get the same answer
	for _, j := range queued {
		key := shape(j.Spec)
		if reason, ok := refused[key]; ok {
			plan.Rejections = append(plan.Rejections, Rejection{Job: j.ID, Reason: reason})
			continue
		}
		best := choose(j.Spec, workers)
		if best == nil {
			reason := explain(j.Spec, workers)
			refused[key] = reason
			plan.Rejections = append(plan.Rejections, Rejection{Job: j.ID, Reason: reason})
			continue
		}
		best.take(j.Spec.Resources)
		plan.Placements = append(plan.Placements, Placement{Job: j.ID, Worker: best.worker.ID})
	}
	return plan
}

// byUrgency orders by priority, then by age; ids are in the order of their making.
func byUrgency(a, b *job.Job) int {
	return cmp.Or(
		cmp.Compare(b.Spec.Priority, a.Spec.Priority),
		a.Created.Compare(b.Created),
		cmp.Compare(a.ID, b.ID),
	)
}

// candidate is a worker with what the plan so far has left of it.
type candidate struct {
	worker *job.Worker
	free   job.Resources
	slots  int32
}

func candidates(workers []*job.Worker) []*candidate {
	out := make([]*candidate, 0, len(workers))
	for _, w := range workers {
		out = append(out, &candidate{worker: w, free: w.Free(), slots: w.FreeSlots()})
	}
	slices.SortFunc(out, func(a, b *candidate) int { return cmp.Compare(a.worker.ID, b.worker.ID) })
	return out
}

func (c *candidate) take(need job.Resources) {
	c.free = c.free.Sub(need)
	c.slots--
}

// choose returns the worker with the highest score among those that every filter lets through, nil when there is none.
func choose(spec *job.Spec, workers []*candidate) *candidate {
	var best *candidate
	var bestScore float64
	for _, c := range workers {
		if !passes(spec, c) {
			continue
		}
		if s := score(spec, c); best == nil || s > bestScore {
			best, bestScore = c, s
		}
	}
	return best
}

func passes(spec *job.Spec, c *candidate) bool {
	for _, f := range filters {
		if !f.check(spec, c) {
			return false
		}
	}
	return true
}
