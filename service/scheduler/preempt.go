package scheduler

import (
	"cmp"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Preemption asks a running job to make room for a more urgent one.
type Preemption struct {
	Victim, For job.ID
}

// leaveTime is how long a job that makes room is expected to take.
const leaveTime = 10 * time.Second

// preempt looks for running jobs that make room for the first job of a line: less urgent ones, of queues that allow it, as few
// and as young as possible. It reserves their place.
func (s *Scheduler) preempt(l *line, plan *Plan) {
	id := l.waiting.first()
	if !l.node.queue.Preempts || l.gang != nil {
		return
	}
	held := s.reservationOf(id)
	if held != nil && held.preempted || len(s.reservations) >= s.options.Reservations && held == nil {
		return
	}
	if held != nil && held.at <= nanos(s.now)+int64(leaveTime) {
		return // it starts as soon without
	}
	soon := false
	var best []*Running
	var bestCell *cell
	bestCost := cost{}
	s.eligible(l.shape, func(c *cell) {
		soon = soon || c.earliest(&l.shape.ask, s.now) <= nanos(s.now)+int64(leaveTime)
		victims, sum := s.victims(c, l)
		if victims != nil && (best == nil || sum.compare(bestCost) < 0 || sum.compare(bestCost) == 0 && c.compare(bestCell) < 0) {
			best, bestCell, bestCost = victims, c, sum
		}
	})
	if best == nil || soon {
		return
	}
	s.unreserve(held)
	for _, r := range best {
		r.leaving = true
		r.until = min(r.until, nanos(s.now)+int64(leaveTime))
		s.note(r.cell)
		plan.Preemptions = append(plan.Preemptions, Preemption{Victim: r.job, For: id})
	}
	s.hold(&reservation{
		job: id, line: l, at: nanos(s.now) + int64(leaveTime), parts: []claim{{bestCell, l.shape.ask.clone()}}, preempted: true,
	})
}

// cost is what is lost when jobs have to leave.
type cost struct {
	priority int32   // of the most urgent of them
	work     float64 // seconds, times what they hold of the worker
}

func (a cost) compare(b cost) int {
	return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.work, b.work))
}

// victims returns the jobs of a worker that would make enough room, and what is lost; nil when there are not enough.
func (s *Scheduler) victims(c *cell, l *line) ([]*Running, cost) {
	var able []*Running
	for _, r := range c.running {
		if r.line.node.queue.Preemptible && !r.line.class.Once && r.line.class.Priority < l.class.Priority && !r.leaving && r.began < nanos(s.now) {
			able = append(able, r)
		}
	}
	lost := func(r *Running) cost {
		return cost{r.line.class.Priority, max(float64(nanos(s.now)-r.began)/1e9, 0) * r.line.shape.ask.share(&c.capacity)}
	}
	slices.SortFunc(able, func(a, b *Running) int { return cmp.Or(lost(a).compare(lost(b)), a.job.Compare(b.job)) })
	free, sum := c.free.clone(), cost{priority: -job.MaxPriority}
	for i, r := range able {
		if free.covers(&l.shape.ask) {
			return able[:i], sum
		}
		free.add(&r.line.shape.ask)
		one := lost(r)
		sum = cost{max(sum.priority, one.priority), sum.work + one.work}
	}
	if free.covers(&l.shape.ask) && len(able) > 0 {
		return able, sum
	}
	return nil, cost{}
}
