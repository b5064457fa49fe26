package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
	"github.com/hodei-jobs/hodei/service/store"
)

// state is all that the reactor knows. Only the reactor touches it.
//
// Jobs on workers are in memory. Of those that wait, memory has the id and what the scheduler asks for; they themselves are
// in the store, but for as many as are likely to be needed soon.
type state struct {
	jobs    map[job.ID]*entry
	sched   *scheduler.Scheduler // knows the queued jobs, and who holds which place
	delayed timers               // delayed jobs
	workers map[job.WorkerID]*worker
	counts  [job.Skipped + 1]int // of jobs by state
	kept    int                  // bytes of waiting jobs in memory

	drained map[job.WorkerID]bool // by an operator; kept over restarts
	set     settings              // the same
	trail   chain.Chain           // the end of the audit trail

	store         Store
	logger        *slog.Logger
	newJobID      func(after job.ID) job.ID
	newest        job.ID // the largest id
	admit         func() error
	lease         time.Duration
	maxUnfinished int
	now           time.Time // of the turn under way
	looked        time.Time // when leases were looked at last
	hearing       time.Time // since when workers can be heard; leases run out no earlier than if they had begun then
	term, epoch   uint64    // epoch is the last one that was given out; its upper half is the term

	// What the batch under way does. Emptied by collect and release.
	dirty      []*entry
	newRequest map[string]store.Request
	ends       []store.LogEnd
	records    []store.Record
	entries    []chain.Entry // for the audit trail
	missed     []missed
	ordering   []*worker // that have orders
	cancels    []cancelOrder
	submitted  int
	stale      int
	endings    map[ending]int
	unsettled  bool      // something changed that may let a waiting job start
	wake       time.Time // when the scheduler wants to be asked although nothing changes; zero: it does not
}

// entry is a job in memory.
type entry struct {
	job   job.Job
	isNew bool               // not written yet, so its spec goes with it
	dirty bool               // changed by the batch under way
	kept  int                // how many bytes it counts for while it waits
	index int                // among the entries of its worker
	place *scheduler.Running // nil: it holds none
}

// worker is a worker with the jobs that it has.
type worker struct {
	job.Worker
	entries []*entry
	orders  []Assignment // that go out after the commit
	kept    string       // what was written about it, see keepWorker
	open    bool         // its session lasts, as far as is known; also while it counts as lost
}

// cancelOrder is a cancel that goes out after the commit.
type cancelOrder struct {
	worker job.WorkerID
	ref    job.AttemptRef
	step   int // -1: the whole attempt
	force  bool
}

// ending is a way for jobs to end, for counting.
type ending struct {
	state job.State
	cause job.CauseKind
}

// keepBytes bounds the waiting jobs that stay in memory: enough for what is placed next, and no more.
const keepBytes = 12 << 20

func newState(config Config) *state {
	if config.Admit == nil {
		config.Admit = func() error { return nil }
	}
	return &state{
		jobs: make(map[job.ID]*entry), sched: scheduler.New(config.Scheduling), workers: make(map[job.WorkerID]*worker),
		drained: make(map[job.WorkerID]bool), set: settings{make(map[queueName]bool), make(map[string]job.Namespace)},
		newRequest: make(map[string]store.Request), endings: make(map[ending]int),
		store: config.Store, logger: config.Logger,
		newJobID: config.NewJobID, admit: config.Admit, lease: config.Lease, maxUnfinished: config.MaxUnfinished,
	}
}

// unfinished is how many jobs have not ended.
func (s *state) unfinished() int {
	n := 0
	for st := job.Blocked; !st.Terminal(); st++ {
		n += s.counts[st]
	}
	return n
}

// add takes a new job in.
func (s *state) add(j job.Job) *entry {
	e := &entry{job: j, isNew: true}
	s.jobs[j.ID] = e
	s.counts[j.State]++
	s.submitted++
	s.touch(e)
	s.entered(e)
	return e
}

// find returns an unfinished job, from memory or from the store; CodeNotFound when there is none. One that ends in the batch
// under way is still found.
func (s *state) find(id job.ID) (*entry, error) {
	if e := s.jobs[id]; e != nil {
		return e, nil
	}
	j, err := s.store.Job(context.Background(), id)
	switch {
	case err != nil:
		return nil, err
	case j.State.Terminal():
		return nil, job.NotFound(id.String())
	}
	return s.bring(j), nil
}

