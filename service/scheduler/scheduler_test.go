package scheduler_test

import (
	"fmt"
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

func queued(id string, cpu, priority int32, constraints ...job.Constraint) *job.Job {
	return &job.Job{
		ID: job.ID(id), State: job.Queued, Created: time.Unix(int64(len(id)), 0),
		Spec: &job.Spec{Resources: job.Resources{MilliCPU: cpu}, Priority: priority, Constraints: constraints},
	}
}

func TestUrgentJobsComeFirst(t *testing.T) {
	t.Parallel()
	view := scheduler.View{
		Workers: []*job.Worker{worker("w", 1000, nil)},
		Queued:  []*job.Job{queued("old", 1000, 0), queued("urgent", 1000, 5)},
	}
	plan := scheduler.Place(view)
	if len(plan.Placements) != 1 || plan.Placements[0].Job != "urgent" || len(plan.Rejections) != 1 {
		t.Errorf("the plan is %+v", plan)
	}
}

func TestJobsArePackedSoThatLargeOnesFindRoom(t *testing.T) {
	t.Parallel()
	half := worker("half", 4000, func(w *job.Worker) { w.Take("x", job.Resources{MilliCPU: 2000}) })
	plan := scheduler.Place(scheduler.View{
		Workers: []*job.Worker{worker("empty", 4000, nil), half},
		Queued:  []*job.Job{queued("a", 2000, 0), queued("bb", 4000, 0)},
	})
	want := []scheduler.Placement{{Job: "a", Worker: "half"}, {Job: "bb", Worker: "empty"}}
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
		"1 worker (w) without label gpu=a100|h100": {nil, queued("j", 0, 0, gpu)},
		"1 worker (w) too small for 9 CPUs":        {nil, queued("j", 9000, 0)},
		"1 worker (w) not connected":               {func(w *job.Worker) { w.Connected = false }, queued("j", 0, 0)},
		"1 worker (w) draining":                    {func(w *job.Worker) { w.Draining = true }, queued("j", 0, 0)},
		"1 worker (w) with all slots taken":        {func(w *job.Worker) { w.Slots = 0 }, queued("j", 0, 0)},
		"busy: the job needs 4 CPUs, at most 1 CPUs and 1000 MiB are free": {
			func(w *job.Worker) { w.Take("x", job.Resources{MilliCPU: 3000}) }, queued("j", 4000, 0),
		},
	} {
		plan := scheduler.Place(scheduler.View{Workers: []*job.Worker{worker("w", 4000, tc.edit)}, Queued: []*job.Job{tc.job}})
		if len(plan.Rejections) != 1 || !strings.Contains(plan.Rejections[0].Reason, text) {
			t.Errorf("got %+v, want %q", plan, text)
		}
	}
	plan := scheduler.Place(scheduler.View{Queued: []*job.Job{queued("j", 0, 0)}})
	if !strings.Contains(plan.Rejections[0].Reason, "no worker has ever connected") {
		t.Errorf("without workers: %+v", plan)
	}
}

// Whatever the view: no worker gets more than it has free, or what it may not have, every job is decided on once, a
// rejected job fits nowhere in what the plan leaves, and the order of the lists does not matter.
func TestPlans(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var view scheduler.View
		for i := range rapid.IntRange(0, 6).Draw(t, "workers") {
			w := worker(fmt.Sprintf("w%d", i), rapid.Int32Range(0, 8).Draw(t, "capacity")*500, func(w *job.Worker) {
				w.Slots = rapid.Int32Range(0, 3).Draw(t, "slots")
				w.Connected = rapid.IntRange(0, 4).Draw(t, "connected") > 0
				w.Draining = rapid.IntRange(0, 4).Draw(t, "draining") == 0
				w.Labels["disk"] = rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk")
				if rapid.Bool().Draw(t, "busy") {
					w.Take("x", job.Resources{MilliCPU: w.Capacity.MilliCPU / 2})
				}
			})
			view.Workers = append(view.Workers, w)
		}
		for i := range rapid.IntRange(0, 12).Draw(t, "jobs") {
			j := queued(fmt.Sprintf("j%02d", i), rapid.Int32Range(0, 8).Draw(t, "cpu")*500, rapid.Int32Range(-1, 1).Draw(t, "priority"))
			if rapid.Bool().Draw(t, "constrained") {
				j.Spec.Constraints = []job.Constraint{{Label: "disk", Operator: job.OperatorIn, Values: []string{"ssd"}}}
			}
			view.Queued = append(view.Queued, j)
		}
		plan := scheduler.Place(view)
		check(t, view, plan)
		shuffled := scheduler.View{Workers: slices.Clone(view.Workers), Queued: slices.Clone(view.Queued)}
		seed := rapid.Uint64().Draw(t, "seed")
		r := rand.New(rand.NewPCG(seed, 0))
		r.Shuffle(len(shuffled.Workers), func(i, j int) {
			shuffled.Workers[i], shuffled.Workers[j] = shuffled.Workers[j], shuffled.Workers[i]
		})
		r.Shuffle(len(shuffled.Queued), func(i, j int) {
			shuffled.Queued[i], shuffled.Queued[j] = shuffled.Queued[j], shuffled.Queued[i]
		})
		if again := scheduler.Place(shuffled); !slices.Equal(again.Placements, plan.Placements) {
			t.Fatalf("another order gave another plan: %v and %v", plan.Placements, again.Placements)
		}
	})
}

func check(t *rapid.T, view scheduler.View, plan scheduler.Plan) {
	if len(plan.Placements)+len(plan.Rejections) != len(view.Queued) {
		t.Fatalf("%d jobs, %d placed, %d rejected", len(view.Queued), len(plan.Placements), len(plan.Rejections))
	}
	jobs, workers := map[job.ID]*job.Job{}, map[job.WorkerID]*job.Worker{}
	for _, j := range view.Queued {
		jobs[j.ID] = j
	}
	for _, w := range view.Workers {
		left := *w
		left.Jobs = map[job.ID]struct{}{}
		for id := range w.Jobs {
			left.Jobs[id] = struct{}{}
		}
		workers[w.ID] = &left
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
		j, w := jobs[p.Job], workers[p.Worker]
		if !may(j, w) || w.FreeSlots() < 1 || !w.Free().Covers(j.Spec.Resources) {
			t.Fatalf("%s was given to %s, which cannot take it", p.Job, p.Worker)
		}
		w.Take(p.Job, j.Spec.Resources)
	}
	for _, r := range plan.Rejections {
		for _, w := range workers {
			if j := jobs[r.Job]; may(j, w) && w.FreeSlots() > 0 && w.Free().Covers(j.Spec.Resources) {
				t.Fatalf("%s was rejected (%s) though %s has room", r.Job, r.Reason, w.ID)
			}
		}
	}
}
