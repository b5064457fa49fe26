package scheduler_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

func worker(id string, cpu int32, edit func(*job.Worker)) *job.Worker {
	w := &job.Worker{
		ID: job.WorkerID(id), Name: id, Connected: true, Slots: 4, Labels: map[string]string{"os": "linux"}, Capabilities: []string{"memory-limit"},
		Capacity: job.Resources{MilliCPU: cpu, MemoryMiB: 1000},
	}
	if edit != nil {
		edit(w)
	}
	return w
}

// queued makes the n-th job.
func queued(n int, cpu, priority int32, constraints ...job.Constraint) *job.Job {
	return &job.Job{
		ID: id(n), State: job.Queued,
		Spec: &job.Spec{Resources: job.Resources{MilliCPU: cpu}, Priority: priority, Constraints: constraints},
	}
}

func id(n int) job.ID { return job.NewID(time.Unix(int64(n), 0), 0, 0) }

// at is a moment after all jobs were made.
var at = time.Unix(1_000_000, 0)

// place lets jobs wait and places them.
func place(workers []*job.Worker, jobs ...*job.Job) (*scheduler.Scheduler, scheduler.Plan) {
	s := scheduler.New(scheduler.Options{})
	for _, w := range workers {
		s.SetWorker(w)
	}
	for _, j := range jobs {
		s.Add(j.ID, j.Spec, false)
	}
	return s, s.Place(at)
}

// placed writes a plan as job:worker, jobs by their numbers.
func placed(plan scheduler.Plan) string {
	var parts []string
	for _, p := range plan.Placements {
		parts = append(parts, fmt.Sprintf("%d:%s", p.Job.Time().Unix(), p.Worker))
	}
	return strings.Join(parts, " ")
}

func busy(s *scheduler.Scheduler, worker string, r job.Resources) {
	s.Begin(id(0), &job.Spec{Resources: r}, false, job.WorkerID(worker), at)
}

func TestUrgentJobsComeFirst(t *testing.T) {
	t.Parallel()
	s, plan := place([]*job.Worker{worker("w", 1000, nil)}, queued(1, 1000, 0), queued(2, 1000, 5))
	if got := placed(plan); got != "2:w" || s.Len() != 1 {
		t.Errorf("the plan is %s", got)
	}
}

func TestOldJobsComeFirstInWhateverOrderTheyArrive(t *testing.T) {
	t.Parallel()
	_, plan := place([]*job.Worker{worker("w", 1000, nil)}, queued(3, 0, 0), queued(1, 100, 0), queued(2, 0, 0), queued(4, 100, 0))
	if got := placed(plan); got != "1:w 2:w 3:w 4:w" {
		t.Errorf("the plan is %s", got)
	}
}

func TestJobsArePackedSoThatLargeOnesFindRoom(t *testing.T) {
	t.Parallel()
	s := scheduler.New(scheduler.Options{})
	s.SetWorker(worker("empty", 4000, nil))
	s.SetWorker(worker("half", 4000, nil))
	busy(s, "half", job.Resources{MilliCPU: 2000})
	s.Add(id(1), queued(1, 2000, 0).Spec, false)
	s.Add(id(2), queued(2, 4000, 0).Spec, false)
	if got := placed(s.Place(at)); got != "1:half 2:empty" {
		t.Errorf("the plan is %s", got)
	}
}

func requires(j *job.Job) *job.Job {
	j.Spec.Placement = &job.Placement{Requires: []string{"memory-limit", "terminal"}}
	return j
}

