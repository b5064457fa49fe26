package bench

import (
	"context"
	"testing"
)

// What is measured is what the measurement says: a cluster that stays full, in which as many jobs start as end.
// It changes how many processors the program uses, so it runs alone.
func TestLoadsAreSteady(t *testing.T) {
	o := SchedOptions{Workers: 40, Jobs: 2500, Seed: 1}
	plain, policies, large := plainLoad(o), policyLoad(o), largeLoad(SchedOptions{Workers: 10, Jobs: 2500, Seed: 1})
	if err := measureSpeed(t.Context(), plain, policies, large); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*schedLoad{"plain": plain, "policies": policies, "large": large} {
		r := l.speed()
		if r.Jobs < o.Jobs || r.PlacementsPerSecond <= 0 || r.PassMillis.P99 < r.PassMillis.P50 || len(l.rates) != slicesTaken {
			t.Errorf("%s: %+v", name, r)
		}
		if r.Cores <= 0 || r.Cores > 1.5 {
			t.Errorf("%s: one core is %v cores", name, r.Cores)
		}
		if r.Full < 0.8 || r.Full > 1 || r.Running < l.workers {
			t.Errorf("%s: %.2f of the cluster is held by %d jobs", name, r.Full, r.Running)
		}
		held := 0
		for _, list := range l.due {
			held += len(list)
		}
		if held != r.Running {
			t.Errorf("%s: %d jobs run and %d will end", name, r.Running, held)
		}
	}
	if w := plain.speed().Waiting; w > 50 {
		t.Errorf("%.0f jobs wait where there is room for all", w)
	}
	if w := large.speed().Waiting; w < 0.5*float64(large.backlog) || large.workers != 100 {
		t.Errorf("%.0f jobs wait on %d workers", w, large.workers)
	}
}

func TestTheSameSeedGivesTheSameLoad(t *testing.T) {
	counts := func() (int, int64) {
		l := policyLoad(SchedOptions{Workers: 16, Jobs: 2000, Seed: 5})
		if err := measureSpeed(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		return l.result.Jobs, l.cpu
	}
	jobs, cpu := counts()
	if again, cpuAgain := counts(); again != jobs || cpuAgain != cpu {
		t.Errorf("%d jobs and %d thousandths of CPUs the first time, %d and %d the second", jobs, cpu, again, cpuAgain)
	}
}

func TestSchedSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	if _, err := Sched(t.Context(), SchedOptions{}); err == nil {
		t.Error("nothing is measured without workers")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Sched(ctx, SchedOptions{Workers: 5, Jobs: 1000}); err == nil {
		t.Error("it goes on although nobody wants it any more")
	}
}
