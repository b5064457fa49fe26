package job_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func spec(edit func(*job.Spec)) job.Spec {
	s := job.Spec{Steps: []job.Step{{Argv: []string{"true"}}, {Script: "echo"}}}
	if edit != nil {
		edit(&s)
	}
	return s
}

func newJob(t *testing.T, edit func(*job.Spec)) job.Job {
	t.Helper()
	j, err := job.New(job.ID{1}, spec(edit), start)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func exit(code int32) job.Cause { return job.Cause{Kind: job.CauseExitCode, ExitCode: code} }

// inState makes a job in each state by the way a job gets there.
func inState(t *testing.T, s job.State) job.Job {
	t.Helper()
	must := func(j job.Job, err error) job.Job {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	queued := newJob(t, nil)
	assigned := must(queued.Assign("wkr_1", 1))
	running := must(assigned.StepStarted(0, start))
	switch s {
	case job.Delayed:
		return newJob(t, func(s *job.Spec) { s.RunAfter = start.Add(time.Hour) })
	case job.Queued:
		return queued
	case job.Assigned:
		return assigned
	case job.Running:
		return running
	case job.Canceling:
		return must(running.RequestCancel(job.CancelRequest{Actor: "user/a"}, start))
	case job.Succeeded:
		return must(running.Finish(exit(0), start))
	case job.Failed:
		return must(running.Finish(exit(1), start))
	case job.Canceled:
		return must(running.Finish(job.Cause{Kind: job.CauseCanceled}, start))
	case job.TimedOut:
		return must(running.Finish(job.Cause{Kind: job.CauseTimeout}, start))
	case job.Lost:
		return must(running.Lose("gone", start))
	}
	t.Fatalf("no way to %s", s)
	return job.Job{}
}

var reachable = []job.State{
	job.Delayed, job.Queued, job.Assigned, job.Running, job.Canceling, job.Succeeded, job.Failed, job.Canceled, job.TimedOut, job.Lost,
}

// Every state and every event: what comes of it, or that it is refused and changes nothing.
func TestTransitions(t *testing.T) {
	t.Parallel()
	events := map[string]func(job.Job) (job.Job, error){
		"ready":  job.Job.Ready,
		"assign": func(j job.Job) (job.Job, error) { return j.Assign("wkr_2", 9) },
		"start":  func(j job.Job) (job.Job, error) { return j.StepStarted(1, start) },
		"finish": func(j job.Job) (job.Job, error) { return j.Finish(exit(0), start) },
		"fail":   func(j job.Job) (job.Job, error) { return j.Finish(exit(3), start) },
		"lose":   func(j job.Job) (job.Job, error) { return j.Lose("gone", start) },
		"cancel": func(j job.Job) (job.Job, error) { return j.RequestCancel(job.CancelRequest{}, start) },
	}
	want := map[job.State]map[string]job.State{ // what is not here is refused
		job.Delayed:   {"ready": job.Queued, "cancel": job.Canceled},
		job.Queued:    {"assign": job.Assigned, "cancel": job.Canceled},
		job.Assigned:  {"start": job.Running, "finish": job.Succeeded, "fail": job.Failed, "lose": job.Lost, "cancel": job.Canceling},
		job.Running:   {"start": job.Running, "finish": job.Succeeded, "fail": job.Failed, "lose": job.Lost, "cancel": job.Canceling},
		job.Canceling: {"start": job.Canceling, "finish": job.Succeeded, "fail": job.Failed, "lose": job.Canceled, "cancel": job.Canceling},
	}
	for _, state := range reachable {
		for name, event := range events {
			before := inState(t, state)
			after, err := event(before)
			expected, allowed := want[state][name]
			switch {
			case allowed && (err != nil || after.State != expected):
				t.Errorf("%s in %s gave %s, %v; want %s", name, state, after.State, err, expected)
			case !allowed && err == nil:
				t.Errorf("%s in %s gave %s; want it refused", name, state, after.State)
			case !allowed && (after.State != state || after.Revision != before.Revision):
				t.Errorf("%s in %s was refused and changed the job", name, state)
			}
		}
	}
}

func TestRetryWaitsForItsBackoffAndKeepsTheNumberOfAttempts(t *testing.T) {
	t.Parallel()
	j := newJob(t, func(s *job.Spec) {
		s.MaxAttempts = 3
		s.Backoff = job.Backoff{Initial: time.Second, Max: 3 * time.Second, Factor: 4}
	})
	for attempt, wait := range []time.Duration{time.Second, 3 * time.Second} {
		j, _ = j.Assign("wkr_1", uint64(attempt+1))
		j, _ = j.StepStarted(0, start)
		var err error
		if j, err = j.Finish(exit(1), start); err != nil || j.State != job.Delayed || !j.NextAttempt.Equal(start.Add(wait)) {
			t.Fatalf("attempt %d ended in %s, next at %v: %v", attempt+1, j.State, j.NextAttempt, err)
		}
		j, _ = j.Ready()
	}
	j, _ = j.Assign("wkr_1", 3)
	if j, _ = j.Finish(exit(1), start); j.State != job.Failed || j.Attempt != 3 {
		t.Errorf("the last attempt ended in %s with attempt %d", j.State, j.Attempt)
	}
}

func TestWhatIsNotRetried(t *testing.T) {
	t.Parallel()
	again := func(s *job.Spec) { s.MaxAttempts = 5 }
	j, _ := newJob(t, again).Assign("wkr_1", 1)
	if ended, _ := j.Finish(job.Cause{Kind: job.CauseCanceled}, start); ended.State != job.Canceled {
		t.Errorf("a canceled attempt gave %s", ended.State)
	}
	canceling, _ := j.RequestCancel(job.CancelRequest{Actor: "user/a", Reason: "a change of mind"}, start)
	ended, _ := canceling.Finish(exit(1), start)
	if ended.State != job.Failed {
		t.Errorf("a job that fails while it is being canceled gave %s", ended.State)
	}
	if canceled, _ := canceling.Finish(job.Cause{Kind: job.CauseCanceled, Message: "canceled on request"}, start); canceled.Cause.Message != "canceled on request: a change of mind" {
		t.Errorf("the cause of a canceled job is %q", canceled.Cause.Message)
	}
	lost, _ := canceling.Lose("gone", start)
	if lost.State != job.Canceled || lost.Cause.Actor != "user/a" {
		t.Errorf("a job whose worker is lost while it is being canceled gave %s by %q", lost.State, lost.Cause.Actor)
	}
}

func TestNoStepLooksAliveAfterTheEnd(t *testing.T) {
	t.Parallel()
	j, _ := newJob(t, nil).Assign("wkr_1", 1)
	j, _ = j.StepStarted(0, start)
	lost, _ := j.Lose("gone", start)
	if lost.Steps[0].State != job.StepFailed || lost.Steps[1].State != job.StepSkipped {
		t.Errorf("the steps are %v", lost.Steps)
	}
	if j.Steps[0].State != job.StepRunning {
		t.Error("a transition changed the job that it began with")
	}
}

func TestRepeatedReportsChangeNothing(t *testing.T) {
	t.Parallel()
	j, _ := newJob(t, nil).Assign("wkr_1", 1)
	j, _ = j.StepStarted(0, start)
	again, err := j.StepStarted(0, start.Add(time.Minute))
	if err != nil || again.Revision != j.Revision {
		t.Errorf("a repeated start changed the job: %v", err)
	}
	j, _ = j.StepFinished(0, exit(0), job.StepSucceeded, job.Usage{}, start)
	again, err = j.StepFinished(0, exit(1), job.StepFailed, job.Usage{}, start)
	if err != nil || again.Steps[0].State != job.StepSucceeded {
		t.Errorf("a repeated end changed the step to %s: %v", again.Steps[0].State, err)
	}
	for _, step := range []int{-1, 2} {
		if _, err := j.StepStarted(step, start); err == nil {
			t.Errorf("a report about step %d of 2 was taken", step)
		}
	}
}

func TestCancelOfAStep(t *testing.T) {
	t.Parallel()
	j, _ := newJob(t, nil).Assign("wkr_1", 1)
	j, _ = j.StepStarted(0, start)
	if _, err := j.RequestStepCancel(1); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("cancel of a step that does not run: %v", err)
	}
	j, err := j.RequestStepCancel(0)
	if err != nil || !j.Steps[0].CancelRequested {
		t.Errorf("cancel of a step that runs: %v", err)
	}
	if again, err := j.RequestStepCancel(0); err != nil || again.Revision != j.Revision {
		t.Errorf("a second request changed the job: %v", err)
	}
	if _, err := j.StepIndex("nope"); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("a step that does not exist: %v", err)
	}
}