func TestEveryObstacleIsExplained(t *testing.T) {
	t.Parallel()
	gpu := job.Constraint{Label: "gpu", Operator: job.OperatorIn, Values: []string{"a100", "h100"}}
	for text, tc := range map[string]struct {
		edit func(*job.Worker)
		job  *job.Job
	}{
		"1 worker (w) without label gpu=a100|h100":                        {nil, queued(1, 0, 0, gpu)},
		"1 worker (w) too small for 9 CPUs":                               {nil, queued(1, 9000, 0)},
		"1 worker (w) without the capability terminal":                    {nil, requires(queued(1, 0, 0))},
		"1 worker (w) not connected":                                      {func(w *job.Worker) { w.Connected = false }, queued(1, 0, 0)},
		"1 worker (w) draining":                                           {func(w *job.Worker) { w.Draining = true }, queued(1, 0, 0)},
		"1 worker (w) with all slots taken":                               {func(w *job.Worker) { w.Slots = 1 }, queued(1, 0, 0)},
		"1 worker (w) only for jobs that tolerate batch":                  {func(w *job.Worker) { w.Taints = []string{"batch"} }, queued(1, 0, 0)},
		"busy: the job needs 4 CPUs, at most 1 CPU and 1000 MiB are free": {nil, queued(1, 4000, 0)},
	} {
		s := scheduler.New(scheduler.Options{})
		s.SetWorker(worker("w", 4000, tc.edit))
		busy(s, "w", job.Resources{MilliCPU: 3000})
		s.Add(tc.job.ID, tc.job.Spec, false)
		plan := s.Place(at)
		if e := s.Explain(tc.job.ID, tc.job.Spec, false, at); len(plan.Placements) > 0 || !strings.Contains(e.Text, text) {
			t.Errorf("got %q, want %q", e.Text, text)
		}
	}
	s, _ := place(nil, queued(1, 0, 0))
	if e := s.Explain(id(1), queued(1, 0, 0).Spec, false, at); !strings.Contains(e.Text, "no worker has ever connected") {
		t.Errorf("without workers: %+v", e)
	}
}

// Whatever waits: no worker gets more than it has free, or what it may not have, every job is decided on once, a job that is left
// fits nowhere in what the plan leaves, and the order in which things are named does not matter.
func TestPlans(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var workers []*job.Worker
		for i := range rapid.IntRange(0, 6).Draw(t, "workers") {
			workers = append(workers, worker(fmt.Sprintf("w%d", i), rapid.Int32Range(0, 8).Draw(t, "capacity")*500, func(w *job.Worker) {
				w.Slots = rapid.Int32Range(0, 3).Draw(t, "slots")
				w.Connected = rapid.IntRange(0, 4).Draw(t, "connected") > 0
				w.Draining = rapid.IntRange(0, 4).Draw(t, "draining") == 0
				w.Labels["disk"] = rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk")
				w.Queues = drawScope(t)
			}))
		}
		var jobs []*job.Job
		for i := range rapid.IntRange(0, 12).Draw(t, "jobs") {
			j := queued(i+1, rapid.Int32Range(0, 8).Draw(t, "cpu")*500, rapid.Int32Range(-1, 1).Draw(t, "priority"))
			if rapid.Bool().Draw(t, "constrained") {
				j.Spec.Constraints = []job.Constraint{{Label: "disk", Operator: job.OperatorIn, Values: []string{"ssd"}}}
			}
			j.Spec.Namespace = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace")
			j.Spec.Queue = rapid.SampledFrom([]string{"x", "y"}).Draw(t, "queue")
			jobs = append(jobs, j)
		}
		s, plan := place(workers, jobs...)
		check(t, workers, jobs, s, plan)
		shuffledWorkers, shuffledJobs := slices.Clone(workers), slices.Clone(jobs)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		r.Shuffle(len(workers), func(i, j int) {
			shuffledWorkers[i], shuffledWorkers[j] = shuffledWorkers[j], shuffledWorkers[i]
		})
		r.Shuffle(len(jobs), func(i, j int) { shuffledJobs[i], shuffledJobs[j] = shuffledJobs[j], shuffledJobs[i] })
		if _, again := place(shuffledWorkers, shuffledJobs...); placed(again) != placed(plan) {
			t.Fatalf("another order gave another plan: %v and %v", placed(plan), placed(again))
		}
	})
}

