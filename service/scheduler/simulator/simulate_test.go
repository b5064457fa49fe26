package simulator

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

// asks makes a job of the default queue.
func asks(number int, submit, runtime, limit time.Duration, cpus int32) Job {
	return Job{
		Number: number, Submit: submit, Runtime: runtime, Limit: limit, MilliCPU: 1000 * cpus,
		Namespace: job.DefaultNamespace, Queue: job.DefaultQueue,
	}
}

func mustRun(t *testing.T, setup Setup) *Result {
	t.Helper()
	r, err := Run(t.Context(), setup)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Three jobs on one worker of 2 CPUs: the second needs all of it and waits for the first, and the third is so short that it can run
// beside the first without delaying the second.
var three = []Job{
	asks(1, 0, 100*time.Second, 100*time.Second, 1),
	asks(2, 10*time.Second, 50*time.Second, 50*time.Second, 2),
	asks(3, 20*time.Second, 30*time.Second, 30*time.Second, 1),
}

func TestFirstComeFirstServedLetsNobodyPass(t *testing.T) {
	t.Parallel()
	r := mustRun(t, Setup{Cluster: Cluster{Workers: 1, MilliCPU: 2000}, Jobs: three, FirstCome: true})
	if want := (Distribution{Mean: (0 + 90 + 130) / 3.0, P50: 90, P95: 130}); r.Wait != want || r.BackfilledShare != 0 {
		t.Errorf("the waits are %+v, backfilled %v", r.Wait, r.BackfilledShare)
	}
	// Until the last start, at 150 s, 1 CPU ran for 100 s and 2 for 50 s.
	if want := 200.0 / (2 * 150); r.Utilisation != want || r.Makespan != 180 || r.Ended != 3 {
		t.Errorf("%+v", r)
	}
	// Slowdowns: 1, (90+50)/50 and (130+30)/30.
	if want := (1 + 140.0/50 + 160.0/30) / 3; r.Slowdown.Mean != want {
		t.Errorf("the mean slowdown is %v, want %v", r.Slowdown.Mean, want)
	}
}

func TestTheSchedulerBackfills(t *testing.T) {
	t.Parallel()
	r := mustRun(t, Setup{Cluster: Cluster{Workers: 1, MilliCPU: 2000}, Jobs: three})
	if want := (Distribution{Mean: 30, P50: 0, P95: 90}); r.Wait != want || r.BackfilledShare != 1.0/3 {
		t.Errorf("the waits are %+v, backfilled %v", r.Wait, r.BackfilledShare)
	}
	if len(r.Classes) != 1 || r.Classes[0].Class != "large" || r.Classes[0].Jobs != 3 {
		t.Errorf("the classes are %+v", r.Classes)
	}
}

func TestShortJobsHaveBoundedSlowdowns(t *testing.T) {
	t.Parallel()
	r := mustRun(t, Setup{Cluster: Cluster{Workers: 1, MilliCPU: 1000}, FirstCome: true, Jobs: []Job{
		asks(1, 0, 20*time.Second, 20*time.Second, 1), asks(2, 0, time.Second, time.Second, 1),
	}})
	if want := (1 + 21.0/10) / 2; r.Slowdown.Mean != want {
		t.Errorf("the mean slowdown is %v, want %v", r.Slowdown.Mean, want)
	}
}

func TestWhatIsTooLargeIsLeftOut(t *testing.T) {
	t.Parallel()
	large := asks(2, 0, time.Second, time.Second, 3)
	hungry := asks(3, 0, time.Second, time.Second, 1)
	hungry.MemoryMiB = 101
	for _, first := range []bool{true, false} {
		r := mustRun(t, Setup{Cluster: Cluster{Workers: 4, MilliCPU: 2000, MemoryMiB: 100}, Jobs: []Job{three[0], large, hungry}, FirstCome: first})
		if r.Ended != 1 || r.TooLarge != 2 {
			t.Errorf("%+v", r)
		}
		r = mustRun(t, Setup{Cluster: Cluster{Workers: 4, MilliCPU: 2000}, Jobs: []Job{three[0], hungry}, FirstCome: first})
		if r.Ended != 2 {
			t.Errorf("memory matters although nobody asked: %+v", r)
		}
	}
}

func TestNamespacesGetWhatTheyAreDue(t *testing.T) {
	t.Parallel()
	policy := &Policy{Namespaces: []NamespacePolicy{{Name: "a", Weight: 1}, {Name: "b", Weight: 3}}}
	var jobs []Job
	for i := range 4000 {
		j := asks(i, 0, time.Duration(50+i*7%100)*time.Second, time.Hour, 1)
		if j.Namespace = "b"; i%4 == 0 {
			j.Namespace = "a"
		}
		jobs = append(jobs, j)
	}
	setup := Setup{Cluster: Cluster{Workers: 10, MilliCPU: 8000}, Jobs: jobs, Policy: policy}
	f := mustRun(t, setup).Fairness
	if f == nil || f.Deviation > 0.02 || f.Jain < 0.999 || f.Namespaces[0].Due != 0.25 || f.Namespaces[1].Weight != 3 {
		t.Fatalf("%+v", f)
	}
	setup.Jobs = jobs[:10]
	if f := mustRun(t, setup).Fairness; f != nil {
		t.Errorf("nobody waited, and yet %+v", f)
	}
}

func TestLimitsHold(t *testing.T) {
	t.Parallel()
	policy := &Policy{
		Namespaces: []NamespacePolicy{{Name: "a", Limits: Limits{MilliCPU: 2000}}, {Name: "slow", Limits: Limits{StartsPerMinute: 6}}},
		Queues:     []QueuePolicy{{Namespace: "b", Name: "off", Paused: true}},
	}
	var jobs []Job
	for i := range 6 {
		j := asks(i, 0, time.Minute, time.Hour, 1)
		j.Namespace = "a"
		slow := asks(10+i, 0, time.Second, time.Hour, 1)
		slow.Namespace = "slow"
		off := asks(20+i, 0, time.Second, time.Hour, 1)
		off.Namespace, off.Queue = "b", "off"
		jobs = append(jobs, j, slow, off)
	}
	for i := range jobs {
		jobs[i].Class = jobs[i].Namespace
	}
	r := mustRun(t, Setup{Cluster: Cluster{Workers: 10, MilliCPU: 8000}, Jobs: jobs, Policy: policy})
	if r.Ended != 12 || r.NeverStarted != 6 {
		t.Errorf("%+v", r)
	}
	// Two at a time, a minute each; and one at once, then one each ten seconds.
	if a, slow := r.Classes[0].Wait, r.Classes[1].Wait; a.Mean != 60 || a.P95 != 120 || slow.P95 < 49.9 || slow.P95 > 50.1 {
		t.Errorf("the waits are %+v and %+v", a, slow)
	}
}

func TestPreemptedJobsBeginAgain(t *testing.T) {
	t.Parallel()
	policy := &Policy{Queues: []QueuePolicy{
		{Namespace: "n", Name: "low", Preemptible: true}, {Namespace: "n", Name: "high", Preempts: true, Band: 1},
	}}
	if err := policy.Complete(); err != nil {
		t.Fatal(err)
	}
	low, high := asks(1, 0, time.Hour, time.Hour, 2), asks(2, time.Minute, time.Minute, time.Minute, 2)
	low.Namespace, low.Queue, high.Namespace, high.Queue, high.Priority = "n", "low", "n", "high", 1
	r := mustRun(t, Setup{Cluster: Cluster{Workers: 1, MilliCPU: 2000}, Jobs: []Job{low, high}, Policy: policy})
	lost := (time.Minute + leaveTime).Seconds()
	if r.Preempted != 1 || r.LostCPUSeconds != 2*lost || r.Placements != 3 || r.Ended != 2 {
		t.Errorf("%+v", r)
	}
	if want := lost + 60; r.Wait.P95 != want || r.Makespan != want+3600 {
		t.Errorf("the waits are %+v, the makespan %v", r.Wait, r.Makespan)
	}
}

// Whatever the cluster, the jobs and the policy: no worker gets more than it has and everybody gives everything back, or Run fails;
// every job that fits ends, both disciplines do all the work, and the same setup gives the same result.
func TestSimulations(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		setup := Setup{
			Cluster: Cluster{
				Workers: rapid.IntRange(1, 6).Draw(t, "workers"), MilliCPU: rapid.Int32Range(1, 8).Draw(t, "cpus") * 500,
				MemoryMiB: rapid.SampledFrom([]int32{0, 100, 1000}).Draw(t, "memory"), Slots: rapid.Int32Range(0, 4).Draw(t, "slots"),
			},
			Jobs: drawJobs(t), Policy: drawPolicy(t), Promises: true,
		}
		if err := setup.Policy.Complete(); err != nil {
			t.Fatal(err)
		}
		var work [2]int
		for i, first := range []bool{true, false} {
			setup.FirstCome = first
			r, err := Run(t.Context(), setup)
			if err != nil {
				t.Fatal(err)
			}
			if r.Ended+r.TooLarge != r.Jobs || r.Placements != r.Ended+r.Preempted || first && r.Preempted > 0 {
				t.Fatalf("%+v", r)
			}
			if r.Utilisation < 0 || r.Utilisation > 1+1e-9 || r.BackfilledShare > 1 || first && r.BackfilledShare > 0 {
				t.Fatalf("%+v", r)
			}
			if r.Late != nil && *r.Late > 0 && r.Preempted == 0 && !limited(setup.Policy) {
				t.Fatalf("%d jobs started later than promised: %+v", *r.Late, r)
			}
			again, err := Run(t.Context(), setup)
			if err != nil || !reflect.DeepEqual(r, again) {
				t.Fatalf("two runs differ:\n%+v\n%+v", r, again)
			}
			work[i] = r.Ended
		}
		if work[0] != work[1] {
			t.Fatalf("%d jobs ended first come, first served, and %d by the scheduler", work[0], work[1])
		}
	})
}

