package orchestrator

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Overview is the state of things after some commit. It is the caller's to keep.
type Overview struct {
	ByState map[job.State]int // unfinished jobs
	Workers []job.Worker      // by name
}

// Overview returns the counts of unfinished jobs and the workers.
func (o *Orchestrator) Overview(ctx context.Context) (Overview, error) {
	c := &inspect{waiter: newWaiter()}
	err := o.do(ctx, c, c.waiter)
	return c.result, err
}

// Worker returns a worker by its id or name; CodeNotFound when there is none.
func (o *Orchestrator) Worker(ctx context.Context, idOrName string) (job.Worker, error) {
	c := &findWorker{waiter: newWaiter(), worker: idOrName}
	if err := o.do(ctx, c, c.waiter); err != nil {
		return job.Worker{}, err
	}
	return c.result, c.err
}

type inspect struct {
	*waiter
	result Overview
}

func (c *inspect) apply(s *state, _ time.Time) {
	c.result.ByState = make(map[job.State]int)
	for st := job.Blocked; !st.Terminal(); st++ {
		c.result.ByState[st] = s.counts[st]
	}
	for _, w := range s.workers {
		c.result.Workers = append(c.result.Workers, s.snapshot(w))
	}
	slices.SortFunc(c.result.Workers, func(a, b job.Worker) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

type findWorker struct {
	*waiter
	worker string
	result job.Worker
	err    error
}

func (c *findWorker) apply(s *state, _ time.Time) {
	w, err := s.findWorker(c.worker)
	if err != nil {
		c.err = err
		return
	}
	c.result = s.snapshot(w)
}

// snapshot copies a worker for others to read.
func (s *state) snapshot(w *worker) job.Worker {
	out := w.Worker
	out.Reserved, _ = s.sched.Held(w.ID)
	out.Suspended, out.SuspendedTo = s.sched.Distrusted(w.ID)
	for _, e := range w.entries {
		out.Jobs = append(out.Jobs, job.HeldJob{ID: e.job.ID, Namespace: e.job.Spec.Namespace})
	}
	return out
}