// bring takes a waiting job from the store into memory.
func (s *state) bring(j job.Job) *entry {
	e := &entry{job: j}
	s.jobs[j.ID] = e
	return e
}

// letGo forgets a job that came from the store only to be looked at.
func (s *state) letGo(e *entry) {
	if !e.dirty && e.kept == 0 && !e.job.State.OnWorker() {
		delete(s.jobs, e.job.ID)
	}
}

// touch notes that an entry is to be written.
func (s *state) touch(e *entry) {
	if !e.dirty {
		e.dirty = true
		s.dirty = append(s.dirty, e)
	}
}

// put replaces a job by what a transition made of it, and keeps places, timers and counts in step.
func (s *state) put(e *entry, j job.Job) {
	if e.job.Revision == j.Revision {
		return
	}
	before := e.job.State
	if before.OnWorker() && !j.State.OnWorker() {
		s.leave(e)
	}
	if before == job.Queued && e.place == nil {
		s.sched.Remove(j.ID, j.Spec, j.Attempt > 0)
	}
	e.job = j
	s.touch(e)
	if before == j.State {
		return
	}
	s.counts[before]--
	s.counts[j.State]++
	s.entered(e)
}

// entered does what a job's arrival in its state calls for.
func (s *state) entered(e *entry) {
	j := &e.job
	switch {
	case j.State == job.Queued:
		s.sched.Add(j.ID, j.Spec, j.Attempt > 0)
		s.unsettled = true
	case j.State == job.Delayed:
		s.delayed.push(j.NextAttempt, j.ID)
	case j.State.Terminal():
		s.endings[ending{j.State, j.Cause.Kind}]++
	}
}

// join gives a job its place on a worker.
func (w *worker) join(e *entry) {
	e.index = len(w.entries)
	w.entries = append(w.entries, e)
}

// leave frees the place of a job on its worker.
func (s *state) leave(e *entry) {
	w := s.workers[e.job.Worker]
	s.sched.End(e.place)
	e.place = nil
	last := len(w.entries) - 1
	w.entries[e.index] = w.entries[last]
	w.entries[e.index].index = e.index
	w.entries[last] = nil
	w.entries = w.entries[:last]
	s.unsettled = true
}

// tick makes jobs ready whose time has come.
func (s *state) tick(now time.Time) error {
	due := s.delayed.due(now)
	if err := s.fetch(due); err != nil {
		return err
	}
	for _, id := range due {
		e := s.jobs[id]
		if e == nil {
			continue // it cannot be read
		}
		if e.job.State == job.Delayed && !e.job.NextAttempt.After(now) { // else delayed anew
			if ready, err := e.job.Ready(); err == nil {
				s.put(e, ready)
			}
		}
		s.letGo(e)
	}
	return nil
}

// nextTimer returns how long the reactor may sleep when no command comes.
func (s *state) nextTimer(now time.Time) time.Duration {
	wait := time.Hour
	if len(s.workers) > 0 {
		wait = leaseCheck
	}
	if at, ok := s.delayed.next(); ok {
		wait = min(wait, max(at.Sub(now), 0))
	}
	if !s.wake.IsZero() {
		wait = min(wait, max(s.wake.Sub(now), 0))
	}
	if s.unsettled {
		return 0
	}
	return wait
}

// place asks the scheduler, when something changed that it should look at, and does what it decided. It returns how many jobs were
// assigned.
func (s *state) place() (scheduled int, err error) {
	if !s.unsettled && (s.wake.IsZero() || s.wake.After(s.now)) {
		return 0, nil
	}
	plan := s.sched.Place(s.now)
	s.unsettled, s.wake = plan.More, plan.Wake
	placed := make([]job.ID, len(plan.Placements))
	for i, p := range plan.Placements {
		placed[i] = p.Job
	}
	if err := s.fetch(placed); err != nil {
		return 0, err
	}
	for _, p := range plan.Placements {
		if e := s.jobs[p.Job]; e != nil && s.assign(e, s.workers[p.Worker], &p) {
			scheduled++
		} else {
			s.sched.End(p.Place)
			s.unsettled = true
		}
	}
	for _, p := range plan.Preemptions {
		s.preempt(p)
	}
	for _, id := range plan.Superseded {
		s.supersede(id)
	}
	return scheduled, nil
}