func TestForceUpgradesACancel(t *testing.T) {
	t.Parallel()
	j := inState(t, job.Canceling)
	forced, err := j.RequestCancel(job.CancelRequest{Force: true}, start)
	if err != nil || !forced.Cancel.Force || forced.Cancel.Actor != "user/a" || forced.Revision == j.Revision {
		t.Errorf("force gave %+v, %v", forced.Cancel, err)
	}
}

func TestNewRefusesWhatCannotRunAndNamesTheField(t *testing.T) {
	t.Parallel()
	for text, edit := range map[string]func(*job.Spec){
		"steps:":                  func(s *job.Spec) { s.Steps = nil },
		"at most 100":             func(s *job.Spec) { s.Steps = make([]job.Step, 101) },
		"steps[1]":                func(s *job.Spec) { s.Steps[1] = job.Step{} },
		"both a command":          func(s *job.Spec) { s.Steps[0].Script = "x" },
		"name is empty":           func(s *job.Spec) { s.Steps[0].Argv = []string{""} },
		"argument 1":              func(s *job.Spec) { s.Steps[0].Argv = []string{"a", "b\x00"} },
		"working_dir":             func(s *job.Spec) { s.Steps[0].WorkingDir = "\x00" },
		"names must differ":       func(s *job.Spec) { s.Steps[0].Name, s.Steps[1].Name = "x", "x" },
		"max_attempts":            func(s *job.Spec) { s.MaxAttempts = 101 },
		"priority":                func(s *job.Spec) { s.Priority = -1001 },
		"timeout":                 func(s *job.Spec) { s.Timeout = -1 },
		"backoff":                 func(s *job.Spec) { s.Backoff.Factor = 0.5 },
		`env: "A=B"`:              func(s *job.Spec) { s.Env = map[string]string{"A=B": ""} },
		`steps[0].env["A"]`:       func(s *job.Spec) { s.Steps[0].Env = map[string]string{"A": "\x00"} },
		"must not be negative":    func(s *job.Spec) { s.Resources.MilliCPU = -1 },
		`resources.extras["gpu"]`: func(s *job.Spec) { s.Resources.Extras = map[string]int32{"gpu": -1} },
		"need at least one value": func(s *job.Spec) { s.Constraints = []job.Constraint{{Label: "os", Operator: job.OperatorIn}} },
		"take no values": func(s *job.Spec) {
			s.Constraints = []job.Constraint{{Label: "os", Operator: job.OperatorExists, Values: []string{"x"}}}
		},
		"has no operator":          func(s *job.Spec) { s.Constraints = []job.Constraint{{Label: "os"}} },
		"constraints[0] has no la": func(s *job.Spec) { s.Constraints = []job.Constraint{{Operator: job.OperatorExists}} },
	} {
		_, err := job.New(job.ID{1}, spec(edit), start)
		var own *job.Error
		if !errors.As(err, &own) || own.Code != job.CodeInvalid || !strings.Contains(own.Message, text) {
			t.Errorf("got %v, want an error about %q", err, text)
		}
	}
}

