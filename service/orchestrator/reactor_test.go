package orchestrator_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// rig is an orchestrator on a store in memory, with a dispatcher that notes what is sent.
type rig struct {
	*orchestrator.Orchestrator
	store  *faultyStore
	sent   *recorder
	cancel context.CancelFunc
	ended  chan error
}

// faultyStore fails commits when told to.
type faultyStore struct {
	*pebblestore.Store
	mu   sync.Mutex
	fail error
}

func (s *faultyStore) Commit(ctx context.Context, b *store.Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	return s.Store.Commit(ctx, b)
}

type recorder struct {
	mu       sync.Mutex
	assigned []job.AttemptRef
	canceled []string
}

func (r *recorder) Assign(_ job.WorkerID, attempts []orchestrator.Assignment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range attempts {
		r.assigned = append(r.assigned, attempts[i].Ref)
	}
}

func (r *recorder) Cancel(_ job.WorkerID, ref job.AttemptRef, step int, force bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.canceled = append(r.canceled, fmt.Sprintf("%s/%d force=%v", ref.Job, step, force))
}

// take returns what was assigned since the last call.
func (r *recorder) take() []job.AttemptRef {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.assigned
	r.assigned = nil
	return out
}

type noMetrics struct{}

func (noMetrics) JobsSubmitted(int)             {}
func (noMetrics) JobsScheduled(int)             {}
func (noMetrics) JobsEnded(string, string, int) {}
func (noMetrics) StaleReports(int)              {}
func (noMetrics) MeasurementsIgnored(int)       {}
func (noMetrics) Commit(time.Duration, int)     {}

