package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

// The simulation checks what must never happen. This test says beforehand what must: a model in a few lines tells the state
// of every job and place after each command, and rapid looks for the shortest history in which the reactor differs.
func TestReactorIsAsTheModelSays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		t.Repeat(map[string]func(*rapid.T){
			"":           m.compare,
			"submit":     m.submit,
			"connect":    m.connect,
			"disconnect": m.disconnect,
			"start":      m.start,
			"finish":     m.finish,
			"stale":      m.stale,
			"cancel":     m.cancel,
			"drain":      m.drain,
			"wait":       m.wait,
			"restart":    m.restart,
		})
	})
}

// modelJob is what the model knows of a job. All jobs ask for a slot and nothing else, so that places are simple.
type modelJob struct {
	id       job.ID
	state    job.State
	max      int32
	priority int32
	attempt  int32
	started  bool
	worker   job.WorkerID
	ready    time.Time // when a delayed job may be queued
	ref      job.AttemptRef
}

// modelWorker is a worker of the model.
type modelWorker struct {
	id        job.WorkerID
	slots     int
	session   uint64
	known     bool // to the server, in whichever of its lives
	connected bool
	lost      bool
	draining  bool
	heard     time.Time
}

const modelBackoff = 3 * time.Second

// model is the model with the reactor beside it.
type model struct {
	store   *memstore.Store
	o       *Orchestrator
	now     time.Time
	ids     uint64
	jobs    []*modelJob // by age
	workers []*modelWorker
	orders  map[job.AttemptRef]job.WorkerID // that the last turn let out
}

func newModel(t *rapid.T) *model {
	m := &model{store: memstore.New(), now: simStart}
	for i := range rapid.IntRange(1, 3).Draw(t, "workers") {
		m.workers = append(m.workers, &modelWorker{id: job.WorkerID(fmt.Sprintf("wkr_%d", i)), slots: rapid.IntRange(1, 3).Draw(t, "slots")})
	}
	m.open(t)
	return m
}

