package job

import (
	"slices"
	"time"
)

// ID names a job: "job_" and a ULID in lower case.
type ID string

// WorkerID names a worker: "wkr_" and a ULID in lower case.
type WorkerID string

// Job is a spec that was accepted, and what became of it.
//
// A Job is a value: transitions return a changed copy and never touch what the copies share, so a Job that was handed
// out is a snapshot that any goroutine may read.
type Job struct {
	ID          ID
	Spec        *Spec // with defaults filled in; never changes
	State       State
	Cause       Cause // set when State is terminal
	Attempt     int32 // the current or last attempt, from 1; 0 before the first
	Epoch       uint64
	Worker      WorkerID     // of the current or last attempt
	Steps       []StepStatus // of the current or last attempt, one for each step of the spec
	Created     time.Time
	Started     time.Time // of the current or last attempt
	Ended       time.Time
	NextAttempt time.Time // when a Delayed job may start
	Revision    int32     // grows with every change
	Cancel      CancelRequest
}

// CancelRequest records who asked for the end of a job.
type CancelRequest struct {
	Actor  string
	Reason string
	Force  bool
}

// AttemptRef is the fencing token of an attempt: reports about any other attempt or epoch are stale.
type AttemptRef struct {
	Job     ID
	Attempt int32
	Epoch   uint64
}

// New accepts a spec. The error, a *Error with CodeInvalid, names the field that is wrong.
func New(id ID, spec Spec, now time.Time) (Job, error) {
	normal, err := spec.normalized()
	if err != nil {
		return Job{}, err
	}
	j := Job{ID: id, Spec: normal, State: Queued, Created: now, Revision: 1, Steps: pendingSteps(len(normal.Steps))}
	if normal.RunAfter.After(now) {
		j.State, j.NextAttempt = Delayed, normal.RunAfter
	}
	return j, nil
}

func pendingSteps(n int) []StepStatus {
	steps := make([]StepStatus, n)
	for i := range steps {
		steps[i].State = StepPending
	}
	return steps
}

// Ref returns the fencing token of the current attempt.
func (j *Job) Ref() AttemptRef { return AttemptRef{Job: j.ID, Attempt: j.Attempt, Epoch: j.Epoch} }

// StepIndex returns the index of the step with this name, or an error with CodeNotFound.
func (j *Job) StepIndex(name string) (int, error) {
	i := slices.IndexFunc(j.Spec.Steps, func(s Step) bool { return s.Name == name })
	if i < 0 {
		return 0, Errorf(CodeNotFound, ReasonStepNotFound, "job %s has no step %q; `hodei job get %s` lists its steps", j.ID, name, j.ID)
	}
	return i, nil
}

// to moves a copy of the job to a state, if the law allows it.
func (j Job) to(s State) (Job, error) {
	if !j.State.MayBecome(s) {
		return j, Errorf(CodePrecondition, ReasonJobEnded, "job %s is %s and cannot become %s", j.ID, j.State, s)
	}
	j.State = s
	j.Revision++
	return j, nil
}

// Ready moves a Delayed job, whose time has come, to Queued.
func (j Job) Ready() (Job, error) {
	j, err := j.to(Queued)
	if err == nil {
		j.NextAttempt = time.Time{}
	}
	return j, err
}

// Assign gives a Queued job to a worker: a new attempt with a new epoch.
func (j Job) Assign(w WorkerID, epoch uint64) (Job, error) {
	j, err := j.to(Assigned)
	if err != nil {
		return j, err
	}
	j.Attempt++
	j.Epoch = epoch
	j.Worker = w
	j.Started, j.Ended = time.Time{}, time.Time{}
	j.Steps = pendingSteps(len(j.Spec.Steps))
	return j, nil
}

// StepStarted records that a step's process runs; the first one makes the job Running.
// A repeated or late report returns the job unchanged.
func (j Job) StepStarted(step int, now time.Time) (Job, error) {
	if err := j.checkStep(step); err != nil || j.Steps[step].State != StepPending {
		return j, err
	}
	if j.State == Assigned {
		j.State = Running
	}
	if j.Started.IsZero() {
		j.Started = now
	}
	j.Revision++
	j.Steps = slices.Clone(j.Steps)
	j.Steps[step].State, j.Steps[step].Started = StepRunning, now
	return j, nil
}

// StepFinished records that nothing of a step runs any more. A repeated report returns the job unchanged.
func (j Job) StepFinished(step int, cause Cause, state StepState, usage Usage, now time.Time) (Job, error) {
	if err := j.checkStep(step); err != nil || j.Steps[step].State.Terminal() {
		return j, err
	}
	j.Revision++
	j.Steps = slices.Clone(j.Steps)
	s := &j.Steps[step]
	s.State, s.Cause, s.Usage, s.Ended = state, cause, usage, now
	return j, nil
}