func openRig(t *testing.T, fs vfs.FS) *rig {
	t.Helper()
	db, err := pebblestore.Open("data", pebblestore.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{store: &faultyStore{Store: db}, sent: new(recorder), ended: make(chan error, 1)}
	n := 0
	r.Orchestrator, err = orchestrator.Open(t.Context(), orchestrator.Config{
		Store: r.store, Bus: bus.New(64), Dispatcher: r.sent, Metrics: noMetrics{}, Logger: slog.New(slog.DiscardHandler),
		Clock: time.Now, MaxUnfinished: 10, Lease: 15 * time.Second,
		NewJobID: func(job.ID) job.ID { n++; return job.NewID(time.Now(), 0, uint64(n)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() { r.ended <- r.Run(ctx) }()
	return r
}

// close stops the reactor and the store, as a server that ends in good order does.
func (r *rig) close(t *testing.T) {
	t.Helper()
	r.cancel()
	<-r.ended
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) submit(t *testing.T, edit func(*job.Spec)) job.Job {
	t.Helper()
	s := job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}
	if edit != nil {
		edit(&s)
	}
	results, err := r.Submit(t.Context(), orchestrator.Submission{Specs: []job.Spec{s}})
	if err != nil || results[0].Err != nil {
		t.Fatal(err, results[0].Err)
	}
	return results[0].Job
}

func (r *rig) connect(t *testing.T, attempts ...job.AttemptRef) []orchestrator.Verdict {
	t.Helper()
	verdicts, err := r.Connect(t.Context(), job.Worker{ID: "wkr_1", Name: "one", Slots: 4, Session: 1}, attempts, false)
	if err != nil {
		t.Fatal(err)
	}
	return verdicts
}

func (r *rig) report(t *testing.T, reports ...orchestrator.Report) {
	t.Helper()
	acknowledged := make(chan struct{})
	if err := r.Report(t.Context(), "wkr_1", reports, func() { close(acknowledged) }); err != nil {
		t.Fatal(err)
	}
	<-acknowledged
}

func (r *rig) state(t *testing.T, id job.ID) job.State {
	t.Helper()
	j, err := r.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return j.State
}

func finished(ref job.AttemptRef, code int32) orchestrator.Report {
	return orchestrator.Report{Ref: ref, Ended: time.Now(), Cause: job.Cause{Kind: job.CauseExitCode, ExitCode: code}}
}

func started(ref job.AttemptRef) orchestrator.Report {
	return orchestrator.Report{Ref: ref, Steps: []job.StepReport{{Started: time.Now()}}}
}

func TestJobGoesItsRoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		j := r.submit(t, nil)
		synctest.Wait()
		if reasons, err := r.PendingReasons(t.Context(), []job.Job{j}); err != nil || reasons[j.ID] == "" {
			t.Errorf("a job without workers waits without a reason: %v", err)
		}
		r.connect(t)
		synctest.Wait()
		assigned := r.sent.take()
		if len(assigned) != 1 || assigned[0].Attempt != 1 || r.state(t, j.ID) != job.Assigned {
			t.Fatalf("assigned %+v", assigned)
		}
		ref := assigned[0]
		r.report(t, started(ref))
		if s := r.state(t, j.ID); s != job.Running {
			t.Errorf("after its start the job is %s", s)
		}
		stale := ref
		stale.Epoch++
		r.report(t, finished(stale, 1))
		if s := r.state(t, j.ID); s != job.Running {
			t.Errorf("a stale report made the job %s", s)
		}
		r.report(t, finished(ref, 0), finished(ref, 1))
		if s := r.state(t, j.ID); s != job.Succeeded {
			t.Errorf("after its end the job is %s", s)
		}
	})
}

func TestRepeatedSubmitGivesTheSameJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		r := openRig(t, fs)
		spec := job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}
		submission := orchestrator.Submission{Specs: []job.Spec{spec}, RequestID: "r", Hash: [32]byte{1}}
		first, err := r.Submit(t.Context(), submission, submission)
		if err != nil || first[0].Job.ID != first[1].Job.ID || first[0].Job.ID.IsZero() {
			t.Fatalf("in one batch: %+v, %v", first, err)
		}
		r.close(t)
		r = openRig(t, fs)
		defer r.close(t)
		again, err := r.Submit(t.Context(), submission)
		if err != nil || again[0].Job.ID != first[0].Job.ID {
			t.Errorf("after a restart: %+v, %v", again, err)
		}
		submission.Hash[0] = 2
		other, err := r.Submit(t.Context(), submission)
		if err != nil || job.CodeOf(other[0].Err) != job.CodeInvalid {
			t.Errorf("with another body: %+v, %v", other, err)
		}
		time.Sleep(25 * time.Hour)
		late, err := r.Submit(t.Context(), submission)
		if err != nil || late[0].Err != nil || late[0].Job.ID == first[0].Job.ID {
			t.Errorf("after its life: %+v, %v", late, err)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		for range 10 {
			r.submit(t, nil)
		}
		results, err := r.Submit(t.Context(), orchestrator.Submission{Specs: []job.Spec{{Steps: []job.Step{{Argv: []string{"true"}}}}}})
		var own *job.Error
		if err != nil || !errors.As(results[0].Err, &own) || own.Code != job.CodeExhausted || own.RetryAfter == 0 {
			t.Errorf("the eleventh of ten gave %+v, %v", results, err)
		}
	})
}

