package orchestrator

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

// These tests keep what the simulation has found, each as the shortest way to it.

// bench is a reactor that is driven turn by turn.
type bench struct {
	*memstore.Store

	t        *testing.T
	o        *Orchestrator
	now      time.Time
	ids      uint64
	broken   bool // reads of jobs fail
	assigned []job.AttemptRef
	canceled []job.AttemptRef
}

var errBroken = errors.New("the database is away")

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Store: memstore.New(), t: t, now: simStart}
	var err error
	b.o, err = Open(t.Context(), Config{
		Store: b, Bus: bus.New(16), Dispatcher: b, Metrics: newAuditor(nil), Logger: slog.New(slog.DiscardHandler),
		Clock: func() time.Time { return b.now }, Lease: simLease, MaxUnfinished: 5,
		NewJobID: func(job.ID) job.ID { b.ids++; return job.NewID(b.now, 0, b.ids) },
	})
	if err != nil {
		t.Fatal(err)
	}
	b.turn()
	return b
}

func (b *bench) Job(ctx context.Context, id job.ID) (job.Job, error) {
	if b.broken {
		return job.Job{}, errBroken
	}
	return b.Store.Job(ctx, id)
}

func (b *bench) JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error {
	if b.broken {
		return errBroken
	}
	return b.Store.JobsByID(ctx, ids, visit)
}

// Assign implements Dispatcher.
func (b *bench) Assign(_ job.WorkerID, attempts []Assignment) {
	for i := range attempts {
		b.assigned = append(b.assigned, attempts[i].Ref)
	}
}

// Cancel implements Dispatcher.
func (b *bench) Cancel(_ job.WorkerID, ref job.AttemptRef, _ int, _ bool) {
	b.canceled = append(b.canceled, ref)
}

func (b *bench) turn(batch ...command) {
	b.t.Helper()
	b.assigned, b.canceled = nil, nil
	if err := b.o.turn(b.t.Context(), batch); err != nil {
		b.t.Fatal(err)
	}
}

// pass lets time pass in turns, with heartbeats or in silence.
func (b *bench) pass(d time.Duration, heartbeats bool) {
	b.t.Helper()
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(leaseCheck)
		if heartbeats {
			b.turn(&heartbeat{id: "wkr_1", session: 1})
		} else {
			b.turn()
		}
	}
}

// spec makes the spec of a job that ends as soon as it is told to.
func (b *bench) spec(edit func(*job.Spec)) job.Spec {
	s := job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}
	if edit != nil {
		edit(&s)
	}
	return s
}

func (b *bench) submit(edit func(*job.Spec)) job.ID {
	b.t.Helper()
	c := newSubmit([]Submission{{Specs: []job.Spec{b.spec(edit)}}}, b.now)
	b.turn(c)
	if c.results[0].Err != nil {
		b.t.Fatal(c.results[0].Err)
	}
	return c.results[0].Job.ID
}

// connection is the opening of a session.
func connection(session, dial uint64, attempts ...job.AttemptRef) *connect {
	return &connect{
		waiter: newWaiter(), worker: job.Worker{ID: "wkr_1", Name: "one", Slots: 4, Session: session, Dial: dial, BootID: "boot"},
		attempts: attempts, verdicts: make([]Verdict, len(attempts)),
	}
}

