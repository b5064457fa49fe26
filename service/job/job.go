package job

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

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
	Attempt     int32 // the current or last attempt, from 1; 0 before the first
	Cause       Cause // set when State is terminal
	Epoch       uint64
	Worker      WorkerID     // of the current or last attempt
	Steps       []StepStatus // of the current or last attempt, one for each step of the spec
	Created     time.Time
	Started     time.Time // of the current or last attempt
	Ended       time.Time
	NextAttempt time.Time // when a Delayed job may start
	Revision    int32     // grows with every change
	Silent      bool      // the last attempt has ended without having written anything: its log is empty
	Preempting  bool      // the present attempt was asked to make room for a more urgent job
	Cancel      CancelRequest
	Masked      map[string]uint64 // how often each secret was replaced in what the last attempt wrote, by name; never changed
	Waited      string            // why it waited before its last attempt, if it waited for longer than a moment
	WorkersLost int32             // how many attempts were lost with their worker
	Preemptions int32             // how many attempts had to make room; they do not count against MaxAttempts
	Held        string            // why the job does not start again until somebody releases it; empty: it is not held
	Progress    *Progress         // how far the last attempt has said that it is; nil: it has said nothing; never changed
	Former      []FormerAttempt   // who had the attempts before the present one, the newest last; never changed
}

// FormerAttempt is an attempt that another one has followed, and who had it.
type FormerAttempt struct {
	Attempt int32
	Epoch   uint64
	Worker  WorkerID
}

// maxFormer is of how many former attempts it is known who had them: what a worker still has of an older one nobody waits for.
const maxFormer = 16

// CancelRequest records who asked for the end of a job.
type CancelRequest struct {
	Actor  string
	Reason string
	Force  bool
}

// explain adds why to a message that says that a job was canceled.
func (r *CancelRequest) explain(message string) string {
	if r.Reason == "" {
		return message
	}
	return cmp.Or(message, "canceled") + ": " + r.Reason
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
	return Accepted(id, normal, now)
}

// Accepted returns the job of a spec that New has accepted before, as it was then.
func Accepted(id ID, spec *Spec, now time.Time) (Job, error) {
	if len(spec.Steps) == 0 || len(spec.Steps) > MaxSteps {
		return Job{}, invalid("job %s has %d steps", id, len(spec.Steps))
	}
	j := Job{ID: id, Spec: spec, State: Queued, Created: now, Revision: 1, Steps: PendingSteps(len(spec.Steps))}
	if spec.RunAfter.After(now) {
		j.State, j.NextAttempt = Delayed, spec.RunAfter
	}
	return j, nil
}

// allPending is shared by all jobs whose steps have not begun; transitions never write into what they share.
var allPending = func() (steps [MaxSteps]StepStatus) {
	for i := range steps {
		steps[i].State = StepPending
	}
	return steps
}()

// PendingSteps returns the status of n steps that have not begun, at most MaxSteps. It is shared and must not be written to.
func PendingSteps(n int) []StepStatus { return allPending[:n:n] }

// Ref returns the fencing token of the current attempt.
func (j *Job) Ref() AttemptRef { return AttemptRef{Job: j.ID, Attempt: j.Attempt, Epoch: j.Epoch} }

// Had reports whether this attempt is, or was, that worker's.
func (j *Job) Had(w WorkerID, ref AttemptRef) bool {
	return ref == j.Ref() && w == j.Worker || ref.Job == j.ID && slices.Contains(j.Former, FormerAttempt{ref.Attempt, ref.Epoch, w})
}

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
	if j.Attempt > 0 {
		older := j.Former[max(len(j.Former)-maxFormer+1, 0):]
		j.Former = append(slices.Clip(older), FormerAttempt{j.Attempt, j.Epoch, j.Worker})
	}
	j.Attempt++
	j.Epoch = epoch
	j.Worker = w
	j.Started, j.Ended, j.Silent, j.Masked, j.Preempting, j.Progress = time.Time{}, time.Time{}, false, nil, false, nil
	j.Steps = PendingSteps(len(j.Spec.Steps))
	return j, nil
}

// Progress is what a job says of how far it is.
type Progress struct {
	Permille int32 // of its work is done, from 0 to 1000
	Message  string
}

// maxProgressBytes bounds the message; the rest of a longer one is cut off.
const maxProgressBytes = 256

// ProgressReported records how far the attempt is. What is known already changes nothing.
func (j Job) ProgressReported(p Progress) Job {
	p.Permille = min(max(p.Permille, 0), 1000)
	if len(p.Message) > maxProgressBytes {
		p.Message = strings.ToValidUTF8(p.Message[:maxProgressBytes], "")
	}
	if j.Progress == nil || *j.Progress != p {
		j.Progress = &p
		j.Revision++
	}
	return j
}

// StepReport is what became of a step since the last report about it.
type StepReport struct {
	Step    int       // index
	Started time.Time // when its process was started; zero when this report does not say
	Ended   time.Time // when nothing of it ran any more; zero while it runs
	State   StepState // its terminal state, when it has ended
	Cause   Cause     // why, when it has ended
	Usage   Usage
}

// StepsReported records what became of steps; the first one that starts makes the job Running. What is known already
// changes nothing: when all of it is, the job is returned as it is.
func (j Job) StepsReported(reports []StepReport) (Job, error) {
	if !j.State.OnWorker() {
		return j, Errorf(CodePrecondition, ReasonJobEnded, "job %s is %s; its steps cannot change", j.ID, j.State)
	}
	steps := j.Steps
	for i := range reports {
		r := &reports[i]
		if r.Step < 0 || r.Step >= len(j.Steps) {
			return j, invalid("job %s has %d steps; a report names step %d", j.ID, len(j.Steps), r.Step)
		}
		if !r.tellsNews(&steps[r.Step]) {
			continue
		}
		if &steps[0] == &j.Steps[0] {
			steps = slices.Clone(j.Steps)
		}
		j.applyStep(&steps[r.Step], r)
	}
	if len(steps) > 0 && &steps[0] != &j.Steps[0] {
		j.Steps = steps
		j.Revision++
	}
	return j, nil
}