func limited(p *Policy) bool {
	return slices.ContainsFunc(p.Namespaces, func(n NamespacePolicy) bool { return n.Limits != Limits{} }) ||
		slices.ContainsFunc(p.Queues, func(q QueuePolicy) bool { return q.Limits != Limits{} })
}

func drawJobs(t *rapid.T) []Job {
	jobs := make([]Job, rapid.IntRange(0, 40).Draw(t, "jobs"))
	for i := range jobs {
		runtime := time.Duration(rapid.IntRange(0, 200).Draw(t, "runtime")) * time.Second
		jobs[i] = Job{
			Number: i + 1, Submit: time.Duration(rapid.IntRange(0, 300).Draw(t, "submit")) * time.Second, Runtime: runtime,
			Limit:    runtime + time.Duration(rapid.IntRange(0, 300).Draw(t, "more"))*time.Second,
			MilliCPU: rapid.Int32Range(0, 9).Draw(t, "cpu") * 500, MemoryMiB: rapid.Int32Range(0, 6).Draw(t, "mib") * 50,
			Namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), Queue: rapid.SampledFrom([]string{"p", "q"}).Draw(t, "queue"),
			Priority: rapid.Int32Range(-2, 2).Draw(t, "priority"),
		}
	}
	return jobs
}

