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
	j := s.jobs[c.id]
	if j == nil {
		c.err = job.Errorf(job.CodeNotFound, job.ReasonJobNotFound, "there is no unfinished job %s", c.id)
		return
	}
	c.job = *j
	if c.step == "" {
		c.cancelJob(s, *j, now)
	} else {
		c.cancelStep(s, *j)
	}
}

func (c *cancel) cancelJob(s *state, j job.Job, now time.Time) {
	if c.job, c.err = j.RequestCancel(c.request, now); c.err != nil {
		return
	}
	s.put(c.job)
	if c.job.State == job.Canceling {
		s.orders = append(s.orders, order{job: c.job, step: -1})
	}
}

func (c *cancel) cancelStep(s *state, j job.Job) {
	step, err := j.StepIndex(c.step)
	if err != nil {
		c.err = err
		return
	}
	if c.job, c.err = j.RequestStepCancel(step); c.err != nil {
		return
	}
	s.put(c.job)
	s.orders = append(s.orders, order{job: c.job, step: step})
}
