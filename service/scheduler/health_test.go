package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// fail ends a job as its cause says.
func (w *world) finish(n, name string, cause job.Cause) {
	w.Ended(w.running[n].Place, name, &cause, w.now)
	w.end(n)
}

func named(name string) func(*job.Spec) { return func(s *job.Spec) { s.Name = name } }

func TestWorkerWhoseAgentFailsIsTakenOutAndTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("bad", 4000, nil))
	fault := job.Cause{Kind: job.CauseAgentError, Message: "the disk is full"}
	for range 3 {
		n := w.add(cpu(100))
		w.place()
		w.finish(n, "", fault)
	}
	w.add(cpu(100))
	w.add(cpu(100))
	plan := w.Place(w.now)
	if len(plan.Placements) > 0 || plan.Wake.Sub(w.now) != time.Minute {
		t.Fatalf("after 3 faults: %+v", plan)
	}
	spec := &job.Spec{Namespace: "default", Queue: "default", MaxAttempts: 2, Timeout: time.Hour, Resources: job.Resources{MilliCPU: 100}}
	if e := w.Explain(id(4), spec, false, w.now); !strings.Contains(e.Text, "out of use") || !strings.Contains(e.Text, "the disk is full") {
		t.Errorf("the explanation is %q", e.Text)
	}
	w.now = plan.Wake
	w.expect(t, "one at a time", "4:bad")
	w.finish("4", "", fault)
	if plan = w.Place(w.now); len(plan.Placements) > 0 || plan.Wake.Sub(w.now) != 2*time.Minute {
		t.Fatalf("after a failed trial: %+v", plan)
	}
	w.now = plan.Wake
	w.expect(t, "the next trial", "5:bad")
	w.finish("5", "", job.Cause{Kind: job.CauseExitCode})
	w.add(cpu(100))
	w.add(cpu(100))
	w.expect(t, "trusted again", "6:bad 7:bad")
}

func TestWorkerOnWhichEverythingFailsIsTakenOut(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what      string
		names     int
		elsewhere bool
		out       bool
	}{
		{"jobs of several names that succeed elsewhere", 3, true, true},
		{"jobs of one name", 1, true, false},
		{"jobs that fail everywhere", 3, false, false},
	} {
		w := newWorld(scheduler.Options{}, worker("a", 4000, slots(100)), worker("b", 4000, slots(100)))
		other := w.add(placement(job.Placement{Affinities: []job.Affinity{}}))
		w.place()
		good := w.running[other].Worker
		bad := map[job.WorkerID]job.WorkerID{"a": "b", "b": "a"}[good]
		onBad := func(s *job.Spec) {
			s.Constraints = []job.Constraint{{Label: "name", Operator: job.OperatorIn, Values: []string{string(bad)}}}
		}
		w.SetWorker(worker(string(bad), 4000, func(x *job.Worker) { x.Slots, x.Labels = 100, map[string]string{"name": string(bad)} }))
		for i := range 10 {
			name := fmt.Sprint("job", i%tc.names)
			n := w.add(both(named(name), onBad))
			w.place()
			w.now = w.now.Add(time.Second)
			if i == 5 && tc.elsewhere {
				w.finish(other, "", job.Cause{Kind: job.CauseExitCode})
			}
			w.finish(n, name, job.Cause{Kind: job.CauseExitCode, ExitCode: 1})
		}
		if why, _ := w.Distrusted(bad); (why != "") != tc.out {
			t.Errorf("%s: %q", tc.what, why)
		}
		w.Trust(bad)
		if why, _ := w.Distrusted(bad); why != "" {
			t.Errorf("%s: somebody trusts it again, and it is still out of use: %q", tc.what, why)
		}
	}
}

func TestWorkerThatComesAndGoesWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{})
	connect := func(n int) {
		w.now = w.now.Add(time.Second)
		w.SetWorker(worker("w", 4000, func(x *job.Worker) { x.Session, x.ConnectedAt = uint64(n), w.now }))
	}
	for n := range 10 {
		connect(n + 1)
	}
	w.add(cpu(100))
	w.expect(t, "after ten connections", "1:w")
	connect(11)
	w.add(cpu(100))
	w.expect(t, "after one more", "")
	w.now = w.now.Add(20 * time.Second)
	w.expect(t, "after a while", "2:w")
}

func TestRunsOfAFamilyPredictTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 4000, slots(10)))
	spec := &job.Spec{Namespace: "default", Name: "build", Resources: job.Resources{MilliCPU: 4000, MemoryMiB: 1000}}
	for i := range 20 {
		if _, ok := w.Predict(spec); ok != (i >= 3) {
			t.Errorf("after %d runs there is a prediction: %t", i, ok)
		}
		w.Learn(spec, scheduler.Usage{Ran: time.Duration(i+1) * time.Second, MilliCPU: 700, MemoryMiB: 950})
	}
	p, _ := w.Predict(spec)
	if p.Runs != 20 || p.Median.Ran != 11*time.Second || p.Most.Ran != 18*time.Second || p.Most.MilliCPU != 700 {
		t.Errorf("the prediction is %+v", p)
	}
	e := w.Explain(job.ID{}, spec, false, w.now)
	if !strings.Contains(e.Sizing, "0.7 CPUs of 4 CPUs") || !strings.Contains(e.Sizing, "950 MiB of 1000 MiB") {
		t.Errorf("the advice is %q", e.Sizing)
	}
	// What is known to be short goes before the job for which the worker is reserved.
	w.add(both(cpu(3000), limit(time.Minute)))
	w.place()
	w.add(cpu(4000))
	w.add(both(cpu(1000), limit(24*time.Hour)))
	w.add(both(cpu(1000), limit(24*time.Hour), named("build")))
	w.expect(t, "only the short one passes", "4:w")
	w.add(both(cpu(1000), limit(24*time.Hour), named("other")))
	w.Remove(id(5), &job.Spec{Namespace: "default", Queue: "default", MaxAttempts: 2, Timeout: 24 * time.Hour, Name: "other", Resources: job.Resources{MilliCPU: 1000}}, false)
	before := w.Len()
	w.add(both(cpu(1000), limit(24*time.Hour), named("late")))
	for range 3 {
		w.Learn(&job.Spec{Namespace: "default", Name: "late"}, scheduler.Usage{Ran: time.Second})
	}
	w.Remove(id(6), &job.Spec{Namespace: "default", Queue: "default", MaxAttempts: 2, Timeout: 24 * time.Hour, Name: "late", Resources: job.Resources{MilliCPU: 1000}}, false)
	if w.Len() != before {
		t.Error("a job whose family was learned about while it waited cannot be removed")
	}
}
