package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// leaseCheck is how often leases are looked at.
const leaseCheck = time.Second

// beatsPerLease is how often an agent says that it lives while its lease runs.
const beatsPerLease = 3

// showWorker is how long a lost worker is still shown.
const showWorker = 24 * time.Hour

// drainRecord is the kind of the records that keep an operator's drain over a restart of the server.
const drainRecord = "worker-drain"

// Verdict says what an agent does with an attempt that it has.
type Verdict uint8

// The verdicts.
const (
	Keep   Verdict = iota + 1 // go on
	Stop                      // end it, but send what is left of its log
	Forget                    // end it and delete everything: nobody knows it
)

// Connect takes in a worker that has just connected, with the attempts that its agent has, and returns a verdict for each.
// Attempts that the worker should have and does not know are handed out again, or ended when they had started. A forgetful
// agent is one that may have lost its memory of attempts that it had taken.
func (o *Orchestrator) Connect(ctx context.Context, w job.Worker, attempts []job.AttemptRef, forgetful bool) ([]Verdict, error) {
	c := &connect{waiter: newWaiter(), worker: w, attempts: attempts, forgetful: forgetful, verdicts: make([]Verdict, len(attempts))}
	if err := o.do(ctx, c, c.waiter); err != nil {
		return nil, err
	}
	return c.verdicts, c.err
}

type connect struct {
	*waiter
	worker    job.Worker
	attempts  []job.AttemptRef
	forgetful bool
	verdicts  []Verdict
	err       error
}

func (c *connect) apply(s *state, now time.Time) {
	fresh := c.worker
	fresh.Connected, fresh.Lost, fresh.ConnectedAt, fresh.LastHeartbeat = true, false, now, now
	fresh.Draining = fresh.Draining || s.drained[fresh.ID]
	w := s.workers[fresh.ID]
	if w == nil {
		w = new(worker)
		s.workers[fresh.ID] = w
	}
	// What an agent said on an older connection can arrive after the newer one, and two sessions overtake each other on their
	// way to here.
	// What a former life of the agent said is told by its clock, which may have been set back: so only while the newer one is
	// there.
	late := fresh.Dial < w.Dial && (fresh.BootID == w.BootID || w.open)
	if late || fresh.Session < w.Session {
		c.err = job.Errorf(job.CodePrecondition, job.ReasonUnavailable, "worker %s has connected again", fresh.ID)
		return
	}
	w.Worker, w.open = fresh, true
	s.workerChanged(w)
	s.keepWorker(w)
	has := make(map[job.AttemptRef]bool, len(c.attempts))
	for i, ref := range c.attempts {
		has[ref] = true
		c.verdicts[i] = s.verdict(w.ID, ref)
	}
	s.missed = slices.DeleteFunc(s.missed, func(m missed) bool { return m.worker == w }) // of an older session
	for _, e := range w.entries {
		if ref := e.job.Ref(); !has[ref] {
			s.missed = append(s.missed, missed{w, e, ref, c.forgetful})
		} else {
			s.repeatCancels(&e.job)
		}
	}
}

// workerChanged tells the scheduler.
func (s *state) workerChanged(w *worker) {
	s.sched.SetWorker(&w.Worker)
	s.unsettled = true
}

func (s *state) verdict(worker job.WorkerID, ref job.AttemptRef) Verdict {
	e := s.jobs[ref.Job]
	if e != nil && e.job.Ref() == ref && e.job.Worker == worker && e.job.State.OnWorker() {
		return Keep
	}
	if e == nil {
		j, err := s.store.Job(context.Background(), ref.Job)
		if job.CodeOf(err) == job.CodeNotFound {
			return Forget
		}
		if err != nil {
			return Stop
		}
		e = &entry{job: j}
	}
	if !e.job.Had(worker, ref) {
		return Forget // and so it says no more than of a job that is not there
	}
	return Stop
}

// missed is an attempt that the agent of a worker, which has connected, does not have.
type missed struct {
	worker    *worker
	entry     *entry
	ref       job.AttemptRef
	forgetful bool
}

// settleMissed deals with what agents miss, once everything is known that has been said meanwhile: an attempt that a later
// command ends must not be sent again.
func (s *state) settleMissed(now time.Time) {
	for _, m := range s.missed {
		if m.entry.job.Ref() == m.ref && m.entry.job.State.OnWorker() {
			s.missing(m.worker, m.entry, m.forgetful, now)
		}
	}
	clear(s.missed)
	s.missed = s.missed[:0]
}

// missing deals with an attempt that the agent, which is here again, does not have: it never arrived, or is gone. An agent
// that may have forgotten some cannot tell which of the two, so what may run only once must not be sent again.
func (s *state) missing(w *worker, e *entry, forgetful bool, now time.Time) {
	j := &e.job
	switch {
	case j.State == job.Assigned && (!forgetful || j.Retryable()):
		s.order(w, j)
	case j.State == job.Canceling && j.Started.IsZero():
		if ended, err := j.Finish(job.Cause{Kind: job.CauseCanceled, Message: "canceled before it started"}, now); err == nil {
			s.put(e, ended)
		}
	default:
		s.lose(e, "its agent came back without it", now)
	}
}

// repeatCancels sends again what the agent may have missed.
func (s *state) repeatCancels(j *job.Job) {
	if j.State == job.Canceling || j.Preempting {
		s.orderCancel(j, -1)
		return
	}
	for i := range j.Steps {
		if step := &j.Steps[i]; step.CancelRequested && !step.State.Terminal() {
			s.orderCancel(j, i)
		}
	}
}

func (s *state) lose(e *entry, why string, now time.Time) {
	if lost, err := e.job.Lose(fmt.Sprintf("worker %s was lost: %s", e.job.Worker, why), now); err == nil {
		s.put(e, lost)
	}
}

