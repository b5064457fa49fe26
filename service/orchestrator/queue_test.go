package orchestrator_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

func (r *rig) cause(t *testing.T, id job.ID) job.Job {
	t.Helper()
	j, err := r.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func withPlacement(p job.Placement) func(*job.Spec) { return func(s *job.Spec) { s.Placement = &p } }

func TestQueueKeepsItsSettingsOverARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		r := openRig(t, disk)
		parent := job.DefaultQueueSettings("default", "ci")
		parent.Limits.Running = 1
		child := job.DefaultQueueSettings("default", "a-nightly")
		child.Parent, child.Weight = "ci", 3
		for _, q := range []job.Queue{parent, child} {
			if _, err := r.SetQueue(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		tenant := job.Namespace{Name: "default", Weight: 7, Limits: job.Limits{MilliCPU: 500}}
		if _, err := r.SetNamespace(t.Context(), tenant); err != nil {
			t.Fatal(err)
		}
		if _, err := r.PauseQueue(t.Context(), "default", "other", true); err != nil {
			t.Fatal(err)
		}
		r.connect(t)
		r.close(t)

		r = openRig(t, disk)
		defer r.close(t)
		queues, err := r.Queues(t.Context(), "default")
		if err != nil || len(queues) != 3 || queues[0].Queue != child || queues[1].Queue != parent || !queues[2].Paused || !queues[2].Set {
			t.Fatalf("after a restart the queues are %+v, %v", queues, err)
		}
		namespaces, err := r.Namespaces(t.Context())
		if err != nil || len(namespaces) != 1 || namespaces[0].Namespace != tenant {
			t.Fatalf("after a restart the namespaces are %+v, %v", namespaces, err)
		}
		if w, err := r.Worker(t.Context(), "one"); err != nil || w.Slots != 4 || w.Connected {
			t.Errorf("after a restart the worker is %+v, %v", w, err)
		}
		r.connect(t)
		first := r.submit(t, func(s *job.Spec) { s.Queue = "a-nightly" })
		second := r.submit(t, func(s *job.Spec) { s.Queue = "ci" })
		third := r.submit(t, func(s *job.Spec) { s.Queue = "other" })
		synctest.Wait()
		if r.state(t, first.ID) != job.Assigned || r.state(t, second.ID) != job.Queued || r.state(t, third.ID) != job.Queued {
			t.Errorf("with a limit of 1 and a pause the jobs are %s, %s and %s", r.state(t, first.ID), r.state(t, second.ID), r.state(t, third.ID))
		}
		for id, want := range map[job.ID]string{second.ID: "queue ci of namespace default", third.ID: "is paused"} {
			if _, e, err := r.Explain(t.Context(), id); err != nil || !strings.Contains(e.Text, want) {
				t.Errorf("%q does not say %q, %v", e.Text, want, err)
			}
		}
		if _, err := r.PauseQueue(t.Context(), "default", "other", false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r.state(t, third.ID) != job.Assigned {
			t.Errorf("in the queue that goes on the job is %s", r.state(t, third.ID))
		}
		if err := r.DeleteQueue(t.Context(), "default", "ci"); job.CodeOf(err) != job.CodePrecondition {
			t.Errorf("the parent of another queue was deleted: %v", err)
		}
		for _, name := range []string{"a-nightly", "ci"} {
			if err := r.DeleteQueue(t.Context(), "default", name); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if r.state(t, second.ID) != job.Assigned {
			t.Errorf("without the limit the job is %s", r.state(t, second.ID))
		}
	})
}

func TestQueueSettingsThatAreWrong(t *testing.T) {
	t.Parallel()
	r := openRig(t, vfs.NewMem())
	defer r.close(t)
	set := func(edit func(*job.Queue)) error {
		q := job.DefaultQueueSettings("default", "b")
		edit(&q)
		_, err := r.SetQueue(t.Context(), q)
		return err
	}
	if err := set(func(q *job.Queue) { q.Name = "a" }); err != nil {
		t.Fatal(err)
	}
	for what, edit := range map[string]func(*job.Queue){
		"weight": func(q *job.Queue) { q.Weight = 0 },
		"parent": func(q *job.Queue) { q.Parent = "nowhere" },
		"limits": func(q *job.Queue) { q.Limits.Running = -1 },
	} {
		if err := set(edit); job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), what) {
			t.Errorf("a wrong %s gave %v", what, err)
		}
	}
	if err := set(func(q *job.Queue) { q.Parent = "a" }); err != nil {
		t.Fatal(err)
	}
	if err := set(func(q *job.Queue) { q.Name, q.Parent = "a", "b" }); job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), "under itself") {
		t.Errorf("a circle of parents gave %v", err)
	}
	for _, err := range []error{
		r.DeleteQueue(t.Context(), "default", "never"), r.DeleteNamespace(t.Context(), "never"),
	} {
		if job.CodeOf(err) != job.CodeNotFound {
			t.Errorf("what was never set was deleted: %v", err)
		}
	}
}