func (r *StepReport) tellsNews(s *StepStatus) bool {
	return !r.Started.IsZero() && s.State == StepPending || !r.Ended.IsZero() && !s.State.Terminal()
}

func (j *Job) applyStep(s *StepStatus, r *StepReport) {
	if !r.Started.IsZero() && s.State == StepPending {
		s.State, s.Started = StepRunning, r.Started
		if j.State == Assigned {
			j.State = Running
		}
		if j.Started.IsZero() {
			j.Started = r.Started
		}
	}
	if !r.Ended.IsZero() {
		s.State, s.Cause, s.Usage, s.Ended = r.State, r.Cause, r.Usage, r.Ended
	}
}

// StepStarted records that a step's process runs.
func (j Job) StepStarted(step int, now time.Time) (Job, error) {
	return j.StepsReported([]StepReport{{Step: step, Started: now}})
}

// StepFinished records that nothing of a step runs any more.
func (j Job) StepFinished(step int, cause Cause, state StepState, usage Usage, now time.Time) (Job, error) {
	return j.StepsReported([]StepReport{{Step: step, Ended: now, State: state, Cause: cause, Usage: usage}})
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
	switch {
	case j.State == Canceling && cause.Kind == CauseWorkerLost:
		cause.Kind = CauseCanceled // the end that was asked for came about, if not in the way it was meant
	case cause.Kind == CauseCanceled:
		cause.Message = j.Cancel.explain(cause.Message)
	}
	if cause.Kind == CauseCanceled && j.Preempting && j.State != Canceling {
		j = j.closeSteps(now).stepsPreempted()
		j.Preemptions++
		return j.delay(now, 0)
	}
	if cause.Kind == CauseCanceled {
		cause.Actor = j.Cancel.Actor
	}
	j = j.closeSteps(now)
	if cause.Kind == CauseWorkerLost {
		j.WorkersLost++
	}
	if j.retries(cause) && cause.Kind == CauseWorkerLost && j.WorkersLost >= maxWorkersLost {
		j.Held = fmt.Sprintf("%d workers were lost while they ran it; `hodei job release %s` lets it start again", j.WorkersLost, j.ID)
		return j.delay(now, heldFor)
	}
	if j.retries(cause) {
		return j.delay(now, j.Spec.Backoff.Delay(j.Attempt-j.Preemptions))
	}
	return j.end(cause, now)
}

const (
	maxWorkersLost = 3                          // then the job may be why
	heldFor        = 100 * 365 * 24 * time.Hour // until somebody releases it
)

// Release lets a held job start again.
func (j Job) Release(now time.Time) (Job, error) {
	if j.Held == "" || j.State != Delayed {
		return j, Errorf(CodePrecondition, ReasonInvalidArgument, "job %s is %s and not held", j.ID, j.State)
	}
	j.Held, j.WorkersLost, j.NextAttempt = "", 0, now
	j.Revision++
	return j, nil
}

// Retryable reports whether another attempt may follow the present one if that is lost.
func (j *Job) Retryable() bool { return j.Attempt-j.Preemptions < j.Spec.MaxAttempts }

// Preempt asks the present attempt to make room for a more urgent job: when it has been stopped, the job waits for its next one.
// A job that may be started only once is never asked.
func (j Job) Preempt() (Job, error) {
	switch {
	case j.State != Assigned && j.State != Running:
		return j, Errorf(CodePrecondition, ReasonJobEnded, "job %s is %s and holds no place", j.ID, j.State)
	case j.Spec.MaxAttempts <= 1:
		return j, Errorf(CodePrecondition, ReasonInvalidArgument, "job %s may be started only once, so it cannot make room", j.ID)
	}
	if !j.Preempting {
		j.Preempting = true
		j.Revision++
	}
	return j, nil
}

// retries reports whether another attempt follows an attempt that ended for this cause.
func (j *Job) retries(cause Cause) bool {
	end := cause.state()
	return j.State != Canceling && j.Retryable() && end != Succeeded && end != Canceled
}

func (j Job) delay(now time.Time, wait time.Duration) (Job, error) {
	j, err := j.to(Delayed)
	if err == nil {
		j.NextAttempt, j.Preempting = now.Add(wait), false
	}
	return j, err
}

func (j Job) end(cause Cause, now time.Time) (Job, error) {
	j, err := j.to(cause.state())
	if err == nil {
		j.Cause, j.Ended, j.NextAttempt, j.Preempting, j.Held = cause, now, time.Time{}, false, ""
	}
	return j, err
}

// stepsPreempted says of the steps that were stopped that it was to make room.
func (j Job) stepsPreempted() Job {
	j.Steps = slices.Clone(j.Steps)
	for i := range j.Steps {
		if c := &j.Steps[i].Cause; c.Kind == CauseCanceled {
			c.Kind, c.Message = CausePreempted, "stopped to make room for a more urgent job"
		}
	}
	return j
}

// closeSteps marks what did not run, or was cut off, so that no step of an ended attempt looks alive.
func (j Job) closeSteps(now time.Time) Job {
	if !slices.ContainsFunc(j.Steps, func(s StepStatus) bool { return !s.State.Terminal() }) {
		return j
	}
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
		message := request.explain("canceled before it started")
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