func check(t *rapid.T, workers []*job.Worker, jobs []*job.Job, s *scheduler.Scheduler, plan scheduler.Plan) {
	if len(plan.Placements)+s.Len() != len(jobs) {
		t.Fatalf("%d jobs, %d placed, %d left", len(jobs), len(plan.Placements), s.Len())
	}
	byID, left := map[job.ID]*job.Job{}, map[job.WorkerID]*job.Worker{}
	for _, j := range jobs {
		byID[j.ID] = j
	}
	free := map[job.WorkerID]job.Resources{}
	for _, w := range workers {
		c := *w
		left[w.ID], free[w.ID] = &c, w.Capacity
	}
	may := func(j *job.Job, w *job.Worker) bool {
		for i := range j.Spec.Constraints {
			if !j.Spec.Constraints[i].Holds(w.Labels) {
				return false
			}
		}
		return serves(w, j.Spec) && w.Connected && !w.Draining && w.Slots > 0 && free[w.ID].Covers(j.Spec.Resources)
	}
	for _, p := range plan.Placements {
		j, w := byID[p.Job], left[p.Worker]
		if j == nil || !may(j, w) {
			t.Fatalf("%s was given to %s, which cannot take it, or twice", p.Job, p.Worker)
		}
		w.Slots--
		free[w.ID] = free[w.ID].Sub(j.Spec.Resources)
		delete(byID, p.Job)
	}
	for _, j := range byID {
		e := s.Explain(j.ID, j.Spec, false, at)
		if e.Text == "" {
			t.Fatalf("%s waits without a reason", j.ID)
		}
		for _, w := range left {
			if may(j, w) && e.Limit != "reservation" {
				t.Fatalf("%s waits (%q) though %s has room", j.ID, e.Text, w.ID)
			}
		}
	}
}

// What a worker's jobs hold is what they need, whichever come and go.
func TestTakingAndGivingIsEven(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := scheduler.New(scheduler.Options{})
		s.SetWorker(worker("w", 4000, func(w *job.Worker) { w.Capacity.Extras = map[string]int32{"gpu": 2} }))
		type held struct {
			place *scheduler.Running
			need  job.Resources
		}
		var taken []held
		for n := range rapid.IntRange(0, 30).Draw(t, "length") {
			if len(taken) == 0 || rapid.Bool().Draw(t, "take") {
				need := job.Resources{MilliCPU: rapid.Int32Range(0, 9).Draw(t, "cpu"), Extras: map[string]int32{"gpu": rapid.Int32Range(0, 1).Draw(t, "gpu")}}
				taken = append(taken, held{s.Begin(id(n), &job.Spec{Resources: need}, false, "w", at), need})
			} else {
				s.End(taken[0].place)
				taken = taken[1:]
			}
			var sum job.Resources
			for _, h := range taken {
				sum = sum.Add(h.need)
			}
			got, places := s.Held("w")
			if got.MilliCPU != sum.MilliCPU || got.Extras["gpu"] != sum.Extras["gpu"] || int(places) != len(taken) {
				t.Fatalf("%+v is held, jobs need %+v", got, sum)
			}
		}
	})
}

// What waits is exactly what was added and neither removed nor placed, whatever the order.
func TestWaitingJobsAreASet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, want := scheduler.New(scheduler.Options{Work: 1 << 30}), map[int]bool{}
		spec := &job.Spec{}
		for range rapid.IntRange(0, 6).Draw(t, "rounds") {
			start, n := rapid.IntRange(0, 8000).Draw(t, "start"), rapid.IntRange(1, 4000).Draw(t, "count")
			step := rapid.IntRange(1, 3).Draw(t, "step")
			add := rapid.Bool().Draw(t, "add")
			for i := range n {
				if at := start + i*step; add {
					s.Add(id(at), spec, false)
					want[at] = true
				} else {
					s.Remove(id(at), spec, false)
					delete(want, at)
				}
			}
			if s.Len() != len(want) {
				t.Fatalf("%d jobs, want %d", s.Len(), len(want))
			}
		}
		s.SetWorker(&job.Worker{ID: "w", Connected: true, Slots: 100_000})
		plan := s.Place(at)
		expected := slices.Sorted(maps.Keys(want))
		for i, p := range plan.Placements {
			if p.Job != id(expected[i]) {
				t.Fatalf("place %d went to %v, want %d", i, p.Job, expected[i])
			}
		}
		if len(plan.Placements) != len(expected) || s.Len() != 0 {
			t.Fatalf("%d of %d placed, %d left", len(plan.Placements), len(expected), s.Len())
		}
	})
}

// Settings that change what a shape is are taken in by queues of which a pass has left no job, and by those that have had some before.
func TestQueueWithoutJobsIsGroupedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{Work: 1}, worker("a", 4000, nil), worker("b", 4000, nil))
	w.add(cpu(1000))
	full := w.place()[2:]
	w.queue("default", func(q *job.Queue) { q.Scoring.Spread = true })
	w.add(cpu(1000))
	if got := w.place()[2:]; got == full {
		t.Errorf("in a queue that spreads its jobs both went to %s", got)
	}
}