func TestNewFillsInDefaultsAndLeavesTheOriginalAlone(t *testing.T) {
	t.Parallel()
	original := spec(nil)
	j, err := job.New(job.ID{1}, original, start)
	if err != nil {
		t.Fatal(err)
	}
	s := j.Spec
	if s.Namespace != "default" || s.Queue != "default" || s.Timeout != 24*time.Hour || s.MaxAttempts != 1 || s.Steps[1].Name != "step-2" {
		t.Errorf("the defaults are %+v", s)
	}
	if !slices.Equal(s.Steps[1].Command(), []string{"sh", "-e", "-c", "echo"}) {
		t.Errorf("the script runs as %q", s.Steps[1].Command())
	}
	if original.Steps[0].Name != "" {
		t.Error("the caller's spec was changed")
	}
}

// Whatever happens to a job, in whatever order: the law of states holds, terminal states absorb, revisions and attempts
// only grow, and no more attempts begin than are allowed.
func TestAnyHistoryKeepsTheLaw(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		maxAttempts := rapid.Int32Range(1, 4).Draw(t, "max attempts")
		j, err := job.New(job.ID{1}, spec(func(s *job.Spec) { s.MaxAttempts = maxAttempts }), start)
		if err != nil {
			t.Fatal(err)
		}
		now := start
		for range rapid.IntRange(0, 40).Draw(t, "length") {
			before := j
			now = now.Add(time.Second)
			step := rapid.IntRange(-1, 2).Draw(t, "step")
			cause := job.Cause{Kind: job.CauseKind(rapid.IntRange(1, 10).Draw(t, "kind")), ExitCode: rapid.Int32Range(0, 2).Draw(t, "code")}
			switch rapid.IntRange(0, 7).Draw(t, "event") {
			case 0:
				j, _ = j.Ready()
			case 1:
				j, _ = j.Assign("wkr_1", uint64(j.Attempt)+1)
			case 2:
				j, _ = j.StepStarted(step, now)
			case 3:
				j, _ = j.StepFinished(step, cause, cause.StepState(), job.Usage{}, now)
			case 4:
				j, _ = j.Finish(cause, now)
			case 5:
				j, _ = j.RequestCancel(job.CancelRequest{Force: step > 0}, now)
			case 6:
				j, _ = j.Lose("gone", now)
			case 7:
				j, _ = j.RequestStepCancel(step)
			}
			if j.State != before.State && !before.State.MayBecome(j.State) {
				t.Fatalf("%s became %s", before.State, j.State)
			}
			if before.State.Terminal() && j.Revision != before.Revision {
				t.Fatalf("a job that had ended changed from %s to %s", before.State, j.State)
			}
			if j.Revision < before.Revision || j.Attempt < before.Attempt || j.Attempt > maxAttempts {
				t.Fatalf("revision %d -> %d, attempt %d -> %d of %d", before.Revision, j.Revision, before.Attempt, j.Attempt, maxAttempts)
			}
			if j.State.Terminal() && (j.Cause.Kind == 0 || j.Ended.IsZero()) {
				t.Fatalf("%s without a cause or an end", j.State)
			}
		}
	})
}