// drawPolicy draws settings that keep no job for ever.
func drawPolicy(t *rapid.T) *Policy {
	p := &Policy{Scheduler: Options{
		Reservations: rapid.IntRange(0, 4).Draw(t, "reservations"), SampleAbove: rapid.IntRange(0, 4).Draw(t, "sample"),
	}}
	free := rapid.Bool().Draw(t, "free")
	limits := func() Limits {
		if free {
			return Limits{}
		}
		return Limits{
			Running:         rapid.SampledFrom([]int32{0, 0, 1, 3}).Draw(t, "limit"),
			StartsPerMinute: rapid.SampledFrom([]int32{0, 0, 0, 7, 60}).Draw(t, "starts"),
			MilliCPU:        rapid.SampledFrom([]int32{0, 0, 4500}).Draw(t, "quota"),
		}
	}
	for _, n := range []string{"a", "b"} {
		if rapid.Bool().Draw(t, "namespaced") {
			p.Namespaces = append(p.Namespaces, NamespacePolicy{Name: n, Weight: rapid.Int32Range(1, 5).Draw(t, "weight"), Limits: limits()})
		}
		for _, q := range []string{"p", "q"} {
			ageing := time.Duration(rapid.IntRange(0, 2).Draw(t, "ageing")) * time.Minute
			p.Queues = append(p.Queues, QueuePolicy{
				Namespace: n, Name: q, Weight: rapid.Int32Range(1, 5).Draw(t, "weight"), Band: rapid.Int32Range(-1, 1).Draw(t, "band"), Ageing: &ageing,
				Limits: limits(), Preempts: rapid.Bool().Draw(t, "preempts"), Preemptible: rapid.Bool().Draw(t, "preemptible"),
			})
		}
	}
	return p
}