func TestNothingIsAcknowledgedThatWasNotCommitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.cancel()
		r.store.fail = errors.New("disk full")
		_, err := r.Submit(t.Context(), orchestrator.Submission{Specs: []job.Spec{{Steps: []job.Step{{Argv: []string{"true"}}}}}})
		if job.CodeOf(err) != job.CodeUnavailable {
			t.Errorf("a submit whose commit failed gave %v", err)
		}
		if err := <-r.ended; err == nil || !errors.Is(err, r.store.fail) {
			t.Errorf("the reactor ended with %v", err)
		}
		if _, err := r.Submit(t.Context()); job.CodeOf(err) != job.CodeUnavailable {
			t.Errorf("a submit after the end gave %v", err)
		}
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSilentWorkerIsLostAndItsJobsEndOrRunAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		once := r.submit(t, nil)
		again := r.submit(t, func(s *job.Spec) { s.MaxAttempts = 2 })
		r.connect(t)
		synctest.Wait()
		for range 10 { // heartbeats keep it for longer than a lease
			time.Sleep(5 * time.Second)
			if err := r.Heartbeat(t.Context(), "wkr_1", 1, job.Resources{}); err != nil {
				t.Fatal(err)
			}
		}
		if s := r.state(t, once.ID); s != job.Assigned {
			t.Fatalf("with heartbeats the job is %s", s)
		}
		time.Sleep(25 * time.Second)
		if s := r.state(t, once.ID); s != job.Lost {
			t.Errorf("a job that may run once is %s", s)
		}
		if s := r.state(t, again.ID); s != job.Queued {
			t.Errorf("a job that may run again is %s", s)
		}
	})
}

func TestRestartGivesWorkersALeaseAndNewEpochs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		r := openRig(t, fs)
		kept, gone, waiting := r.submit(t, nil), r.submit(t, nil), r.submit(t, nil)
		r.connect(t)
		synctest.Wait()
		refs := map[job.ID]job.AttemptRef{}
		for _, ref := range r.sent.take() {
			refs[ref.Job] = ref
		}
		r.report(t, started(refs[kept.ID]), started(refs[gone.ID]))
		r.close(t)

		r = openRig(t, fs)
		defer r.close(t)
		time.Sleep(10 * time.Second)
		unknown := job.AttemptRef{Job: job.ID{1}, Attempt: 1, Epoch: 1}
		verdicts := r.connect(t, refs[kept.ID], unknown)
		if verdicts[0] != orchestrator.Keep || verdicts[1] != orchestrator.Forget {
			t.Errorf("the verdicts are %v", verdicts)
		}
		synctest.Wait()
		if s := r.state(t, kept.ID); s != job.Running {
			t.Errorf("the job that its agent still has is %s", s)
		}
		if s := r.state(t, gone.ID); s != job.Lost {
			t.Errorf("the job that its agent no longer has is %s", s)
		}
		if resent := r.sent.take(); len(resent) != 1 || resent[0] != refs[waiting.ID] {
			t.Errorf("sent again: %+v", resent)
		}
		r.report(t, finished(refs[kept.ID], 0))
		if got := r.connect(t, refs[kept.ID]); got[0] != orchestrator.Stop {
			t.Errorf("an attempt that has ended got the verdict %v", got[0])
		}
		next := r.submit(t, nil)
		synctest.Wait()
		for _, j := range r.sent.take() {
			if j.Job == next.ID && j.Epoch <= refs[kept.ID].Epoch {
				t.Errorf("epoch %d after a restart is not above %d", j.Epoch, refs[kept.ID].Epoch)
			}
		}
	})
}

func TestCancelReachesTheWorkerAlsoAfterItComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		j := r.submit(t, nil)
		r.connect(t)
		synctest.Wait()
		ref := r.sent.take()[0]
		r.report(t, started(ref))
		got, err := r.Cancel(t.Context(), j.ID, "", job.CancelRequest{Actor: "user/a"})
		if err != nil || got.State != job.Canceling {
			t.Fatalf("cancel gave %s, %v", got.State, err)
		}
		r.connect(t, ref)
		synctest.Wait()
		if want := fmt.Sprintf("%s/-1 force=false", j.ID); len(r.sent.canceled) != 2 || r.sent.canceled[1] != want {
			t.Errorf("the orders are %q", r.sent.canceled)
		}
		r.report(t, orchestrator.Report{Ref: ref, Ended: time.Now(), Cause: job.Cause{Kind: job.CauseCanceled}, Step: -1})
		ended, err := r.Get(t.Context(), j.ID)
		if err != nil || ended.State != job.Canceled || ended.Cause.Actor != "user/a" {
			t.Errorf("the job ended as %+v, %v", ended.Cause, err)
		}
		if _, err := r.Cancel(t.Context(), j.ID, "", job.CancelRequest{}); job.CodeOf(err) != job.CodePrecondition {
			t.Errorf("cancel of a job that has ended: %v", err)
		}
		if _, err := r.Cancel(t.Context(), job.ID{1}, "", job.CancelRequest{}); job.CodeOf(err) != job.CodeNotFound {
			t.Errorf("cancel of a job that never was: %v", err)
		}
	})
}

func TestDelayedJobStartsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fs := vfs.NewMem()
		r := openRig(t, fs)
		j := r.submit(t, func(s *job.Spec) { s.RunAfter = time.Now().Add(time.Hour) })
		r.close(t)
		r = openRig(t, fs)
		defer r.close(t)
		time.Sleep(59 * time.Minute)
		if s := r.state(t, j.ID); s != job.Delayed {
			t.Errorf("before its time the job is %s", s)
		}
		time.Sleep(2 * time.Minute)
		if s := r.state(t, j.ID); s != job.Queued {
			t.Errorf("after its time the job is %s", s)
		}
	})
}

func TestWatchSendsEverythingAndGoesOnFromItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		first := r.submit(t, nil)
		changes := make(chan orchestrator.Change, 1000)
		ctx, cancel := context.WithCancel(t.Context())
		watch := func(token string) {
			_ = r.Watch(ctx, store.Filter{}, token, func(c orchestrator.Change) error { changes <- c; return nil })
		}
		go watch("")
		if c := <-changes; len(c.Jobs) != 1 || c.Jobs[0].ID != first.ID || !c.InitialComplete {
			t.Fatalf("the first answer is %+v", c)
		}
		second := r.submit(t, nil)
		c := <-changes
		if len(c.Jobs) != 1 || c.Jobs[0].ID != second.ID {
			t.Fatalf("the second answer is %+v", c)
		}
		cancel()
		synctest.Wait()
		third := r.submit(t, nil)
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go watch(c.ResumeToken)
		if c := <-changes; len(c.Jobs) != 1 || c.Jobs[0].ID != third.ID {
			t.Errorf("after the token came %+v", c)
		}
		if c := <-changes; len(c.Jobs) != 0 { // the clock moves on to the heartbeat
			t.Errorf("a quiet watch sent %+v", c)
		}
		for _, token := range []string{"7.1", "1.999"} {
			err := r.Watch(t.Context(), store.Filter{}, token, func(orchestrator.Change) error { return nil })
			if job.CodeOf(err) != job.CodeOutOfRange {
				t.Errorf("token %s gave %v", token, err)
			}
		}
	})
}

func TestSlowWatchIsBroughtUpToDate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		j := r.submit(t, func(s *job.Spec) { s.MaxAttempts = 100 })
		r.connect(t)
		synctest.Wait()
		seen := make(chan job.Job, 1000)
		hold, held := make(chan struct{}), make(chan struct{}, 1)
		go func() {
			_ = r.Watch(t.Context(), store.Filter{}, "", func(c orchestrator.Change) error {
				select {
				case held <- struct{}{}:
				default:
				}
				<-hold
				for _, j := range c.Jobs {
					seen <- j
				}
				return nil
			})
		}()
		<-held
		for range 60 { // more events than the ring holds while the reader stands
			synctest.Wait()
			for _, a := range r.sent.take() {
				r.report(t, started(a), finished(a, 1))
			}
			time.Sleep(10 * time.Minute)
			if err := r.Heartbeat(t.Context(), "wkr_1", 1, job.Resources{}); err != nil {
				t.Fatal(err)
			}
			r.connect(t)
		}
		if _, err := r.Cancel(t.Context(), j.ID, "", job.CancelRequest{}); err != nil {
			t.Fatal(err)
		}
		close(hold)
		want, err := r.Get(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		for got := range seen {
			if got.Revision == want.Revision {
				return
			}
		}
	})
}
