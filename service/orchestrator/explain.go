package orchestrator

import (
	"context"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// reasonsOnce is for how many classes of jobs reasons are found at once; each takes a look at every worker.
const reasonsOnce = 16

// PendingReasons returns why those of the jobs wait that are queued, in one sentence each, by their ids. Jobs that are alike have the
// same reason; of many different ones some have none.
func (o *Orchestrator) PendingReasons(ctx context.Context, jobs []job.Job) (map[job.ID]string, error) {
	c := &reasons{waiter: newWaiter()}
	for i := range jobs {
		if jobs[i].State == job.Queued {
			c.jobs = append(c.jobs, &jobs[i])
		}
	}
	if len(c.jobs) == 0 {
		return nil, nil
	}
	if err := o.do(ctx, c, c.waiter); err != nil {
		return nil, err
	}
	return c.result, nil
}

type reasons struct {
	*waiter
	jobs   []*job.Job
	result map[job.ID]string
}

func (c *reasons) apply(s *state, now time.Time) {
	c.result = make(map[job.ID]string, len(c.jobs))
	texts := make(map[scheduler.Class]string)
	for _, j := range c.jobs {
		class := s.sched.Class(j.Spec, j.Attempt > 0)
		text, ok := texts[class]
		if !ok && len(texts) < reasonsOnce {
			text = s.sched.Explain(j.ID, j.Spec, j.Attempt > 0, now).Text
			texts[class] = text
		}
		c.result[j.ID] = text
	}
}

// Explain says why a job waits; of one that does not, the explanation is empty. CodeNotFound when there is no such job.
func (o *Orchestrator) Explain(ctx context.Context, id job.ID) (job.Job, scheduler.Explanation, error) {
	j, err := o.config.Store.Job(ctx, id)
	if err != nil || j.State != job.Queued {
		return j, scheduler.Explanation{}, err
	}
	e, err := o.explain(ctx, id, j.Spec, j.Attempt > 0)
	return j, e, err
}

// ExplainSpec says why a job would wait if it were submitted now.
func (o *Orchestrator) ExplainSpec(ctx context.Context, spec job.Spec) (job.Job, scheduler.Explanation, error) {
	j, err := o.Validate(ctx, spec)
	if err != nil {
		return j, scheduler.Explanation{}, err
	}
	e, err := o.explain(ctx, job.ID{}, j.Spec, false)
	return j, e, err
}

func (o *Orchestrator) explain(ctx context.Context, id job.ID, spec *job.Spec, again bool) (scheduler.Explanation, error) {
	c := &explain{waiter: newWaiter(), id: id, spec: spec, again: again}
	err := o.do(ctx, c, c.waiter)
	return c.result, err
}

type explain struct {
	*waiter
	id     job.ID
	spec   *job.Spec
	again  bool
	result scheduler.Explanation
}

func (c *explain) apply(s *state, now time.Time) {
	c.result = s.sched.Explain(c.id, c.spec, c.again, now)
}

// Release lets a held job start again. CodePrecondition when it is not held.
func (o *Orchestrator) Release(ctx context.Context, id job.ID) (job.Job, error) {
	var released job.Job
	err := o.change(ctx, func(s *state) error {
		e, err := s.find(id)
		if err != nil {
			return err
		}
		defer s.letGo(e)
		if released, err = e.job.Release(s.now); err != nil {
			return err
		}
		s.put(e, released)
		s.delayed.push(released.NextAttempt, id)
		return nil
	})
	return released, err
}