func TestConstraints(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"os": "linux"}
	for _, tc := range []struct {
		c    job.Constraint
		want bool
	}{
		{job.Constraint{Label: "os", Operator: job.OperatorIn, Values: []string{"mac", "linux"}}, true},
		{job.Constraint{Label: "os", Operator: job.OperatorIn, Values: []string{"mac"}}, false},
		{job.Constraint{Label: "gpu", Operator: job.OperatorIn, Values: []string{""}}, false},
		{job.Constraint{Label: "os", Operator: job.OperatorNotIn, Values: []string{"linux"}}, false},
		{job.Constraint{Label: "gpu", Operator: job.OperatorNotIn, Values: []string{"a100"}}, true},
		{job.Constraint{Label: "os", Operator: job.OperatorExists}, true},
		{job.Constraint{Label: "gpu", Operator: job.OperatorExists}, false},
		{job.Constraint{Label: "gpu", Operator: job.OperatorNotExists}, true},
		{job.Constraint{Label: "os"}, false},
	} {
		if got := tc.c.Holds(labels); got != tc.want {
			t.Errorf("%+v holds: %v", tc.c, got)
		}
	}
}

func TestSecretsAndTerminalsOfSteps(t *testing.T) {
	t.Parallel()
	step := func(secrets []job.SecretRef, terminal *job.Terminal) job.Spec {
		return job.Spec{Steps: []job.Step{{Argv: []string{"true"}, Env: map[string]string{"PLAIN": "x"}, Secrets: secrets, Terminal: terminal}}}
	}
	given := []job.SecretRef{{Name: "TOKEN"}, {Name: "TOKEN", Env: "OTHER", File: true}}
	j, err := job.New(job.ID{1}, step(given, &job.Terminal{Columns: 132}), time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	got := j.Spec.Steps[0]
	if got.Secrets[0].Env != "TOKEN" || got.Secrets[1].Env != "OTHER" || *got.Terminal != (job.Terminal{Columns: 132, Rows: 24}) {
		t.Errorf("the step became %+v, %+v", got, got.Terminal)
	}
	if p := j.Spec.Placement; p == nil || !slices.Equal(p.Requires, []string{job.CapabilityTerminal}) {
		t.Errorf("a step on a terminal requires %+v", p)
	}
	if given[0].Env != "" || !j.Spec.WantsSecrets() || !slices.Equal(j.Spec.SecretNames(), []string{"TOKEN"}) {
		t.Errorf("what was given became %+v, and the names are %q", given, j.Spec.SecretNames())
	}
	for name, spec := range map[string]job.Spec{
		"secrets[0]: \"\"":     step([]job.SecretRef{{}}, nil),
		"secrets[0]: \"1\"":    step([]job.SecretRef{{Name: "1"}}, nil),
		"variable \"A=B\"":     step([]job.SecretRef{{Name: "A", Env: "A=B"}}, nil),
		"PLAIN is given twice": step([]job.SecretRef{{Name: "PLAIN"}}, nil),
		"A is given twice":     step([]job.SecretRef{{Name: "A"}, {Name: "B", Env: "A"}}, nil),
		"65 of them":           step(make([]job.SecretRef, 65), nil),
		"-1 by 0":              step(nil, &job.Terminal{Columns: -1}),
		"0 by 65536":           step(nil, &job.Terminal{Rows: 65536}),
	} {
		if _, err := job.New(job.ID{1}, spec, time.Unix(1, 0)); job.CodeOf(err) != job.CodeInvalid || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: the error is %v", name, err)
		}
	}
}