func (b *bench) state(id job.ID) job.State {
	b.t.Helper()
	j, err := b.Store.Job(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return j.State
}

// running makes a job that runs.
func (b *bench) running() (job.ID, job.AttemptRef) {
	b.t.Helper()
	id := b.submit(nil)
	if len(b.assigned) != 1 {
		b.t.Fatalf("assigned %v", b.assigned)
	}
	ref := b.assigned[0]
	b.turn(&report{worker: "wkr_1", reports: []Report{{Ref: ref, Steps: []job.StepReport{{Started: b.now}}}}, acknowledge: func() {}})
	return id, ref
}

func TestRepeatedSubmitWhoseLastJobWasRefusedMakesNothingNew(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	invalid := b.spec(func(s *job.Spec) { s.Steps = nil })
	sub := []Submission{{Specs: []job.Spec{b.spec(nil), invalid}, RequestID: "r"}}
	first, again := newSubmit(sub, b.now), newSubmit(sub, b.now)
	b.turn(first)
	b.turn(again)
	if first.results[0].Err != nil || first.results[0].Job.ID != again.results[0].Job.ID {
		t.Errorf("the first gave %v, the second %v", first.results[0].Job.ID, again.results[0].Job.ID)
	}
}

// An agent that was paused for longer than its lease, but not for so long that its connection broke, comes back by itself.
func TestWorkerThatWasHeldUpGetsJobsAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.turn(connection(1, 1))
	id, ref := b.running()
	for b.state(id) != job.Lost {
		b.pass(leaseCheck, false)
	}
	if !slices.Contains(b.canceled, ref) {
		t.Error("the attempt that was lost goes on when the worker comes back")
	}
	b.submit(nil)
	if len(b.assigned) != 0 {
		t.Error("a lost worker got a job")
	}
	b.turn(&heartbeat{id: "wkr_1", session: 1})
	if len(b.assigned) != 1 {
		t.Error("a worker that is heard again gets no jobs")
	}
}

// The agent counts from when it sent the last heartbeat that was answered, so it is never later than the server.
func TestServerWaitsUntilTheAgentHasFencedItself(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.turn(connection(1, 1))
	id, _ := b.running()
	b.pass(simLease, false)
	if s := b.state(id); s != job.Running {
		t.Errorf("while its agent may count on its lease, the job is %s", s)
	}
	b.pass(2*leaseCheck, false)
	if s := b.state(id); s != job.Lost {
		t.Errorf("when the lease has run out, the job is %s", s)
	}
}

func TestLeasesDoNotRunOutWhileTheServerIsHeldUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.turn(connection(1, 1))
	id, _ := b.running()
	b.now = b.now.Add(time.Minute) // a disk that hangs, say
	b.turn()
	b.pass(simLease, true)
	if s := b.state(id); s != job.Running {
		t.Errorf("a job whose worker was never silent is %s", s)
	}
}

// Turns that come a little late are no reason to believe that the server was held up, however short the lease is.
func TestShortLeasesRunOut(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.o.state.lease = 2 * time.Second
	b.turn(connection(1, 1))
	id, _ := b.running()
	for range 5 {
		b.now = b.now.Add(leaseCheck + 50*time.Millisecond)
		b.turn()
	}
	if s := b.state(id); s != job.Lost {
		t.Errorf("the job of a silent worker is %s", s)
	}
}

func TestOlderConnectionDoesNotTakeThePlaceOfANewerOne(t *testing.T) {
	t.Parallel()
	for name, older := range map[string]*connect{
		"overtaken on the server":  connection(1, 3), // kicked by the fleet already
		"overtaken on the network": connection(3, 1),
	} {
		b := newBench(t)
		b.turn(connection(2, 2))
		id, _ := b.running()
		b.turn(older)
		if s := b.state(id); older.err == nil || s != job.Running {
			t.Errorf("%s: the job is %s, and the older connection got %v", name, s, older.err)
		}
	}
}

func TestConnectionOfADeadAgentDoesNotTakeThePlaceOfTheLivingOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.turn(connection(2, 100))
	id, _ := b.running()
	dead := connection(3, 50)
	dead.worker.BootID = "a former life"
	b.turn(dead)
	if s := b.state(id); dead.err == nil || s != job.Running {
		t.Errorf("the job of the living agent is %s, and the dead one got %v", s, dead.err)
	}
	b.turn(&disconnect{id: "wkr_1", session: 2})
	setBack := connection(4, 50)
	setBack.worker.BootID = "a later life whose clock was set back"
	b.turn(setBack)
	if setBack.err != nil {
		t.Errorf("an agent whose clock was set back cannot come back: %v", setBack.err)
	}
}

func TestLateWordOfAnOlderSessionChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.turn(connection(1, 1))
	b.turn(connection(2, 2), &agentDrain{id: "wkr_1", session: 1, draining: true})
	id, _ := b.running() // needs a worker that takes jobs
	for b.state(id) != job.Lost && b.now.Before(simStart.Add(time.Minute)) {
		b.pass(leaseCheck, true) // heartbeats of session 1
	}
	if s := b.state(id); s != job.Lost {
		t.Errorf("a worker of which only an older session is heard keeps its lease; its job is %s", s)
	}
}