func (m *model) open(t *rapid.T) {
	var err error
	m.o, err = Open(context.Background(), Config{
		Store: m.store, Bus: bus.New(16), Dispatcher: m, Metrics: newAuditor(nil), Logger: slog.New(slog.DiscardHandler),
		Clock: func() time.Time { return m.now }, Lease: simLease,
		NewJobID: func(job.ID) job.ID { m.ids++; return job.NewID(m.now, 0, m.ids) },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.turn(t)
}

// Assign implements Dispatcher.
func (m *model) Assign(worker job.WorkerID, attempts []Assignment) {
	for i := range attempts {
		m.orders[attempts[i].Ref] = worker
	}
}

// Cancel implements Dispatcher.
func (m *model) Cancel(job.WorkerID, job.AttemptRef, int, bool) {}

// turn lets time run out what it runs out and the reactor do one turn. The model then follows which jobs were placed; compare
// checks that they were those that had to be.
func (m *model) turn(t *rapid.T, batch ...command) {
	m.orders = make(map[job.AttemptRef]job.WorkerID)
	if err := m.o.turn(context.Background(), batch); err != nil {
		t.Fatal(err)
	}
	for _, w := range m.workers {
		if w.known && !w.lost && m.now.Sub(w.heard) > simLease {
			w.lost, w.connected = true, false
			for _, j := range m.on(w) {
				m.end(j, job.Cause{Kind: job.CauseWorkerLost})
			}
		}
	}
	m.ripen()
	m.place(t)
}

func (m *model) ripen() {
	for _, j := range m.jobs {
		if j.state == job.Delayed && !j.ready.After(m.now) {
			j.state = job.Queued
		}
	}
}

// place checks that the orders are the most urgent jobs for which there was a place, and no others.
func (m *model) place(t *rapid.T) {
	var waiting []*modelJob
	for _, j := range m.jobs {
		if j.state == job.Queued {
			waiting = append(waiting, j)
		}
	}
	urgency := func(j *modelJob) time.Time { return j.id.Time().Add(-time.Duration(j.priority) * job.DefaultAgeing) }
	slices.SortStableFunc(waiting, func(a, b *modelJob) int { return urgency(a).Compare(urgency(b)) })
	for _, j := range waiting {
		if !slices.ContainsFunc(m.workers, m.takes) {
			return
		}
		ref, worker := m.orderOf(j)
		at := slices.IndexFunc(m.workers, func(w *modelWorker) bool { return w.id == worker })
		switch {
		case at < 0:
			t.Fatalf("%s was not placed, though a worker has room and it is next", j.id)
		case !m.takes(m.workers[at]):
			t.Fatalf("%s was given to %s, which cannot take it", j.id, worker)
		case ref.Attempt != j.attempt+1 || ref.Epoch <= j.ref.Epoch:
			t.Fatalf("%s got %+v after attempt %d", j.id, ref, j.attempt)
		}
		j.state, j.worker, j.ref, j.attempt, j.started = job.Assigned, worker, ref, ref.Attempt, false
	}
}

func (m *model) takes(w *modelWorker) bool {
	distrusted, _ := m.o.state.sched.Distrusted(w.id)
	return w.connected && !w.lost && !w.draining && len(m.on(w)) < w.slots && distrusted == ""
}

func (m *model) orderOf(j *modelJob) (job.AttemptRef, job.WorkerID) {
	for ref, worker := range m.orders {
		if ref.Job == j.id && ref.Attempt == j.attempt+1 {
			return ref, worker
		}
	}
	return job.AttemptRef{}, ""
}

// on returns the jobs that a worker has.
func (m *model) on(w *modelWorker) []*modelJob {
	var out []*modelJob
	for _, j := range m.jobs {
		if j.state.OnWorker() && j.worker == w.id {
			out = append(out, j)
		}
	}
	return out
}

// end is the end of an attempt.
func (m *model) end(j *modelJob, cause job.Cause) {
	success := cause.Kind == job.CauseExitCode && cause.ExitCode == 0
	switch {
	case success:
		j.state = job.Succeeded
	case cause.Kind == job.CauseCanceled, cause.Kind == job.CauseWorkerLost && j.state == job.Canceling:
		j.state = job.Canceled
	case j.attempt < j.max && j.state != job.Canceling:
		j.state, j.ready = job.Delayed, m.now.Add(modelBackoff)
	case cause.Kind == job.CauseWorkerLost:
		j.state = job.Lost
	default:
		j.state = job.Failed
	}
}

// compare checks that the store says what the model says.
func (m *model) compare(t *rapid.T) {
	for _, j := range m.jobs {
		got, err := m.store.Job(context.Background(), j.id)
		if err != nil || got.State != j.state || got.Attempt != j.attempt {
			t.Fatalf("%s is %s in attempt %d, %v; the model says %s in attempt %d", j.id, got.State, got.Attempt, err, j.state, j.attempt)
		}
	}
}

func (m *model) submit(t *rapid.T) {
	j := &modelJob{state: job.Queued, max: rapid.Int32Range(1, 3).Draw(t, "max attempts"), priority: rapid.Int32Range(0, 1).Draw(t, "priority")}
	spec := job.Spec{
		MaxAttempts: j.max, Priority: j.priority, Steps: []job.Step{{Argv: []string{"true"}}},
		Backoff: job.Backoff{Initial: modelBackoff, Max: modelBackoff},
	}
	if rapid.Bool().Draw(t, "later") {
		spec.RunAfter = m.now.Add(10 * time.Second)
		j.state, j.ready = job.Delayed, spec.RunAfter
	}
	c := newSubmit([]Submission{{Specs: []job.Spec{spec}}}, m.now)
	m.ids++ // as the reactor will
	j.id = job.NewID(m.now, 0, m.ids)
	m.ids--
	m.jobs = append(m.jobs, j)
	m.turn(t, c)
}

func (m *model) anyWorker(t *rapid.T) *modelWorker {
	return rapid.SampledFrom(m.workers).Draw(t, "worker")
}

// connect opens a session of an agent that has all that it had, or nothing any more.
func (m *model) connect(t *rapid.T) {
	w := m.anyWorker(t)
	empty, forgetful := rapid.Bool().Draw(t, "empty"), rapid.Bool().Draw(t, "forgetful")
	has := m.on(w)
	c := &connect{waiter: newWaiter(), forgetful: forgetful}
	w.session++
	c.worker = job.Worker{ID: w.id, Name: string(w.id), Slots: int32(w.slots), Session: w.session}
	for _, j := range has {
		if !empty {
			c.attempts = append(c.attempts, j.ref)
			continue
		}
		switch {
		case j.state == job.Assigned && (!forgetful || j.attempt < j.max): // sent again
		case j.state == job.Canceling && !j.started:
			m.end(j, job.Cause{Kind: job.CauseCanceled})
		default:
			m.end(j, job.Cause{Kind: job.CauseWorkerLost})
		}
	}
	c.verdicts = make([]Verdict, len(c.attempts))
	w.known, w.connected, w.lost, w.heard = true, true, false, m.now
	m.turn(t, c)
	for i, v := range c.verdicts {
		if v != Keep {
			t.Fatalf("the attempt %+v got the verdict %d", c.attempts[i], v)
		}
	}
	for _, j := range has {
		if _, sent := m.orders[j.ref]; sent != (empty && j.state == job.Assigned) {
			t.Fatalf("%s, which is %s, was sent again: %v", j.id, j.state, sent)
		}
	}
}

func (m *model) disconnect(t *rapid.T) {
	w := m.anyWorker(t)
	old := rapid.Bool().Draw(t, "an older session")
	session := w.session
	if old {
		session--
	} else {
		w.connected = false
	}
	m.turn(t, &disconnect{id: w.id, session: session})
}

// active draws a job that a worker has; nil when there is none.
func (m *model) active(t *rapid.T) *modelJob {
	var all []*modelJob
	for _, w := range m.workers {
		all = append(all, m.on(w)...)
	}
	if len(all) == 0 {
		return nil
	}
	return rapid.SampledFrom(all).Draw(t, "job")
}

func (m *model) start(t *rapid.T) {
	j := m.active(t)
	if j == nil {
		return
	}
	j.started = true
	if j.state == job.Assigned {
		j.state = job.Running
	}
	m.turn(t, &report{worker: j.worker, reports: []Report{{Ref: j.ref, Steps: []job.StepReport{{Started: m.now}}}}, acknowledge: func() {}})
}

func (m *model) finish(t *rapid.T) {
	j := m.active(t)
	if j == nil {
		return
	}
	cause := rapid.SampledFrom([]job.Cause{
		{Kind: job.CauseExitCode}, {Kind: job.CauseExitCode, ExitCode: 1}, {Kind: job.CauseWorkerLost}, {Kind: job.CauseSignal},
	}).Draw(t, "cause")
	end := Report{Ref: j.ref, Ended: m.now, Cause: cause, Step: -1}
	worker := j.worker
	m.end(j, cause)
	m.turn(t, &report{worker: worker, reports: []Report{end, end}, acknowledge: func() {}}) // the second is a repetition
}

// stale sends a report that is about no present attempt, or comes from the wrong worker: nothing may come of it.
func (m *model) stale(t *rapid.T) {
	if len(m.jobs) == 0 {
		return
	}
	j := rapid.SampledFrom(m.jobs).Draw(t, "job")
	r := Report{Ref: j.ref, Ended: m.now, Cause: job.Cause{Kind: job.CauseExitCode}, Step: -1}
	r.Ref.Job = j.id
	worker := j.worker
	switch {
	case !j.state.OnWorker():
	case rapid.Bool().Draw(t, "another epoch"):
		r.Ref.Epoch--
	default:
		worker = "wkr_none"
	}
	m.turn(t, &report{worker: worker, reports: []Report{r}, acknowledge: func() {}})
}

func (m *model) cancel(t *rapid.T) {
	if len(m.jobs) == 0 {
		return
	}
	j := rapid.SampledFrom(m.jobs).Draw(t, "job")
	c := &cancel{waiter: newWaiter(), id: j.id, request: job.CancelRequest{Actor: "user/a"}}
	ended := j.state.Terminal()
	m.ripen()
	switch {
	case j.state.Waiting():
		j.state = job.Canceled
	case j.state.OnWorker():
		j.state = job.Canceling
	}
	m.turn(t, c)
	if (c.err != nil) != ended {
		t.Fatalf("the cancel of a job that had ended: %v gave %v", ended, c.err)
	}
}

func (m *model) drain(t *rapid.T) {
	w := m.anyWorker(t)
	draining := rapid.Bool().Draw(t, "draining")
	c := &drain{waiter: newWaiter(), worker: string(w.id), draining: draining}
	if w.known {
		w.draining = draining
	}
	m.turn(t, c)
	if (c.err == nil) != w.known {
		t.Fatalf("the drain of a worker that is known: %v gave %v", w.known, c.err)
	}
}

// wait lets time pass as it does while the server lives, in turns, with heartbeats of those who are connected or without.
func (m *model) wait(t *rapid.T) {
	beats := rapid.Bool().Draw(t, "heartbeats")
	for range rapid.IntRange(1, 30).Draw(t, "seconds") {
		m.now = m.now.Add(leaseCheck)
		var batch []command
		for _, w := range m.workers {
			if beats && w.connected {
				w.heard = m.now
				batch = append(batch, &heartbeat{id: w.id, session: w.session})
			}
		}
		m.turn(t, batch...)
	}
}

// restart ends the server without a word. The next one knows what was committed, and gives workers with jobs a new lease.
func (m *model) restart(t *rapid.T) {
	for _, w := range m.workers {
		w.connected, w.lost, w.heard, w.session = false, false, m.now, 0
	}
	m.open(t)
}