// Who had an attempt is known when others have followed, to a limit; and what the copies share does not change.
func TestFormerAttemptsAreKnown(t *testing.T) {
	t.Parallel()
	j := newJob(t, func(s *job.Spec) { s.MaxAttempts = 40 })
	worker := func(n int) job.WorkerID { return job.WorkerID("wkr_" + strings.Repeat("x", n%3+1)) }
	var refs []job.AttemptRef
	var copies []job.Job
	for n := range 30 {
		j, _ = j.Assign(worker(n), uint64(100+n))
		refs, copies = append(refs, j.Ref()), append(copies, j)
		j, _ = j.Finish(exit(1), start)
		j, _ = j.Ready()
	}
	for n, ref := range refs {
		if known := n >= len(refs)-17; j.Had(worker(n), ref) != known {
			t.Errorf("that %s had %v of %d is known: %v", worker(n), ref, len(refs), !known)
		}
		if !copies[n].Had(worker(n), ref) || n > 0 && !copies[n].Had(worker(n-1), refs[n-1]) || n < 29 && copies[n].Had(worker(n+1), refs[n+1]) {
			t.Errorf("the copy of attempt %d has changed: %v", n+1, copies[n].Former)
		}
		others := []job.AttemptRef{ref, ref, ref, {}}
		others[0].Epoch++
		others[1].Attempt++
		others[2].Job = job.ID{2}
		for _, other := range others {
			if j.Had(worker(n), other) {
				t.Errorf("%s had %v, it says", worker(n), other)
			}
		}
		if j.Had(worker(n+1), ref) {
			t.Errorf("%s had %v, it says", worker(n+1), ref)
		}
	}
}