// preempt asks a job to make room.
func (s *state) preempt(p scheduler.Preemption) {
	e := s.jobs[p.Victim]
	if e == nil {
		return
	}
	if asked, err := e.job.Preempt(); err == nil {
		s.put(e, asked)
		s.cancels = append(s.cancels, cancelOrder{worker: e.job.Worker, ref: e.job.Ref(), step: -1})
	}
}

// supersede ends a job that a newer one replaces.
func (s *state) supersede(id job.ID) {
	c := cancel{id: id, request: job.CancelRequest{Actor: "scheduler", Reason: "a newer job with its concurrency key has replaced it"}}
	c.apply(s, s.now)
}

// fetch brings those of the jobs into memory that are in the store only. A job that cannot be decoded stays out; the
// server leaves it alone until it starts again and sets it aside.
func (s *state) fetch(ids []job.ID) error {
	var missing []job.ID
	for _, id := range ids {
		if s.jobs[id] == nil {
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.SortFunc(missing, job.ID.Compare)
	missing = slices.Compact(missing)
	if err := s.store.JobsByID(context.Background(), missing, func(j job.Job) { s.bring(j) }); err != nil {
		return fmt.Errorf("reading %d waiting jobs: %w", len(missing), err)
	}
	for _, id := range missing {
		if s.jobs[id] == nil {
			s.logger.Error("a waiting job cannot be read and is left alone", "job", id)
		}
	}
	return nil
}

// assign gives a job the place that the scheduler has found, and reports whether it could.
func (s *state) assign(e *entry, w *worker, p *scheduler.Placement) bool {
	s.epoch++
	assigned, err := e.job.Assign(w.ID, s.epoch)
	if err != nil {
		return false
	}
	if s.now.Sub(e.job.Created) > aMoment {
		assigned.Waited = p.Waited
	}
	e.place = p.Place
	s.put(e, assigned)
	w.join(e)
	s.order(w, &e.job)
	return true
}

// aMoment is how long a job may wait without anybody wondering why.
const aMoment = time.Second

// order hands an attempt out, after the commit.
func (s *state) order(w *worker, j *job.Job) {
	if len(w.orders) == 0 {
		s.ordering = append(s.ordering, w)
	}
	w.orders = append(w.orders, assignment(j))
}

func assignment(j *job.Job) Assignment {
	return Assignment{Ref: j.Ref(), Spec: j.Spec, Retryable: j.Retryable()}
}

// collect turns what changed into one batch for the store. The batch refers to the entries, which stay as they are until
// release.
func (s *state) collect() *store.Batch {
	batch := &store.Batch{Term: s.term, Ends: s.ends, Records: append(s.records, s.auditRecords()...), Changed: make([]*job.Job, 0, len(s.dirty))}
	for _, e := range s.dirty {
		if e.isNew {
			batch.Accepted = append(batch.Accepted, &e.job)
		} else {
			batch.Changed = append(batch.Changed, &e.job)
		}
	}
	for _, r := range s.newRequest {
		batch.Requests = append(batch.Requests, r)
	}
	return batch
}

// release is called after the commit: jobs that have ended, and waiting ones beyond what is kept, leave the memory.
func (s *state) release() {
	for _, e := range s.dirty {
		e.dirty, e.isNew = false, false
		s.kept -= e.kept
		e.kept = 0
		switch {
		case e.job.State.Terminal():
			delete(s.jobs, e.job.ID)
		case e.job.State.Waiting():
			if e.job.State != job.Queued || s.kept >= keepBytes {
				delete(s.jobs, e.job.ID)
				continue
			}
			e.kept = entryBytes + e.job.Spec.Bytes()
			s.kept += e.kept
		}
	}
	clear(s.dirty)
	s.dirty = s.dirty[:0]
	clear(s.newRequest)
	s.ends, s.records, s.entries = nil, nil, nil
}

// entryBytes is about what an entry takes without its spec.
const entryBytes = 600
