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
		ID: job.WorkerID(id), Name: id, Connected: true, Slots: 4, Labels: map[string]string{"os": "linux"},
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

// place puts jobs into a backlog and places them.
func place(workers []*job.Worker, jobs ...*job.Job) (*scheduler.Backlog, scheduler.Plan) {
	b := scheduler.NewBacklog()
	for _, j := range jobs {
		b.Add(j.ID, j.Spec)
	}
	return b, b.Place(workers)
}

func TestUrgentJobsComeFirst(t *testing.T) {
	t.Parallel()
	b, plan := place([]*job.Worker{worker("w", 1000, nil)}, queued(1, 1000, 0), queued(2, 1000, 5))
	if len(plan.Placements) != 1 || plan.Placements[0].Job != id(2) || len(plan.Rejections) != 1 || b.Len() != 1 {
		t.Errorf("the plan is %+v", plan)
	}
}

func TestOldJobsComeFirstInWhateverOrderTheyArrive(t *testing.T) {
	t.Parallel()
	_, plan := place([]*job.Worker{worker("w", 1000, nil)}, queued(3, 0, 0), queued(1, 100, 0), queued(2, 0, 0), queued(4, 100, 0))
	for i, p := range plan.Placements {
		if p.Job != id(i+1) {
			t.Errorf("place %d went to %v", i, p.Job)
		}
	}
}

func TestJobsArePackedSoThatLargeOnesFindRoom(t *testing.T) {
	t.Parallel()
	half := worker("half", 4000, func(w *job.Worker) { w.Take(job.Resources{MilliCPU: 2000}) })
	_, plan := place([]*job.Worker{worker("empty", 4000, nil), half}, queued(1, 2000, 0), queued(2, 4000, 0))
	want := []scheduler.Placement{{Job: id(1), Worker: "half"}, {Job: id(2), Worker: "empty"}}
	if !slices.Equal(plan.Placements, want) {
		t.Errorf("the plan is %+v", plan.Placements)
	}
}

func TestEveryObstacleIsExplained(t *testing.T) {
	t.Parallel()
	gpu := job.Constraint{Label: "gpu", Operator: job.OperatorIn, Values: []string{"a100", "h100"}}
	for text, tc := range map[string]struct {
		edit func(*job.Worker)
		job  *job.Job
	}{
		"1 worker (w) without label gpu=a100|h100": {nil, queued(1, 0, 0, gpu)},
		"1 worker (w) too small for 9 CPUs":        {nil, queued(1, 9000, 0)},
		"1 worker (w) not connected":               {func(w *job.Worker) { w.Connected = false }, queued(1, 0, 0)},
		"1 worker (w) draining":                    {func(w *job.Worker) { w.Draining = true }, queued(1, 0, 0)},
		"1 worker (w) with all slots taken":        {func(w *job.Worker) { w.Slots = 0 }, queued(1, 0, 0)},
		"busy: the job needs 4 CPUs, at most 1 CPUs and 1000 MiB are free": {
			func(w *job.Worker) { w.Take(job.Resources{MilliCPU: 3000}) }, queued(1, 4000, 0),
		},
	} {
		_, plan := place([]*job.Worker{worker("w", 4000, tc.edit)}, tc.job)
		if reason := plan.Rejections[scheduler.ClassOf(tc.job.Spec)]; !strings.Contains(reason, text) {
			t.Errorf("got %+v, want %q", plan, text)
		}
	}
	j := queued(1, 0, 0)
	if _, plan := place(nil, j); !strings.Contains(plan.Rejections[scheduler.ClassOf(j.Spec)], "no worker has ever connected") {
		t.Errorf("without workers: %+v", plan)
	}
}