func TestJobThatIsTooLargeIsRefused(t *testing.T) {
	t.Parallel()
	r := openRig(t, vfs.NewMem())
	defer r.close(t)
	large := job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}, Resources: job.Resources{MilliCPU: 9000}, Queue: "later"}
	submit := func() error {
		results, err := r.Submit(t.Context(), orchestrator.Submission{Specs: []job.Spec{large}})
		if err != nil {
			t.Fatal(err)
		}
		return results[0].Err
	}
	if err := submit(); err != nil {
		t.Errorf("before any worker is known: %v", err)
	}
	r.connect(t)
	if err := submit(); job.CodeOf(err) != job.CodePrecondition || !strings.Contains(err.Error(), "needs 9 CPUs") {
		t.Errorf("too large for every worker: %v", err)
	}
	awaits := job.DefaultQueueSettings("default", "later")
	awaits.AwaitsWorkers = true
	if _, err := r.SetQueue(t.Context(), awaits); err != nil {
		t.Fatal(err)
	}
	if err := submit(); err != nil {
		t.Errorf("in a queue that awaits workers: %v", err)
	}
}

func TestNewerJobReplacesOlderOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		r.connect(t)
		latest := withPlacement(job.Placement{Concurrency: &job.Concurrency{Key: "deploy", Policy: job.ConcurrencyLatest}})
		running, older := r.submit(t, latest), r.submit(t, latest)
		newer := r.submit(t, latest)
		synctest.Wait()
		if r.state(t, running.ID) != job.Assigned || r.state(t, newer.ID) != job.Queued {
			t.Errorf("the jobs are %s and %s", r.state(t, running.ID), r.state(t, newer.ID))
		}
		if j := r.cause(t, older.ID); j.State != job.Canceled || !strings.Contains(j.Cause.Message, "newer job") {
			t.Errorf("the one between is %s: %+v", j.State, j.Cause)
		}
		newest := r.submit(t, withPlacement(job.Placement{Concurrency: &job.Concurrency{Key: "deploy", Policy: job.ConcurrencyCancelRunning}}))
		synctest.Wait()
		if r.state(t, running.ID) != job.Canceling || r.state(t, newer.ID) != job.Canceled {
			t.Errorf("the older ones are %s and %s", r.state(t, running.ID), r.state(t, newer.ID))
		}
		end := finished(r.sent.take()[0], 0)
		end.Cause = job.Cause{Kind: job.CauseCanceled}
		r.report(t, end)
		synctest.Wait()
		if r.state(t, newest.ID) != job.Assigned {
			t.Errorf("the newest is %s", r.state(t, newest.ID))
		}
	})
}

func TestPreemptedJobRunsAgainAndLosesNoAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		for name, edit := range map[string]func(*job.Queue){
			"low": func(q *job.Queue) { q.Preemptible = true }, "high": func(q *job.Queue) { q.Preempts = true },
		} {
			q := job.DefaultQueueSettings("default", name)
			edit(&q)
			if _, err := r.SetQueue(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.Connect(t.Context(), job.Worker{ID: "wkr_1", Name: "one", Slots: 2, Session: 1}, nil, false); err != nil {
			t.Fatal(err)
		}
		once := r.submit(t, func(s *job.Spec) { s.Queue = "low" })
		victim := r.submit(t, func(s *job.Spec) { s.Queue, s.MaxAttempts = "low", 2 })
		synctest.Wait()
		refs := r.sent.take()
		time.Sleep(time.Second)
		urgent := r.submit(t, func(s *job.Spec) { s.Queue, s.Priority = "high", 5 })
		synctest.Wait()
		if len(refs) != 2 || r.state(t, urgent.ID) != job.Queued || len(r.sent.canceled) != 1 || !strings.Contains(r.sent.canceled[0], victim.ID.String()) {
			t.Fatalf("%d jobs began, and these were asked to leave: %v", len(refs), r.sent.canceled)
		}
		end := finished(refs[1], 0)
		end.Cause = job.Cause{Kind: job.CauseCanceled}
		end.Steps = []job.StepReport{{Started: end.Ended, Ended: end.Ended, State: job.StepCanceled, Cause: end.Cause}}
		r.report(t, end)
		synctest.Wait()
		j := r.cause(t, victim.ID)
		if c := j.Steps[0].Cause; c.Kind != job.CausePreempted {
			t.Errorf("its step ended for the cause %s", c.Kind)
		}
		if r.state(t, urgent.ID) != job.Assigned || !j.State.Waiting() || j.Preemptions != 1 || r.state(t, once.ID) != job.Assigned {
			t.Fatalf("the urgent job is %s, the one that left %s after %d preemptions", r.state(t, urgent.ID), j.State, j.Preemptions)
		}
		r.report(t, finished(r.sent.take()[0], 0))
		time.Sleep(time.Second)
		synctest.Wait()
		again := r.sent.take()
		if len(again) != 1 || again[0].Job != victim.ID || again[0].Attempt != 2 {
			t.Fatalf("then %+v began", again)
		}
		r.report(t, finished(again[0], 1))
		if j := r.cause(t, victim.ID); j.State != job.Delayed {
			t.Errorf("its second attempt was its last one: %s", j.State)
		}
	})
}