// checkStep refuses reports that no attempt of this job can give rise to.
func (j *Job) checkStep(step int) error {
	if step < 0 || step >= len(j.Steps) {
		return invalid("job %s has %d steps; a report names step %d", j.ID, len(j.Steps), step)
	}
	if !j.State.OnWorker() {
		return Errorf(CodePrecondition, ReasonJobEnded, "job %s is %s; its steps cannot change", j.ID, j.State)
	}
	return nil
}

// Finish ends the current attempt: the job becomes terminal, or waits for its next attempt when the cause is a failure,
// attempts are left and nobody asked for a cancel.
func (j Job) Finish(cause Cause, now time.Time) (Job, error) {
	if !j.State.OnWorker() {
		return j, Errorf(CodePrecondition, ReasonJobEnded, "job %s is %s and has no attempt to finish", j.ID, j.State)
	}
	if j.State == Canceling && cause.Kind == CauseWorkerLost {
		cause.Kind = CauseCanceled // the end that was asked for came about, if not in the way it was meant
	}
	if cause.Kind == CauseCanceled {
		cause.Actor = j.Cancel.Actor
	}
	j = j.closeSteps(now)
	if j.retries(cause) {
		return j.delay(now)
	}
	return j.end(cause, now)
}

// retries reports whether another attempt follows an attempt that ended for this cause.
func (j *Job) retries(cause Cause) bool {
	end := cause.state()
	return j.State != Canceling && j.Attempt < j.Spec.MaxAttempts && end != Succeeded && end != Canceled
}

func (j Job) delay(now time.Time) (Job, error) {
	j, err := j.to(Delayed)
	if err == nil {
		j.NextAttempt = now.Add(j.Spec.Backoff.Delay(j.Attempt))
	}
	return j, err
}

func (j Job) end(cause Cause, now time.Time) (Job, error) {
	j, err := j.to(cause.state())
	if err == nil {
		j.Cause, j.Ended, j.NextAttempt = cause, now, time.Time{}
	}
	return j, err
}

// closeSteps marks what did not run, or was cut off, so that no step of an ended attempt looks alive.
func (j Job) closeSteps(now time.Time) Job {
	j.Steps = slices.Clone(j.Steps)
	for i := range j.Steps {
		switch s := &j.Steps[i]; s.State {
		case StepPending:
			s.State = StepSkipped
		case StepRunning:
			s.State, s.Ended = StepFailed, now
			s.Cause = Cause{Kind: CauseWorkerLost, Message: "the end of the step was not reported"}
		}
	}
	return j
}

// RequestCancel asks for the end: a waiting job ends at once, one on a worker becomes Canceling. Asking again with force
// upgrades the request. A job that has ended gives an error with CodePrecondition.
func (j Job) RequestCancel(request CancelRequest, now time.Time) (Job, error) {
	switch {
	case j.State.Terminal():
		return j, Errorf(CodePrecondition, ReasonJobEnded, "job %s has ended already: it is %s", j.ID, j.State)
	case j.State.Waiting():
		j.Cancel = request
		message := "canceled before it started"
		if request.Reason != "" {
			message += ": " + request.Reason
		}
		return j.closeSteps(now).end(Cause{Kind: CauseCanceled, Actor: request.Actor, Message: message}, now)
	case j.State == Canceling:
		if request.Force && !j.Cancel.Force {
			j.Cancel.Force = true
			j.Revision++
		}
		return j, nil
	}
	j.Cancel = request
	return j.to(Canceling)
}

// RequestStepCancel asks for the end of one running step; the job goes on with the next one. Asking again changes nothing.
func (j Job) RequestStepCancel(step int) (Job, error) {
	if err := j.checkStep(step); err != nil {
		return j, err
	}
	if state := j.Steps[step].State; state != StepRunning {
		return j, Errorf(CodePrecondition, ReasonStepNotRunning, "step %q of job %s does not run: it is %s",
			j.Spec.Steps[step].Name, j.ID, state)
	}
	if !j.Steps[step].CancelRequested {
		j.Revision++
		j.Steps = slices.Clone(j.Steps)
		j.Steps[step].CancelRequested = true
	}
	return j, nil
}

// Lose ends the current attempt because its worker did not come back.
func (j Job) Lose(message string, now time.Time) (Job, error) {
	return j.Finish(Cause{Kind: CauseWorkerLost, Message: message}, now)
}
