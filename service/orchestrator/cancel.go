package orchestrator

import (
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// cancel asks for the end of a job or a step.
type cancel struct {
	*waiter
	id      job.ID
	step    string
	request job.CancelRequest
	job     job.Job // the answer; without an id when the job is not in memory
	err     error
}

func (c *cancel) apply(s *state, now time.Time) {
	e, err := s.find(c.id)
	if err != nil {
		c.err = err
		return
	}
	c.job = e.job
	if c.step == "" {
		c.cancelJob(s, e, now)
	} else {
		c.cancelStep(s, e)
	}
	s.letGo(e)
}

func (c *cancel) cancelJob(s *state, e *entry, now time.Time) {
	if c.job, c.err = e.job.RequestCancel(c.request, now); c.err != nil {
		return
	}
	s.put(e, c.job)
	if c.job.State == job.Canceling {
		s.orderCancel(&c.job, -1)
	}
}

func (c *cancel) cancelStep(s *state, e *entry) {
	step, err := e.job.StepIndex(c.step)
	if err != nil {
		c.err = err
		return
	}
	if c.job, c.err = e.job.RequestStepCancel(step); c.err != nil {
		return
	}
	s.put(e, c.job)
	s.orderCancel(&c.job, step)
}

// orderCancel tells the worker, after the commit.
func (s *state) orderCancel(j *job.Job, step int) {
	s.cancels = append(s.cancels, cancelOrder{worker: j.Worker, ref: j.Ref(), step: step, force: step < 0 && j.Cancel.Force})
}
