package orchestrator

import (
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// simAttempt is one run of a job's steps on an agent.
type simAttempt struct {
	agent      *simAgent
	assignment Assignment
	script     simScript
	run        *simRun
	step       int
	process    *simProcess
	verdict    *job.Cause // why the attempt is being stopped
	stepStop   *job.Cause // why the step is being stopped
	steps      []job.StepReport
	final      *Report
	over       bool
	inLine     bool // it has news that wait to be collected
	unknown    bool // the server does not know it
}

// simProcess is what a step runs. It belongs to the machine and goes on while the agent is paused.
type simProcess struct {
	over    bool
	stopped bool
	forced  bool
}

func refText(ref job.AttemptRef) string {
	text := ref.Job.String()
	return fmt.Sprintf("%s/%d epoch %d.%d", text[len(text)-4:], ref.Attempt, ref.Epoch>>32, uint32(ref.Epoch))
}

// begin starts a step.
func (t *simAttempt) begin(step int) {
	t.step, t.stepStop = step, nil
	if t.verdict != nil {
		t.finish(*t.verdict, -1)
		return
	}
	w := t.agent.w
	w.audit.started(t.run, step)
	if a := t.agent; step == 0 && w.fault(w.faults.crash/10) { // before anybody can know that it has started
		a.later(w.between(0, 40*time.Millisecond), func() { a.crashAndReturn(5 * time.Second) })
	}
	p := &simProcess{}
	t.process = p
	t.steps = append(t.steps, job.StepReport{Step: step, Started: w.now})
	t.hasNews(w.between(0, 20*time.Millisecond))
	takes, code := t.script.of(t.assignment.Ref.Attempt, step)
	if t.script.endless && step == t.script.steps-1 {
		takes = time.Hour
	}
	w.after(takes, func() { t.exit(p, job.Cause{Kind: job.CauseExitCode, ExitCode: code}) })
}

// exit is the end of a process; the agent notes it when it can.
func (t *simAttempt) exit(p *simProcess, cause job.Cause) {
	if p.over {
		return
	}
	p.over = true
	t.run.active = false
	t.agent.later(0, func() { t.stepEnded(cause) })
}

// stepEnded decides whether the next step follows. The reason for stopping a step wins over how its process ended.
func (t *simAttempt) stepEnded(cause job.Cause) {
	t.process = nil
	goOn := cause.Kind == job.CauseExitCode && cause.ExitCode == 0
	switch {
	case t.verdict != nil:
		cause, goOn = *t.verdict, false
	case t.stepStop != nil:
		cause, goOn = *t.stepStop, true
	}
	r := t.steps[t.step]
	r.Ended, r.Cause, r.State = t.agent.w.now, cause, cause.StepState()
	t.steps = append(slices.Clone(t.steps[:t.step]), r)
	switch {
	case !goOn:
		t.finish(cause, t.step)
	case t.step == t.script.steps-1:
		t.finish(job.Cause{Kind: job.CauseExitCode}, t.step)
	default:
		t.hasNews(t.agent.w.between(0, 20*time.Millisecond))
		t.begin(t.step + 1)
	}
}

// finish makes the last report.
func (t *simAttempt) finish(cause job.Cause, decisive int) {
	w := t.agent.w
	t.over = true
	t.final = &Report{Ref: t.assignment.Ref, Steps: t.steps, Ended: w.now, Cause: cause, Step: decisive, Silent: w.chance(0.5)}
	w.audit.ended(t.run, cause)
	t.hasNews(w.between(0, 20*time.Millisecond))
}

func (t *simAttempt) report() Report {
	if t.final != nil {
		return *t.final
	}
	return Report{Ref: t.assignment.Ref, Steps: slices.Clone(t.steps)}
}

// hasNews puts the attempt in line for a report.
func (t *simAttempt) hasNews(in time.Duration) {
	if t.inLine {
		return
	}
	t.inLine = true
	t.agent.news = append(t.agent.news, t)
	if len(t.agent.news) == 1 {
		t.agent.later(in, t.agent.collect)
	}
}

// stop ends the attempt. The first reason counts; force may be added later.
func (t *simAttempt) stop(force bool, cause job.Cause) {
	if t.over {
		return
	}
	if t.verdict == nil {
		t.verdict = &cause
	}
	if t.process != nil {
		t.process.stop(t, force)
	}
}

// stopStep ends one step, if it is the one that runs.
func (t *simAttempt) stopStep(step int, force bool) {
	if t.over || t.step != step || t.process == nil {
		return
	}
	if t.stepStop == nil {
		t.stepStop = &job.Cause{Kind: job.CauseCanceled, Message: "canceled on request"}
	}
	t.process.stop(t, force)
}

// stop kills the process, at once or after its grace.
func (p *simProcess) stop(t *simAttempt, force bool) {
	if p.stopped && (p.forced || !force) {
		return
	}
	p.stopped, p.forced = true, force
	grace := 2 * time.Second
	if force {
		grace = 200 * time.Millisecond
	}
	w := t.agent.w
	w.after(w.between(time.Millisecond, grace), func() { t.exit(p, job.Cause{Kind: job.CauseSignal, Signal: "SIGKILL"}) })
}

// kill ends the process with its agent: nobody reports it.
func (t *simAttempt) kill() {
	if t.process != nil {
		t.process.over = true
	}
	if t.run != nil && !t.over {
		t.run.doomed = true
		t.agent.w.audit.ended(t.run, job.Cause{Kind: job.CauseWorkerLost})
	}
}

// forget ends an attempt that the server does not know, and drops its reports.
func (t *simAttempt) forget() {
	a := t.agent
	t.unknown = true
	if t.run != nil {
		t.run.doomed = true
	}
	t.stop(true, job.Cause{Kind: job.CauseWorkerLost, Message: "the server does not know the attempt"})
	a.reports = append(a.reports[:a.sent], slices.DeleteFunc(a.reports[a.sent:], func(r simReport) bool { return r.attempt == t })...)
	var wait func()
	wait = func() {
		if !t.over {
			a.later(100*time.Millisecond, wait)
			return
		}
		a.reports = append(a.reports[:a.sent], slices.DeleteFunc(a.reports[a.sent:], func(r simReport) bool { return r.attempt == t })...)
		a.remove(t)
	}
	a.later(0, wait)
}