func TestWorkerThatFailsJobsIsSuspended(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		r.connect(t)
		for range 3 {
			r.submit(t, nil)
			synctest.Wait()
			end := finished(r.sent.take()[0], 0)
			end.Cause = job.Cause{Kind: job.CauseAgentError, Message: "no space left"}
			r.report(t, end)
		}
		waits := r.submit(t, nil)
		synctest.Wait()
		w, err := r.Worker(t.Context(), "one")
		if err != nil || w.State() != job.WorkerSuspended || !strings.Contains(w.Suspended, "no space left") || r.state(t, waits.ID) != job.Queued {
			t.Fatalf("the worker is %+v, %v", w, err)
		}
		if w, err = r.Drain(t.Context(), "one", false); err != nil || w.State() != job.WorkerReady {
			t.Errorf("put back into use it is %+v, %v", w, err)
		}
		synctest.Wait()
		if r.state(t, waits.ID) != job.Assigned {
			t.Errorf("then the job is %s", r.state(t, waits.ID))
		}
	})
}

func TestJobThatLosesItsWorkersIsHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		j := r.submit(t, func(s *job.Spec) {
			s.MaxAttempts, s.Backoff = 9, job.Backoff{Initial: time.Second, Max: time.Second, Factor: 1}
		})
		for n := range uint64(3) {
			worker := job.Worker{ID: "wkr_1", Name: "one", Slots: 4, Session: n + 1, Dial: n + 1}
			if _, err := r.Connect(t.Context(), worker, nil, false); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if len(r.sent.take()) != 1 {
				t.Fatalf("attempt %d did not begin: the job is %s", n+1, r.state(t, j.ID))
			}
			time.Sleep(40 * time.Second) // longer than the lease
			synctest.Wait()
		}
		held := r.cause(t, j.ID)
		if held.State != job.Delayed || !strings.Contains(held.Held, "3 workers were lost") {
			t.Fatalf("after three workers the job is %s, held: %q", held.State, held.Held)
		}
		if _, err := r.Connect(t.Context(), job.Worker{ID: "wkr_1", Name: "one", Slots: 4, Session: 9, Dial: 9}, nil, false); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Release(t.Context(), j.ID); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r.state(t, j.ID) != job.Assigned {
			t.Errorf("released it is %s", r.state(t, j.ID))
		}
		if _, err := r.Release(t.Context(), j.ID); job.CodeOf(err) != job.CodePrecondition {
			t.Errorf("released twice: %v", err)
		}
	})
}

func TestRestartedServerKnowsHowLongJobsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := vfs.NewMem()
		r := openRig(t, disk)
		r.connect(t)
		build := func(s *job.Spec) { s.Name = "build" }
		for range 4 {
			r.submit(t, build)
			synctest.Wait()
			ref := r.sent.take()[0]
			r.report(t, started(ref))
			time.Sleep(3 * time.Second) // less than the lease in all
			r.report(t, finished(ref, 0))
		}
		r.close(t)
		r = openRig(t, disk)
		defer r.close(t)
		waits := r.submit(t, build)
		if _, e, err := r.Explain(t.Context(), waits.ID); err != nil || e.Prediction.Runs != 4 || e.Prediction.Median.Ran != 3*time.Second {
			t.Errorf("the prediction is %+v, %v", e.Prediction, err)
		}
	})
}

// Why a job has waited is known when it has ended.
func TestEndedJobKnowsWhyItWaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		if _, err := r.Connect(t.Context(), job.Worker{ID: "wkr_1", Name: "one", Slots: 1, Session: 1}, nil, false); err != nil {
			t.Fatal(err)
		}
		first, second := r.submit(t, nil), r.submit(t, nil)
		time.Sleep(5 * time.Second)
		third := r.submit(t, nil)
		synctest.Wait()
		for range 3 {
			r.report(t, finished(r.sent.take()[0], 0))
			synctest.Wait()
		}
		if j := r.cause(t, second.ID); j.State != job.Succeeded || !strings.Contains(j.Waited, "no worker had free what it needs: a slot; of those that may take it there were 1") {
			t.Errorf("the one that waited is %s and says %q", j.State, j.Waited)
		}
		for _, id := range []job.ID{first.ID, third.ID} {
			if j := r.cause(t, id); j.State != job.Succeeded || j.Waited != "" {
				t.Errorf("one that did not wait is %s and says %q", j.State, j.Waited)
			}
		}
	})
}

func TestGangStartsTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openRig(t, vfs.NewMem())
		defer r.close(t)
		r.connect(t)
		gang := withPlacement(job.Placement{Gang: &job.Gang{Name: "mpi", Size: 3}})
		first := r.submit(t, gang)
		r.submit(t, gang)
		synctest.Wait()
		if _, e, err := r.Explain(t.Context(), first.ID); err != nil || !strings.Contains(e.Text, "1 job of its gang") || len(r.sent.take()) > 0 {
			t.Errorf("two of three: %q, %v", e.Text, err)
		}
		r.submit(t, gang)
		synctest.Wait()
		if began := r.sent.take(); len(began) != 3 {
			t.Errorf("%d of 3 began", len(began))
		}
	})
}
