package orchestrator

import (
	"context"
	"math"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
	"github.com/hodei-jobs/hodei/service/store"
)

// Report is what an agent says about an attempt: what became of its steps since the last report, and its end.
type Report struct {
	Ref      job.AttemptRef
	Steps    []job.StepReport  // times on the agent's clock
	Ended    time.Time         // when nothing of the attempt ran any more; zero while it runs
	Cause    job.Cause         // of the end
	Step     int               // that decided the end, -1 for none
	Silent   bool              // the attempt has ended and wrote nothing
	Progress *job.Progress     // how far the attempt has said that it is; nil: it has said nothing
	Masked   map[string]uint64 // how often each secret was replaced in what it wrote, by name
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
		if !s.report(c.worker, &c.reports[i], now) {
			s.stale++
		}
	}
}

// report applies one report if it is about the attempt that the worker has now. Everything else is stale: the agent is
// told that it arrived, and nothing changes.
func (s *state) report(worker job.WorkerID, r *Report, now time.Time) bool {
	e := s.jobs[r.Ref.Job]
	if e == nil || e.job.Worker != worker || e.job.Ref() != r.Ref || !e.job.State.OnWorker() {
		return false
	}
	for i := range r.Steps {
		step := &r.Steps[i]
		step.Started, step.Ended = e.plausible(step.Started, now), e.plausible(step.Ended, now)
	}
	changed, err := e.job.StepsReported(r.Steps)
	if err != nil {
		return false
	}
	if r.Progress != nil {
		changed = changed.ProgressReported(*r.Progress)
	}
	if !r.Ended.IsZero() {
		if r.Step >= 0 && r.Step < len(changed.Spec.Steps) {
			r.Cause.Step = changed.Spec.Steps[r.Step].Name
		}
		if changed, err = changed.Finish(r.Cause, e.plausible(r.Ended, now)); err != nil {
			return false
		}
		s.learn(e.place, &changed, r, now)
		changed.Silent, changed.Masked = r.Silent, r.Masked
		if r.Silent && !changed.State.Terminal() { // the next attempt will say how its own log is
			s.ends = append(s.ends, store.LogEnd{Ref: store.LogRef{Job: r.Ref.Job, Attempt: r.Ref.Attempt}})
		}
	}
	s.put(e, changed)
	return true
}

// learn tells the scheduler how an attempt has ended: it is to know workers that fail, and how long jobs take.
func (s *state) learn(place *scheduler.Running, j *job.Job, r *Report, now time.Time) {
	s.sched.Ended(place, j.Spec.Name, &r.Cause, now)
	if j.State == job.Succeeded && j.Spec.Name != "" {
		s.sched.Learn(j.Spec, usageOf(j))
	}
}

// usageOf is what the last attempt of a job took.
func usageOf(j *job.Job) scheduler.Usage {
	u := scheduler.Usage{Ran: j.Ended.Sub(j.Started)}
	var cpu time.Duration
	for i := range j.Steps {
		step := &j.Steps[i]
		cpu += step.Usage.UserCPU + step.Usage.SystemCPU
		u.MemoryMiB = max(u.MemoryMiB, step.Usage.MaxRSSKiB/1024)
	}
	if u.Ran > 0 {
		u.MilliCPU = int32(min(1000*cpu.Seconds()/u.Ran.Seconds(), math.MaxInt32))
	}
	return u
}

// plausible corrects an agent's clock that runs ahead or behind, so that no time becomes negative. Zero stays.
func (e *entry) plausible(at, now time.Time) time.Time {
	switch {
	case at.IsZero():
		return at
	case at.After(now):
		return now
	case at.Before(e.job.Created):
		return e.job.Created
	}
	return at
}