// Disconnect notes that a session of a worker ended. Its jobs go on until its lease runs out.
func (o *Orchestrator) Disconnect(ctx context.Context, id job.WorkerID, session uint64) error {
	return o.inbox.put(ctx, &disconnect{id: id, session: session})
}

type disconnect struct {
	noReply
	id      job.WorkerID
	session uint64
}

func (c *disconnect) apply(s *state, _ time.Time) {
	if w := s.inSession(c.id, c.session); w != nil {
		w.Connected, w.open = false, false
		s.workerChanged(w)
	}
}

// inSession returns a worker if this is its newest session, and else nil: what was said in an older one can arrive late.
func (s *state) inSession(id job.WorkerID, session uint64) *worker {
	if w := s.workers[id]; w != nil && w.Session == session {
		return w
	}
	return nil
}

// Heartbeat notes that a worker lives and what its machine does, if it says so in its newest session.
func (o *Orchestrator) Heartbeat(ctx context.Context, id job.WorkerID, session uint64, used job.Resources) error {
	return o.inbox.put(ctx, &heartbeat{id: id, session: session, used: used})
}

type heartbeat struct {
	noReply
	id      job.WorkerID
	session uint64
	used    job.Resources
}

func (c *heartbeat) apply(s *state, now time.Time) {
	w := s.inSession(c.id, c.session)
	if w == nil {
		return
	}
	w.LastHeartbeat = now
	if w.Lost && w.open { // it was held up for longer than its lease, but its session has outlived that
		w.Lost, w.Connected = false, true
		s.workerChanged(w)
	}
	if s.sched.SetLoad(c.id, c.used) {
		w.Used = c.used
	}
}

// Drain makes a worker, named by its id or name, take no new jobs, or take them again, also when it was suspended.
// It lasts over restarts of the server.
func (o *Orchestrator) Drain(ctx context.Context, idOrName string, draining bool) (job.Worker, error) {
	c := &drain{waiter: newWaiter(), worker: idOrName, draining: draining}
	if err := o.do(ctx, c, c.waiter); err != nil {
		return job.Worker{}, err
	}
	return c.result, c.err
}

type drain struct {
	*waiter
	worker   string
	draining bool
	result   job.Worker
	err      error
}

func (c *drain) apply(s *state, _ time.Time) {
	w, err := s.findWorker(c.worker)
	if err != nil {
		c.err = err
		return
	}
	w.Draining = c.draining
	s.drained[w.ID] = c.draining
	if !c.draining {
		s.sched.Trust(w.ID)
	}
	s.workerChanged(w)
	record := store.Record{Kind: drainRecord, Key: string(w.ID)}
	if c.draining {
		record.Value = []byte{1}
	}
	s.records = append(s.records, record)
	c.result = s.snapshot(w)
}

func (s *state) findWorker(idOrName string) (*worker, error) {
	if w := s.workers[job.WorkerID(idOrName)]; w != nil {
		return w, nil
	}
	for _, w := range s.workers {
		if w.Name == idOrName {
			return w, nil
		}
	}
	return nil, job.Errorf(job.CodeNotFound, job.ReasonWorkerNotFound,
		"there is no worker %q; `hodei worker list` shows those that are known", idOrName)
}

// checkLeases ends the attempts of workers that have been silent for longer than their lease, and forgets workers that have
// been lost for long. An agent counts its lease from what it heard last, which may be as much later than what was heard of
// it as lies between two heartbeats, so the server waits for that much longer.
func (s *state) checkLeases(now time.Time) {
	if now.Sub(s.looked) > leaseCheck+s.lease/beatsPerLease {
		s.hearing = now // the server was held up itself, and could not hear who is there
	}
	s.looked = now
	var lost []*worker
	for id, w := range s.workers {
		silent := now.Sub(w.LastHeartbeat)
		if w.Lost && silent > showWorker && len(w.entries) == 0 {
			s.forgetWorker(id)
		}
		if !w.Lost && min(silent, now.Sub(s.hearing)) > s.lease {
			lost = append(lost, w)
		}
	}
	slices.SortFunc(lost, func(a, b *worker) int { return cmp.Compare(a.ID, b.ID) }) // so that a replay is the same
	for _, w := range lost {
		s.loseWorker(w, now)
	}
}

// loseWorker ends the attempts of a worker. Should its session still be there, it is told.
func (s *state) loseWorker(w *worker, now time.Time) {
	w.Lost, w.Connected = true, false
	s.workerChanged(w)
	why := fmt.Sprintf("nothing was heard of it for %v", now.Sub(w.LastHeartbeat).Round(time.Second))
	for _, e := range slices.Clone(w.entries) {
		s.cancels = append(s.cancels, cancelOrder{worker: w.ID, ref: e.job.Ref(), step: -1, force: true})
		s.lose(e, why, now)
	}
}

// noReply is for commands that nobody waits for.
type noReply struct{}

func (noReply) done(error) {}

// AgentDrains notes that the agent itself wants no new jobs, because it is about to stop, or wants them again. Unlike
// Drain it ends with the agent's connection.
func (o *Orchestrator) AgentDrains(ctx context.Context, id job.WorkerID, session uint64, draining bool) error {
	return o.inbox.put(ctx, &agentDrain{id: id, session: session, draining: draining})
}

type agentDrain struct {
	noReply
	id       job.WorkerID
	session  uint64
	draining bool
}

func (c *agentDrain) apply(s *state, _ time.Time) {
	if w := s.inSession(c.id, c.session); w != nil {
		w.Draining = c.draining || s.drained[c.id]
		s.workerChanged(w)
	}
}
