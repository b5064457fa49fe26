// Package scheduler decides which waiting job goes to which worker, and says why a job has to wait.
//
// It is pure: Place looks at a backlog and workers and returns a plan. Filters say on which workers a job may run and
// explain themselves where it may not; scorers choose among the workers that are left.
package scheduler

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// Placement gives a job to a worker.
type Placement struct {
	Job    job.ID
	Worker job.WorkerID
}

// Plan is what Place decided.
type Plan struct {
	Placements []Placement      // in the order of decision
	Rejections map[Class]string // why the jobs of a class have to wait, in one sentence
}

// Place goes through the backlog, the most urgent jobs first, and gives each to the best worker that can take it. Jobs that
// are placed leave the backlog. The plan never gives a worker more than it has free, and is the same whatever the order of
// the workers, who do not change.
func (b *Backlog) Place(workers []*job.Worker) Plan {
	candidates := candidates(workers)
	plan := Plan{Rejections: make(map[Class]string)}
	order := make(classHeap, 0, len(b.classes))
	for _, c := range b.classes {
		order = append(order, c)
	}
	heap.Init(&order)
	for len(order) > 0 {
		c := order[0]
		best := choose(c.spec, candidates)
		if best == nil {
			// What is free only shrinks from here on, so no other job of the class can be placed either.
			plan.Rejections[c.key] = explain(c.spec, candidates)
			heap.Pop(&order)
			continue
		}
		id := c.waiting.first()
		best.take(c.spec.Resources)
		plan.Placements = append(plan.Placements, Placement{Job: id, Worker: best.worker.ID})
		c.waiting.remove(id)
		if b.taken(c); c.waiting.size == 0 {
			heap.Pop(&order)
		} else if len(order) > 1 {
			heap.Fix(&order, 0)
		}
	}
	return plan
}

// classHeap has the most urgent class first.
type classHeap []*class

func (h classHeap) Len() int           { return len(h) }
func (h classHeap) Less(i, j int) bool { return urgency(h[i], h[j]) }
func (h classHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *classHeap) Push(x any) {
	if c, ok := x.(*class); ok {
		*h = append(*h, c)
	}
}

func (h *classHeap) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	*h = (*h)[:last]
	return c
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
	for i := range filters {
		if !filters[i].check(spec, c) {
			return false
		}
	}
	return true
}