// Whatever the backlog: no worker gets more than it has free, or what it may not have, every job is decided on once, a
// rejected job fits nowhere in what the plan leaves, and the order in which things are named does not matter.
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
				if rapid.Bool().Draw(t, "busy") {
					w.Take(job.Resources{MilliCPU: w.Capacity.MilliCPU / 2})
				}
			}))
		}
		var jobs []*job.Job
		for i := range rapid.IntRange(0, 12).Draw(t, "jobs") {
			j := queued(i, rapid.Int32Range(0, 8).Draw(t, "cpu")*500, rapid.Int32Range(-1, 1).Draw(t, "priority"))
			if rapid.Bool().Draw(t, "constrained") {
				j.Spec.Constraints = []job.Constraint{{Label: "disk", Operator: job.OperatorIn, Values: []string{"ssd"}}}
			}
			jobs = append(jobs, j)
		}
		b, plan := place(workers, jobs...)
		check(t, workers, jobs, b, plan)
		shuffledWorkers, shuffledJobs := slices.Clone(workers), slices.Clone(jobs)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		r.Shuffle(len(workers), func(i, j int) {
			shuffledWorkers[i], shuffledWorkers[j] = shuffledWorkers[j], shuffledWorkers[i]
		})
		r.Shuffle(len(jobs), func(i, j int) { shuffledJobs[i], shuffledJobs[j] = shuffledJobs[j], shuffledJobs[i] })
		if _, again := place(shuffledWorkers, shuffledJobs...); !slices.Equal(again.Placements, plan.Placements) {
			t.Fatalf("another order gave another plan: %v and %v", plan.Placements, again.Placements)
		}
	})
}

func check(t *rapid.T, workers []*job.Worker, jobs []*job.Job, b *scheduler.Backlog, plan scheduler.Plan) {
	if len(plan.Placements)+b.Len() != len(jobs) {
		t.Fatalf("%d jobs, %d placed, %d left", len(jobs), len(plan.Placements), b.Len())
	}
	byID, left := map[job.ID]*job.Job{}, map[job.WorkerID]*job.Worker{}
	for _, j := range jobs {
		byID[j.ID] = j
	}
	for _, w := range workers {
		c := *w
		left[w.ID] = &c
	}
	may := func(j *job.Job, w *job.Worker) bool {
		for i := range j.Spec.Constraints {
			if !j.Spec.Constraints[i].Holds(w.Labels) {
				return false
			}
		}
		return w.Connected && !w.Draining
	}
	for _, p := range plan.Placements {
		j, w := byID[p.Job], left[p.Worker]
		if j == nil || !may(j, w) || w.FreeSlots() < 1 || !w.Free().Covers(j.Spec.Resources) {
			t.Fatalf("%s was given to %s, which cannot take it, or twice", p.Job, p.Worker)
		}
		w.Take(j.Spec.Resources)
		delete(byID, p.Job)
	}
	for _, j := range byID {
		reason := plan.Rejections[scheduler.ClassOf(j.Spec)]
		for _, w := range left {
			if reason == "" || may(j, w) && w.FreeSlots() > 0 && w.Free().Covers(j.Spec.Resources) {
				t.Fatalf("%s was rejected (%q) though %s has room", j.ID, reason, w.ID)
			}
		}
	}
}

// The backlog holds exactly what was added and neither removed nor placed, whatever the order.
func TestBacklogIsASet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, want := scheduler.NewBacklog(), map[int]bool{}
		spec := &job.Spec{}
		for range rapid.IntRange(0, 6).Draw(t, "rounds") {
			start, n := rapid.IntRange(0, 8000).Draw(t, "start"), rapid.IntRange(1, 4000).Draw(t, "count")
			step := rapid.IntRange(1, 3).Draw(t, "step")
			add := rapid.Bool().Draw(t, "add")
			for i := range n {
				if at := start + i*step; add {
					b.Add(id(at), spec)
					want[at] = true
				} else {
					b.Remove(id(at), spec)
					delete(want, at)
				}
			}
			if b.Len() != len(want) {
				t.Fatalf("%d jobs, want %d", b.Len(), len(want))
			}
		}
		plan := b.Place([]*job.Worker{{ID: "w", Connected: true, Slots: 100_000}})
		expected := slices.Sorted(maps.Keys(want))
		for i, p := range plan.Placements {
			if p.Job != id(expected[i]) {
				t.Fatalf("place %d went to %v, want %d", i, p.Job, expected[i])
			}
		}
		if len(plan.Placements) != len(expected) || b.Len() != 0 {
			t.Fatalf("%d of %d placed, %d left", len(plan.Placements), len(expected), b.Len())
		}
	})
}
