package orchestrator

import (
	"context"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// ReportKind is what an agent reports.
type ReportKind uint8

// The kinds of reports.
const (
	ReportStepStarted ReportKind = iota + 1
	ReportStepFinished
	ReportAttemptFinished
)

// Report is what an agent says about an attempt.
type Report struct {
	Ref       job.AttemptRef
	Kind      ReportKind
	Step      int       // index; for an attempt's end the step that decided it, -1 for none
	Time      time.Time // on the agent's clock
	Cause     job.Cause
	StepState job.StepState // for ReportStepFinished
	Usage     job.Usage     // for ReportStepFinished
}

// Report takes in what a worker's agent says. Stale and repeated reports change nothing. acknowledge is called after the
// commit that made the reports durable, from the reactor, and must not block; it is not called when the server stops first.
func (o *Orchestrator) Report(ctx context.Context, worker job.WorkerID, reports []Report, acknowledge func()) error {
	return o.inbox.put(ctx, &report{worker: worker, reports: reports, acknowledge: acknowledge})
}

type report struct {
	worker      job.WorkerID
	reports     []Report
	acknowledge func()
}

func (c *report) done(err error) {
	if err == nil {
		c.acknowledge()
	}
}

func (c *report) apply(s *state, now time.Time) {
	for i := range c.reports {
		s.report(c.worker, &c.reports[i], now)
	}
}

// report applies one report if it is about the attempt that the worker has now. Everything else is stale: the agent is
// told that it arrived, and nothing changes.
func (s *state) report(worker job.WorkerID, r *Report, now time.Time) {
	j := s.jobs[r.Ref.Job]
	if j == nil || j.Worker != worker || j.Ref() != r.Ref || !j.State.OnWorker() {
		s.stale++
		return
	}
	changed, err := r.transition(*j, now)
	if err != nil {
		s.stale++
		return
	}
	s.put(changed)
}

func (r *Report) transition(j job.Job, now time.Time) (job.Job, error) {
	// An agent's clock that runs ahead or behind must not make times negative.
	at := r.Time
	switch {
	case at.IsZero() || at.After(now):
		at = now
	case at.Before(j.Created):
		at = j.Created
	}
	switch r.Kind {
	case ReportStepStarted:
		return j.StepStarted(r.Step, at)
	case ReportStepFinished:
		return j.StepFinished(r.Step, r.Cause, r.StepState, r.Usage, at)
	default:
		cause := r.Cause
		if r.Step >= 0 && r.Step < len(j.Spec.Steps) {
			cause.Step = j.Spec.Steps[r.Step].Name
		}
		return j.Finish(cause, at)
	}
}