func TestAttemptThatALaterCommandEndsIsNotSentAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.turn(connection(1, 1))
	id := b.submit(nil)
	forgetful := connection(3, 3)
	forgetful.forgetful = true
	b.turn(connection(2, 2), forgetful)
	if s := b.state(id); s != job.Lost || len(b.assigned) != 0 {
		t.Errorf("the job is %s, and %v was sent", s, b.assigned)
	}
	other := b.submit(nil)
	b.turn(connection(4, 4), &cancel{waiter: newWaiter(), id: other})
	if s := b.state(other); s != job.Canceled || len(b.assigned) != 0 {
		t.Errorf("the canceled job is %s, and %v was sent", s, b.assigned)
	}
}

func TestReadThatFailsIsNotTakenForAJobThatIsNotThere(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	delayed := b.submit(func(s *job.Spec) { s.RunAfter = b.now.Add(time.Minute) })
	b.turn(connection(1, 1))
	_, ref := b.running()
	b.turn(&report{worker: "wkr_1", reports: []Report{{Ref: ref, Ended: b.now, Step: -1}}, acknowledge: func() {}})
	b.broken = true
	again := connection(2, 2, ref)
	b.turn(again)
	if again.verdicts[0] != Stop {
		t.Errorf("an attempt whose job cannot be read got the verdict %d, and with it goes its log", again.verdicts[0])
	}
	c := &cancel{waiter: newWaiter(), id: delayed}
	b.turn(c)
	if !errors.Is(c.err, errBroken) {
		t.Errorf("the cancel of a job that cannot be read gave %v", c.err)
	}
	b.now = b.now.Add(2 * time.Minute)
	if err := b.o.turn(t.Context(), nil); !errors.Is(err, errBroken) {
		t.Errorf("a job whose time has come and that cannot be read was passed over: %v", err)
	}
}

// An attempt is its worker's and nobody else's: of those of others a worker is told what it is told of a job that there is not, whether the
// job waits, is on a worker or has ended, and also when only the store knows of it.
func TestWorkersLearnNothingOfTheAttemptsOfOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.turn(connection(1, 1))
	id, first := b.running()
	again := b.submit(func(s *job.Spec) { s.MaxAttempts, s.Backoff = 2, job.Backoff{Initial: time.Minute} })
	second := b.assigned[0]
	verdicts := func(worker job.WorkerID, refs ...job.AttemptRef) []Verdict {
		c := connection(1, 1, refs...)
		c.worker.ID, c.worker.Slots = worker, 0
		if worker == "wkr_1" {
			c.worker.Session, c.worker.Dial = 100, 100
		}
		b.turn(c)
		if c.err != nil {
			t.Fatal(c.err)
		}
		return c.verdicts
	}
	wrong := func(ref job.AttemptRef) []job.AttemptRef {
		epoch, older, newer := ref, ref, ref
		epoch.Epoch--
		older.Attempt--
		newer.Attempt++
		return []job.AttemptRef{ref, epoch, older, newer}
	}
	check := func(when string) {
		t.Helper()
		for i, v := range verdicts("wkr_2", append(wrong(first), wrong(second)...)...) {
			if v != Forget {
				t.Errorf("%s: another worker got the verdict %d on attempt %d", when, v, i)
			}
		}
	}
	check("while they run")
	b.turn(&report{worker: "wkr_1", acknowledge: func() {}, reports: []Report{
		{Ref: first, Ended: b.now, Cause: job.Cause{Kind: job.CauseExitCode}, Step: -1},
		{Ref: second, Ended: b.now, Cause: job.Cause{Kind: job.CauseExitCode, ExitCode: 1}, Step: -1},
	}})
	if b.state(id) != job.Succeeded || b.state(again) != job.Delayed {
		t.Fatalf("the jobs are %s and %s", b.state(id), b.state(again))
	}
	check("when one has ended and the other waits")
	if got := verdicts("wkr_1", append(wrong(first), wrong(second)...)...); !slices.Equal(got, []Verdict{Stop, Forget, Forget, Forget, Stop, Forget, Forget, Forget}) {
		t.Errorf("the worker that had them got the verdicts %v", got)
	}
}
