package orchestrator

import (
	"errors"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// auditor keeps books of its own: what was acknowledged, committed, handed out and run. It does not ask the server how
// things stand but compares what the server does with what the books allow, and looks at once, so that a failure is
// found where it happens.
type auditor struct {
	w        *simWorld
	jobs     map[job.ID]*auditJob
	ids      []job.ID // in the order of their making
	epoch    uint64   // the highest that was given out by the commits so far
	highest  uint64   // as epoch, with the commit under way
	drained  map[job.WorkerID]bool
	undrains map[job.WorkerID]int // how often somebody has asked for the end of a drain
	requests map[string][]job.ID  // what acknowledged submissions made
	workers  map[job.WorkerID]*simAgent

	// Of the turn under way.
	turn      int
	accepted  int
	written   map[job.ID]bool
	granted   map[job.AttemptRef]job.WorkerID // committed, and not yet sent
	grants    int
	canceling map[job.AttemptRef]bool // committed, and not yet ordered
	ordered   map[simCancel]bool
	scheduled int
	submitted int
	endings   int // that were committed, less those that were counted
}

type simCancel struct {
	ref  job.AttemptRef
	step int
}

// auditJob is what the books say of a job.
type auditJob struct {
	job         job.Job // as it was committed last
	before      job.Job // as it was before the turn that wrote it last
	turn        int     // that wrote it last
	granted     time.Time
	runs        []*simRun
	starts      int
	canceled    bool // somebody has asked for its end
	cancelKnown bool // and was told that it will come
	stepCancel  bool // somebody has asked for the end of a step
	known       bool // somebody was told that it was accepted
	aside       bool // its record cannot be decoded
}

// simRun is an attempt as it really ran.
type simRun struct {
	job    *auditJob
	ref    job.AttemptRef
	agent  *simAgent
	active bool // a process of it runs
	over   bool
	doomed bool // its agent ended it for a good reason, without being told to
	cause  job.Cause
	ended  time.Time
	stale  time.Time // since when the server has moved on; zero when it has not
}

func newAuditor(w *simWorld) *auditor {
	return &auditor{
		w: w, jobs: make(map[job.ID]*auditJob), drained: make(map[job.WorkerID]bool),
		undrains: make(map[job.WorkerID]int), requests: make(map[string][]job.ID),
		workers: make(map[job.WorkerID]*simAgent),
	}
}

func (a *auditor) beforeTurn() {
	a.turn++
	a.accepted, a.grants, a.scheduled, a.submitted, a.endings = 0, 0, 0, 0, 0
	a.written = make(map[job.ID]bool)
	a.granted = make(map[job.AttemptRef]job.WorkerID)
	a.canceling, a.ordered = make(map[job.AttemptRef]bool), make(map[simCancel]bool)
}

func (a *auditor) recovering() {
	a.beforeTurn()
	for _, aj := range a.jobs {
		aj.aside = false
	}
}

func (a *auditor) quarantined(id job.ID) {
	if aj := a.jobs[id]; aj != nil {
		aj.aside = true
		a.w.note("%s is set aside", id)
	}
}

// committed checks a batch that was written against what was there before.
func (a *auditor) committed(b *store.Batch) {
	for _, j := range b.Accepted {
		if a.jobs[j.ID] != nil {
			a.w.fail("%s was accepted twice", j.ID)
			return
		}
		a.accepted++
		aj := &auditJob{job: job.Job{ID: j.ID, Spec: j.Spec, State: job.Queued}}
		if !j.Spec.RunAfter.IsZero() {
			aj.job.State, aj.job.NextAttempt = job.Delayed, j.Spec.RunAfter
		}
		a.jobs[j.ID] = aj
		a.ids = append(a.ids, j.ID)
		a.changed(aj, j)
	}
	for _, j := range b.Changed {
		aj := a.jobs[j.ID]
		if aj == nil {
			a.w.fail("%s was changed and never accepted", j.ID)
			return
		}
		a.changed(aj, j)
	}
	a.epoch = a.highest
	for _, r := range b.Requests {
		a.w.note("request %s is remembered until %v", r.ID, r.Expires.Sub(simStart))
	}
}

// changed checks one step of a job's history and writes it into the books.
func (a *auditor) changed(aj *auditJob, j *job.Job) {
	w, before := a.w, aj.job
	w.note("%s %s -> %s attempt %d", refText(j.Ref()), before.State, j.State, j.Attempt)
	switch {
	case a.written[j.ID]:
		w.fail("%s was written twice in one commit", j.ID)
	case before.State.Terminal():
		w.fail("%s had ended as %s and became %s", j.ID, before.State, j.State)
	case j.Revision <= before.Revision:
		w.fail("%s went from revision %d to %d", j.ID, before.Revision, j.Revision)
	case j.Attempt == before.Attempt && (j.Epoch != before.Epoch || j.Worker != before.Worker):
		w.fail("%s changed its epoch or worker within attempt %d", j.ID, j.Attempt)
	case j.Attempt == before.Attempt && !maySee(before.State, j.State):
		w.fail("%s was %s and became %s", j.ID, before.State, j.State)
	case j.Attempt == before.Attempt+1:
		a.checkGrant(aj, j)
	case j.Attempt != before.Attempt:
		w.fail("%s went from attempt %d to %d", j.ID, before.Attempt, j.Attempt)
	}
	if before.State.OnWorker() && (!j.State.OnWorker() || j.Attempt != before.Attempt) {
		a.checkEnd(aj, j)
	}
	if j.State == job.Canceling && before.State != job.Canceling {
		a.canceling[j.Ref()] = true
	}
	if j.State.Terminal() {
		a.endings++
	}
	if j.State == job.Canceled && !aj.canceled {
		w.fail("%s was canceled and nobody had asked for it", j.ID)
	}
	a.written[j.ID] = true
	aj.before, aj.turn, aj.job = before, a.turn, *j
	aj.job.Steps = slices.Clone(j.Steps)
}

// maySee says which states may follow each other in the store without a new attempt. Between two commits a job may take
// more than one step.
func maySee(from, to job.State) bool {
	switch from {
	case job.Delayed, job.Queued:
		return to == from || to == job.Queued || to == job.Canceled
	case job.Assigned, job.Running:
		return to == job.Running || to == from || to == job.Canceling || to == job.Delayed || to.Terminal() && to != job.Skipped
	case job.Canceling:
		return to == job.Canceling || to.Terminal() && to != job.Skipped
	}
	return false
}

// checkGrant checks a new attempt.
func (a *auditor) checkGrant(aj *auditJob, j *job.Job) {
	w, before := a.w, aj.job
	agent := a.workers[j.Worker]
	switch {
	case j.State != job.Assigned || !before.State.Waiting():
		w.fail("%s was %s and got attempt %d as %s", j.ID, before.State, j.Attempt, j.State)
	case j.Attempt > j.Spec.MaxAttempts:
		w.fail("%s got attempt %d of %d", j.ID, j.Attempt, j.Spec.MaxAttempts)
	case j.Epoch <= a.epoch || a.granted[j.Ref()] != "":
		w.fail("%s got epoch %d, and %d was given out before", j.ID, j.Epoch, a.epoch)
	case before.State == job.Delayed && before.NextAttempt.After(w.now):
		w.fail("%s got an attempt %v before its time", j.ID, before.NextAttempt.Sub(w.now))
	case aj.cancelKnown:
		w.fail("%s got an attempt after its cancel was acknowledged", j.ID)
	case agent == nil:
		w.fail("%s was given to %s, which never was", j.ID, j.Worker)
	case a.drained[j.Worker]:
		w.fail("%s was given to %s, which drains", j.ID, j.Worker)
	case !allowed(j.Spec, &agent.worker):
		w.fail("%s was given to %s, which does not meet its constraints", j.ID, j.Worker)
	}
	a.highest = max(a.highest, j.Epoch)
	aj.granted = w.now
	a.granted[j.Ref()] = j.Worker
	a.grants++
}

func allowed(spec *job.Spec, w *job.Worker) bool {
	return !slices.ContainsFunc(spec.Constraints, func(c job.Constraint) bool { return !c.Holds(w.Labels) })
}

// checkEnd checks that the end of an attempt has the cause that the server says, and that a job does not end while it may
// be tried again.
func (a *auditor) checkEnd(aj *auditJob, j *job.Job) {
	w, before := a.w, aj.job
	run := a.run(aj, before.Ref(), before.Worker)
	really := run != nil && run.over
	for _, r := range aj.runs {
		r.stale = w.now
	}
	wanted := before.State == job.Canceling || aj.canceled
	switch {
	case j.State == job.Delayed || j.State == job.Lost:
		failed := really && run.cause.Kind != job.CauseWorkerLost && (run.cause.Kind != job.CauseExitCode || run.cause.ExitCode != 0)
		if (!failed || j.State != job.Delayed) && !a.mayBeLost(run, before.Worker) {
			w.fail("%s counts as lost (%s) though nothing has happened to %s", j.ID, j.Cause.Message, before.Worker)
		}
	case j.State == job.Canceled:
	case !really:
		w.fail("%s became %s though its attempt has not ended", j.ID, j.State)
	case run.cause.Kind != j.Cause.Kind || run.cause.ExitCode != j.Cause.ExitCode:
		w.fail("%s became %s for %s %d, and its attempt ended for %s %d",
			j.ID, j.State, j.Cause.Kind, j.Cause.ExitCode, run.cause.Kind, run.cause.ExitCode)
	}
	if j.State.Terminal() && j.State != job.Succeeded && j.State != job.Canceled && !wanted && j.Attempt < j.Spec.MaxAttempts {
		w.fail("%s ended as %s after attempt %d of %d", j.ID, j.State, j.Attempt, j.Spec.MaxAttempts)
	}
	if j.State == job.Delayed {
		a.checkBackoff(j, run, before.Worker)
	}
}

// checkBackoff checks when the next attempt may start: after the end that the agent reported, or after now.
func (a *auditor) checkBackoff(j *job.Job, run *simRun, worker job.WorkerID) {
	delay := j.Spec.Backoff.Initial
	for range j.Attempt - 1 {
		delay *= 2
	}
	delay = min(delay, j.Spec.Backoff.Max)
	if j.NextAttempt.Equal(a.w.now.Add(delay)) || run != nil && run.over && j.NextAttempt.Equal(run.ended.Add(delay)) {
		return
	}
	if a.mayBeLost(run, worker) && !j.NextAttempt.After(a.w.now.Add(delay)) {
		return // the next life of the agent reported it, with a time of its own
	}
	a.w.fail("%s may be tried again at %v, which is not %v after its end", j.ID, j.NextAttempt.Sub(simStart), delay)
}

// mayBeLost says whether anything has happened that can cost a worker an attempt.
func (a *auditor) mayBeLost(run *simRun, worker job.WorkerID) bool {
	agent := a.workers[worker]
	return run != nil && run.doomed || agent == nil || agent.gone || !agent.up || a.w.now.Sub(agent.troubled) < 2*time.Minute
}

func (a *auditor) run(aj *auditJob, ref job.AttemptRef, worker job.WorkerID) *simRun {
	for _, r := range slices.Backward(aj.runs) {
		if r.ref == ref && r.agent.worker.ID == worker {
			return r
		}
	}
	return nil
}

// assigned is called when an order leaves the reactor.
func (a *auditor) assigned(worker job.WorkerID, attempts []Assignment) {
	for i := range attempts {
		as := &attempts[i]
		aj := a.jobs[as.Ref.Job]
		switch {
		case aj == nil, aj.job.Ref() != as.Ref, aj.job.State != job.Assigned:
			a.w.fail("%s was handed out before the store knew of it", refText(as.Ref))
		case aj.job.Worker != worker:
			a.w.fail("%s was handed to %s, not to %s", refText(as.Ref), worker, aj.job.Worker)
		case as.Retryable != (as.Ref.Attempt < as.Spec.MaxAttempts):
			a.w.fail("%s was handed out as retryable %v", refText(as.Ref), as.Retryable)
		}
		delete(a.granted, as.Ref)
	}
}

func (a *auditor) cancelOrdered(worker job.WorkerID, ref job.AttemptRef, step int) {
	aj := a.jobs[ref.Job]
	if aj == nil || aj.job.Ref() == ref && aj.job.Worker != worker {
		a.w.fail("the cancel of %s went to %s", refText(ref), worker)
	}
	if step < 0 {
		delete(a.canceling, ref)
	}
	a.ordered[simCancel{ref, step}] = true
}

// submitAcknowledged checks the answer to a submission. It returns true when the client should ask again.
func (a *auditor) submitAcknowledged(sub *Submission, results []Result) (again bool) {
	ids := make([]job.ID, len(results))
	for i := range results {
		r := &results[i]
		if r.Err != nil {
			again = a.refused(&sub.Specs[i], r) || again
			if first := a.requests[sub.RequestID]; job.CodeOf(r.Err) == job.CodeNotFound && first != nil {
				ids[i] = first[i]
			}
			continue
		}
		ids[i] = r.Job.ID
		aj := a.jobs[r.Job.ID]
		if aj == nil || aj.job.Spec.Name != sub.Specs[i].Name {
			a.w.fail("%s was acknowledged and is not in the store", r.Job.ID)
			return false
		}
		aj.known = true
	}
	if again || sub.RequestID == "" {
		return again
	}
	if first, ok := a.requests[sub.RequestID]; ok && !slices.Equal(first, ids) && slices.ContainsFunc(first, func(id job.ID) bool { return !id.IsZero() }) {
		a.w.fail("%s gave %v first and then %v", sub.RequestID, first, ids)
	}
	a.requests[sub.RequestID] = ids
	return false
}

func isTooLarge(err error) bool {
	var problem *job.Error
	return errors.As(err, &problem) && problem.Reason == job.ReasonTooLarge
}

// refused checks why a job was not accepted. It returns true when the client should ask again.
func (a *auditor) refused(spec *job.Spec, r *Result) (again bool) {
	switch code := job.CodeOf(r.Err); {
	case code == job.CodeInternal: // the store could not be read
		return true
	case isTooLarge(r.Err):
		for _, agent := range a.workers {
			if agent.met && agent.worker.Capacity.Covers(spec.Resources) {
				a.w.fail("%s was refused, and %s is large enough for it: %v", spec.Name, agent.worker.ID, r.Err)
			}
		}
	case code == job.CodeInvalid && len(spec.Steps[0].Argv) == 0,
		code == job.CodeExhausted && a.w.maxUnfinished < 1000,
		code == job.CodeExhausted && len(spec.Resources.Extras) > 0, // it was too large when it was asked for first
		code == job.CodeNotFound && a.w.faults.poison > 0:           // it was set aside
	default:
		a.w.fail("%s was refused: %v", spec.Name, r.Err)
	}
	return false
}

// reportAcknowledged checks that what an agent may now forget is in the store.
func (a *auditor) reportAcknowledged(worker job.WorkerID, reports []Report) {
	for i := range reports {
		r := &reports[i]
		aj := a.jobs[r.Ref.Job]
		if aj == nil || aj.aside || aj.job.Ref() != r.Ref || aj.job.Worker != worker || !aj.job.State.OnWorker() {
			continue
		}
		if !r.Ended.IsZero() {
			a.w.fail("the end of %s was acknowledged, and the store does not know it", refText(r.Ref))
		}
		for _, step := range r.Steps {
			if s := aj.job.Steps[step.Step].State; s == job.StepPending || !step.Ended.IsZero() && !s.Terminal() {
				a.w.fail("a report about step %d of %s was acknowledged, and the store does not know it", step.Step, refText(r.Ref))
			}
		}
	}
}

func (a *auditor) cancelAsked(id job.ID, step string) {
	aj := a.jobs[id]
	aj.canceled, aj.stepCancel = aj.canceled || step == "", aj.stepCancel || step != ""
}

// cancelAnswered checks the answer to a cancel.
func (a *auditor) cancelAnswered(c *cancel) {
	aj := a.jobs[c.id]
	state := aj.job.State
	switch code := job.CodeOf(c.err); {
	case c.err == nil && c.step == "":
		if state != job.Canceling && !state.Terminal() {
			a.w.fail("the cancel of %s was acknowledged, and it is %s", c.id, state)
		}
		aj.cancelKnown = true
	case code == job.CodeNotFound && !state.Terminal() && !aj.aside:
		a.w.fail("the cancel of %s, which is %s, did not find it", c.id, state)
	}
}

// connected checks what a worker that came back was told, and that cancels which it may have missed were ordered again.
func (a *auditor) connected(worker job.WorkerID, r *simRegister, verdicts []Verdict) {
	for i, ref := range r.attempts {
		aj := a.jobs[ref.Job]
		if aj == nil || aj.aside || a.w.disk.poison[ref.Job] {
			continue
		}
		current := func(j *job.Job) bool { return j.Ref() == ref && j.Worker == worker && j.State.OnWorker() }
		now, before := current(&aj.job), aj.turn == a.turn && current(&aj.before)
		switch v := verdicts[i]; {
		case v == Keep && !now && !before:
			a.w.fail("%s shall go on though it is over", refText(ref))
		case v != Keep && now && (before || aj.turn != a.turn):
			a.w.fail("%s shall end (%d) though it is what the job is at", refText(ref), v)
		case v == Forget:
			a.w.fail("%s is to be forgotten with its log though the job is known", refText(ref))
		case v == Keep && now:
			a.checkRepeated(&aj.job)
		}
	}
}

func (a *auditor) checkRepeated(j *job.Job) {
	if j.State == job.Canceling {
		if !a.ordered[simCancel{j.Ref(), -1}] {
			a.w.fail("the cancel of %s was not ordered again", refText(j.Ref()))
		}
		return
	}
	for i := range j.Steps {
		if s := &j.Steps[i]; s.CancelRequested && !s.State.Terminal() && !a.ordered[simCancel{j.Ref(), i}] {
			a.w.fail("the cancel of step %d of %s was not ordered again", i, refText(j.Ref()))
		}
	}
}

// taken notes that an agent has taken an attempt.
func (a *auditor) taken(agent *simAgent, as Assignment) *simRun {
	aj := a.jobs[as.Ref.Job]
	run := &simRun{job: aj, ref: as.Ref, agent: agent}
	if aj.job.Ref() != as.Ref || !aj.job.State.OnWorker() {
		run.stale = a.w.now
	}
	aj.runs = append(aj.runs, run)
	return run
}

// started checks that a process may start now.
func (a *auditor) started(run *simRun, step int) {
	w, aj := a.w, run.job
	w.note("%s runs step %d of %s", run.agent.worker.ID, step, refText(run.ref))
	if step == 0 {
		aj.starts++
	}
	if aj.starts > 1 && aj.job.Spec.MaxAttempts == 1 {
		w.fail("%s may start once and was started twice", run.ref.Job)
	}
	for _, other := range aj.runs {
		if other == run {
			continue
		}
		if step == 0 && other.ref == run.ref && run.ref.Attempt == aj.job.Spec.MaxAttempts {
			w.fail("%s, the last attempt, was started twice", refText(run.ref))
		}
		// An agent that stands still cannot end anything: what it did not end counts for nothing, but it runs.
		if other.active && w.now.Sub(other.agent.wasPaused) > 2*time.Minute && w.now.Sub(run.agent.wasPaused) > 2*time.Minute {
			w.fail("%s starts on %s while %s runs on %s", refText(run.ref), run.agent.worker.ID, refText(other.ref), other.agent.worker.ID)
		}
	}
	run.active = true
}

func (a *auditor) ended(run *simRun, cause job.Cause) {
	run.active, run.over, run.cause, run.ended = false, true, cause, a.w.now
	a.w.note("%s has ended %s: %s %d", run.agent.worker.ID, refText(run.ref), cause.Kind, cause.ExitCode)
}

// The auditor is the server's Metrics: what it counts must be what it does.

// JobsSubmitted implements Metrics.
func (a *auditor) JobsSubmitted(n int) { a.submitted += n }

// JobsScheduled implements Metrics.
func (a *auditor) JobsScheduled(n int) { a.scheduled += n }

// JobsEnded implements Metrics.
func (a *auditor) JobsEnded(_, _ string, n int) { a.endings -= n }

// StaleReports implements Metrics.
func (a *auditor) StaleReports(int) {}

// MeasurementsIgnored implements Metrics.
func (a *auditor) MeasurementsIgnored(int) {}

// Commit implements Metrics.
func (a *auditor) Commit(time.Duration, int) {}
