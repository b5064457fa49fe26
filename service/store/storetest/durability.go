package storetest

import (
	"reflect"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// durability: what was acknowledged comes back exactly as it was, at once and after the store was opened anew.
func durability(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){"EveryFieldOfAJob": everyField, "Times": timesComeBack, "EmptyBatch": emptyBatch})
}

// fullSpec sets every field.
func fullSpec(s *job.Spec) {
	s.Namespace, s.Queue = "team-1", "gpu"
	s.Labels = map[string]string{"a": "b", "c/d": "=ÿ\x01", "empty": ""}
	s.Env = map[string]string{"A": "1", "B": ""}
	s.Priority, s.Timeout, s.MaxAttempts = -3, time.Hour+1, 3
	s.Backoff = job.Backoff{Initial: time.Second, Max: time.Minute, Factor: 1.5}
	s.Resources = job.Resources{MilliCPU: 1500, MemoryMiB: 7, Extras: map[string]int32{"gpu": 2}}
	s.Constraints = []job.Constraint{{Label: "zone", Operator: job.OperatorIn, Values: []string{"x", ""}}, {Label: "ssd", Operator: job.OperatorExists}}
	s.Placement = &job.Placement{
		Affinities: []job.Affinity{{Constraint: job.Constraint{Label: "mem", Operator: job.OperatorGreater, Values: []string{"1"}}, Weight: -7}},
		Spread:     "zone", Tolerations: []string{"spot"}, Gang: &job.Gang{Name: "ring", Size: 3},
		Concurrency: &job.Concurrency{Key: "deploy", Limit: 2, Policy: job.ConcurrencyLatest},
	}
	s.Steps = []job.Step{
		{Name: "one", Argv: []string{"echo", "", "\n"}, Env: map[string]string{"C": "2"}, WorkingDir: "/tmp", Timeout: time.Minute, Grace: time.Second},
		{Name: "two", Script: "exit 1\n", Shell: []string{"sh", "-c"}},
	}
}

// lives returns a job with every field set, after each of its transitions.
func lives(t tester, n int) []*job.Job {
	t.Helper()
	now, next := at(n), must(t)
	all := []*job.Job{newJob(t, n, fullSpec)}
	then := func(j job.Job, err error) *job.Job {
		t.Helper()
		now = now.Add(time.Second + 1)
		all = append(all, next(j, err))
		return all[len(all)-1]
	}
	j := then(all[0].Assign("wkr_1", 1<<40))
	j = then(j.StepStarted(0, now))
	j = then(j.Finish(job.Cause{Kind: job.CauseWorkerLost, Message: "gone"}, now)) // delayed, for it may be tried again
	j = then(j.Ready())
	j = then(j.Assign("wkr_2", 1<<40+1))
	j = then(j.StepStarted(0, now))
	usage := job.Usage{UserCPU: time.Second, SystemCPU: time.Millisecond, MaxRSSKiB: 9}
	j = then(j.StepFinished(0, job.Cause{Kind: job.CauseExitCode}, job.StepSucceeded, usage, now))
	j = then(j.StepStarted(1, now))
	j = then(j.RequestStepCancel(1))
	j = then(j.RequestCancel(job.CancelRequest{Actor: "alice", Reason: "why not", Force: true}, now))
	then(j.Finish(job.Cause{Kind: job.CauseCanceled, Step: "two", Signal: "KILL", ExitCode: -9, Message: "m"}, now))
	return all
}

func everyField(t *testing.T, h Harness) {
	s := h.Open(t)
	life := lives(t, 1)
	for i, j := range life {
		if i == 0 {
			commit(t, s, &store.Batch{Accepted: []*job.Job{j}})
		} else {
			commit(t, s, &store.Batch{Changed: []*job.Job{j}})
		}
		wantJob(t, s, j)
		if i%3 == 1 {
			s = h.Reopen(t, s)
			wantJob(t, s, j)
		}
	}
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	wantJob(t, s, life[len(life)-1])
}

// timesComeBack: delayed jobs and times with nanoseconds, which several formats would cut off.
func timesComeBack(t *testing.T, h Harness) {
	s := h.Open(t)
	later := newJob(t, 1, func(s *job.Spec) { s.RunAfter = time.Date(2200, 1, 2, 3, 4, 5, 6, time.UTC) })
	finer, err := job.New(id(2), job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}, time.Date(1999, 1, 2, 3, 4, 5, 678_901_234, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, &store.Batch{Accepted: []*job.Job{later, &finer}})
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	wantJob(t, s, later)
	wantJob(t, s, &finer)
	var got []job.Job
	if _, err := s.Unfinished(t.Context(), func(j job.Job) error { got = append(got, j); return nil }); err != nil ||
		!reflect.DeepEqual(got, []job.Job{*later, finer}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func emptyBatch(t *testing.T, h Harness) {
	s := open(t, h)
	term := lead(t, s)
	commit(t, s, &store.Batch{})
	commit(t, s, &store.Batch{Term: term})
	appendLogs(t, s)
	if all := listAll(t, s, store.Filter{}, 10); len(all) != 0 {
		t.Errorf("an empty store has %v", all)
	}
}