// The books of the simulator notice whoever breaks the rules.
func TestCheatsAreCaught(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]decision{
		"job 1 was given to worker 0, which has not enough free": {starts: []start{{1, 0}, {0, 0}}},
		"job 1 was placed and does not wait":                     {starts: []start{{0, 0}, {0, 0}}},
		"job 99 was placed and does not wait":                    {starts: []start{{99, 0}}},
		"job 1 was given to a worker that is not there":          {starts: []start{{0, 7}}},
		"job 2 was asked to make room and does not run":          {leaving: []int{1}},
		"wanted to be asked again at once":                       {again: true},
		"jobs that fit wait although nothing runs":               {},
	} {
		s, err := newSimulation(&Setup{Cluster: Cluster{Workers: 1, MilliCPU: 2000}, Jobs: []Job{
			asks(1, 0, time.Second, time.Second, 1), asks(2, 0, time.Second, time.Second, 2),
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.discipline = &cheat{d}
		for err == nil && s.step() {
			err = s.happen()
		}
		if err == nil {
			err = s.isAtRest()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// cheat always decides the same.
type cheat struct{ decision decision }

func (c *cheat) add(int, bool)                     {}
func (c *cheat) end(int)                           {}
func (c *cheat) place(time.Duration) decision      { return c.decision }
func (c *cheat) promised(func(int, time.Duration)) {}

func TestSetupsThatMakeNoSense(t *testing.T) {
	t.Parallel()
	good := Cluster{Workers: 1, MilliCPU: 1000}
	for want, setup := range map[string]Setup{
		"a cluster needs":         {},
		"job 5: its limit is 1s":  {Cluster: good, Jobs: []Job{asks(5, 0, 2*time.Second, time.Second, 1)}},
		"job 6: it is submitted":  {Cluster: good, Jobs: []Job{asks(6, -1, 0, 0, 1)}},
		"job 7: it asks for":      {Cluster: good, Jobs: []Job{asks(7, 0, 0, 0, -1)}},
		"takes more than 1752000": {Cluster: good, Jobs: slices.Repeat([]Job{asks(1, 0, job.MaxTimeout, job.MaxTimeout, 1)}, 300)},
	} {
		if _, err := Run(t.Context(), setup); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Setup{Cluster: good, Jobs: three[:1]}); err == nil {
		t.Error("a run goes on although nobody wants it any more")
	}
}

func TestPacking(t *testing.T) {
	t.Parallel()
	c := Cluster{MilliCPU: 4000, MemoryMiB: 4000}
	sized := func(cpus ...int32) []Job {
		var jobs []Job
		for i, n := range cpus {
			jobs = append(jobs, asks(i, 0, time.Second, time.Second, n))
		}
		return jobs
	}
	p, err := Pack(c, sized(1, 3, 2, 2, 1, 3, 9))
	if want := (Packing{Jobs: 6, Scheduler: p.Scheduler, Reference: 3, Least: 3, Excess: p.Excess}); err != nil || *p != want {
		t.Fatalf("%+v, %v", p, err)
	}
	if p, err = Pack(Cluster{MilliCPU: 32_000, MemoryMiB: 128 << 10}, Mix(2000, 1)); err != nil || p.Excess > 0.05 || p.Least > p.Reference {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = Pack(c, nil); err != nil || *p != (Packing{}) {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err = Pack(Cluster{MilliCPU: 1000}, nil); err == nil {
		t.Error("memory is no matter, and yet it is packed")
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	minute := time.Minute
	good := Policy{
		Namespaces: []NamespacePolicy{{Name: "a", Weight: 2}},
		Queues:     []QueuePolicy{{Name: "child", Parent: "parent", Ageing: &minute}, {Name: "parent"}},
	}
	if err := good.Complete(); err != nil {
		t.Fatal(err)
	}
	if s := good.Queues[0].settings(); s.Namespace != job.DefaultNamespace || s.Weight != job.DefaultWeight || s.Scoring != job.DefaultScoring {
		t.Errorf("the settings are %+v", s)
	}
	load := int32(0)
	if s := (&QueuePolicy{Scoring: Scoring{Spread: true, Load: &load}}).settings(); !s.Scoring.Spread || s.Scoring.Load != 0 {
		t.Errorf("the scoring is %+v", s.Scoring)
	}
	for want, p := range map[string]Policy{
		"scheduler: ":                             {Scheduler: Options{Work: -1}},
		"namespaces[1]: \"a\" was there before":   {Namespaces: []NamespacePolicy{{Name: "a"}, {Name: "a"}}},
		"namespaces[0]: ":                         {Namespaces: []NamespacePolicy{{Name: "A b"}}},
		"queues[1]: \"q\" of namespace":           {Queues: []QueuePolicy{{Name: "q"}, {Name: "q"}}},
		"queues[0]: band":                         {Queues: []QueuePolicy{{Name: "q", Band: 5000}}},
		"queues of namespace \"default\": parent": {Queues: []QueuePolicy{{Name: "q", Parent: "nobody"}}},
	} {
		if err := p.Complete(); err == nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
