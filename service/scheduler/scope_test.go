package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// drawScope draws whose jobs a worker gets, of the namespaces a and b with the queues x and y; most get all.
func drawScope(t *rapid.T) []string {
	return rapid.SampledFrom([][]string{nil, nil, nil, {"a/x"}, {"a/*"}, {"a/x", "b/y"}, {"b/*", "a/y"}, {"c/x"}}).Draw(t, "scope")
}

// serves says once more, in another way, whether a worker may get a job.
func serves(w *job.Worker, spec *job.Spec) bool {
	return len(w.Queues) == 0 || slices.Contains(w.Queues, spec.Namespace+"/"+spec.Queue) || slices.Contains(w.Queues, spec.Namespace+"/*")
}

func bound(scope ...string) func(*job.Worker) { return func(w *job.Worker) { w.Queues = scope } }

func TestWorkersGetJobsOfTheirQueuesOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("build", 4000, bound("default/builds")), worker("team", 4000, bound("default/*", "other/one")))
	w.queue("child", func(q *job.Queue) { q.Parent = "builds" })
	for _, name := range []string{"builds", "builds", "child", "child"} { // the queues under one are not named with it
		w.add(both(cpu(1000), inQueue(name)))
	}
	stranger := w.add(both(cpu(1000), func(s *job.Spec) { s.Namespace = "other" }))
	w.expect(t, "each in its queue", "1:build 3:team 2:build 4:team")
	e := w.Explain(id(5), &job.Spec{Namespace: "other", Queue: "default", MaxAttempts: 2, Timeout: time.Hour, Resources: job.Resources{MilliCPU: 1000}}, false, w.now)
	if e.Text != "no worker can take it now: 2 workers serve other queues only" || e.Filters[0].Filter != "queue" ||
		!strings.HasSuffix(e.Advice, "for all queues or for other/default") {
		t.Errorf("job %s is explained by %+v", stranger, e)
	}
	w.SetWorker(worker("free", 4000, nil))
	w.expect(t, "with one for all", stranger+":free")
	w.SetWorker(worker("free", 4000, bound("other/default")))
	w.add(inQueue("nobody-names-it"))
	w.add(func(s *job.Spec) { s.Namespace, s.Queue = "third", "default" })
	w.expect(t, "when it is bound", "6:team")
	w.SetWorker(worker("free", 4000, nil))
	w.expect(t, "when it is free again", "7:free")
}

// A job that only workers of other queues are large enough for is as one that is too large for all.
func TestTooLargeForTheWorkersOfItsQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("large", 8000, bound("default/gpu")), worker("small", 1000, nil))
	spec := &job.Spec{Namespace: "default", Queue: "default", Resources: job.Resources{MilliCPU: 4000}}
	if text := w.TooLarge(spec); !strings.Contains(text, "the largest worker that serves its queue has 1 CPU") {
		t.Errorf("it is refused with %q", text)
	}
	e := w.Explain(job.ID{}, spec, false, w.now)
	if e.Limit != "too_large" {
		t.Errorf("before it is submitted: %+v", e)
	}
	spec.Queue = "gpu"
	if text := w.TooLarge(spec); text != "" {
		t.Errorf("in the queue of the large one it is refused with %q", text)
	}
	spec.Queue = "default"
	w.SetWorker(worker("small", 1000, bound("default/other")))
	if text := w.TooLarge(spec); text != "" {
		t.Errorf("it is refused with %q though no worker of its queue is known", text)
	}
	w.SetWorker(worker("small", 1000, nil))
	w.queue("default", func(q *job.Queue) { q.AwaitsWorkers = true })
	if text := w.TooLarge(spec); text != "" {
		t.Errorf("in a queue that awaits larger ones it is refused with %q", text)
	}
}

// Nobody is asked to make room, and nothing is kept free, on a worker that does not serve the queue.
func TestPreemptionAndPromisesKeepToTheQueue(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("other", 1000, bound("default/low")), worker("own", 1000, bound("default/*")))
	w.queue("low", func(q *job.Queue) { q.Preemptible = true })
	w.queue("high", func(q *job.Queue) { q.Preempts = true })
	w.add(both(cpu(1000), inQueue("low")))
	w.add(both(cpu(1000), inQueue("low")))
	w.place()
	w.now = w.now.Add(time.Minute)
	w.add(both(cpu(1000), inQueue("high"), priority(9)))
	victim := "1"
	if w.running["2"].Worker == "own" {
		victim = "2"
	}
	w.expect(t, "who makes room", victim+" leaves for 3")
	if id, _, ok := w.ReservedFor("own"); !ok || id.Time().Unix() != 3 {
		t.Errorf("%v is promised the place, %t", id, ok)
	}
	if _, _, ok := w.ReservedFor("other"); ok {
		t.Error("a worker of other queues is kept for it")
	}
	w.SetWorker(worker("own", 1000, bound("default/low"))) // what was promised is no place for it any more
	w.end(victim)
	w.add(both(cpu(1000), inQueue("low")))
	w.expect(t, "after the worker was bound otherwise", "4:own")
	if e := w.Explain(id(3), highSpec(), false, w.now); !strings.Contains(e.Text, "2 workers serve other queues only") {
		t.Errorf("the job that has lost its promise is explained by %+v", e)
	}
}

func highSpec() *job.Spec {
	return &job.Spec{Namespace: "default", Queue: "high", MaxAttempts: 2, Timeout: time.Hour, Priority: 9, Resources: job.Resources{MilliCPU: 1000}}
}

func TestGangStartsOnTheWorkersOfItsQueue(t *testing.T) {
	t.Parallel()
	gang := placement(job.Placement{Gang: &job.Gang{Name: "g", Size: 2}})
	w := newWorld(scheduler.Options{}, worker("own", 1000, bound("default/ring")), worker("other", 1000, bound("default/else")))
	for range 2 {
		w.add(both(cpu(1000), inQueue("ring"), gang))
	}
	w.expect(t, "with one worker for two", "")
	w.SetWorker(worker("second", 1000, bound("default/ring", "default/else")))
	if got := w.place(); len(w.running) != 2 || strings.Contains(got, "other") {
		t.Errorf("the gang started as %q", got)
	}
}

// whose is a world in which workers come, go and change whom they serve.
type whose struct {
	*world
	workers map[string]*job.Worker
	specs   map[job.ID]*job.Spec
	started map[job.ID]bool
}

func (w *whose) worker(t *rapid.T, name string) {
	w.workers[name] = worker(name, rapid.Int32Range(1, 4).Draw(t, "capacity")*1000, func(x *job.Worker) {
		x.Slots = rapid.Int32Range(1, 3).Draw(t, "slots")
		x.Draining = rapid.IntRange(0, 4).Draw(t, "draining") == 0
		x.Queues = drawScope(t)
	})
	w.SetWorker(w.workers[name])
}

func (w *whose) submit(t *rapid.T) {
	w.add(func(s *job.Spec) {
		s.Namespace = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace")
		s.Queue = rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "queue")
		s.Priority = rapid.Int32Range(0, 2).Draw(t, "priority")
		s.Resources.MilliCPU = rapid.Int32Range(0, 4).Draw(t, "cpu") * 1000
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			s.Placement = &job.Placement{Gang: &job.Gang{Name: "g", Size: 2}}
		case 1:
			s.Name, s.Placement = "family", &job.Placement{Apart: "os"}
		}
		w.specs[id(w.next)] = s
	})
}

// plan makes a plan, and checks that everybody got a worker that serves his queue.
func (w *whose) plan(t *rapid.T) (placed int) {
	plan := w.Place(w.now)
	w.now = w.now.Add(time.Second)
	for _, p := range plan.Placements {
		w.running[p.Job.String()], w.started[p.Job] = p, true
		if x := w.workers[string(p.Worker)]; x == nil || x.Draining || !serves(x, w.specs[p.Job]) {
			t.Fatalf("a job of %s/%s was given to %+v", w.specs[p.Job].Namespace, w.specs[p.Job].Queue, x)
		}
	}
	return len(plan.Placements)
}

func (w *whose) endAll() {
	for name := range w.running {
		w.end(name)
	}
}

// Whatever comes, goes and changes: no job is given to a worker that does not serve its queue, and in the end each has started that
// fits one which does.
func TestScopesHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &whose{newWorld(scheduler.Options{Reservations: rapid.IntRange(1, 3).Draw(t, "reservations")}), map[string]*job.Worker{}, map[job.ID]*job.Spec{}, map[job.ID]bool{}}
		for i, name := range []string{"x", "y", "z"} {
			q := job.DefaultQueueSettings("a", name)
			q.Preempts, q.Preemptible = i != 0, i != 1
			w.SetQueue(q)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch name := fmt.Sprint("w", rapid.IntRange(0, 4).Draw(t, "worker")); rapid.IntRange(0, 7).Draw(t, "what") {
			case 0, 1:
				w.worker(t, name)
			case 2:
				if held, jobs := w.Held(job.WorkerID(name)); jobs == 0 && held.MilliCPU == 0 {
					w.RemoveWorker(job.WorkerID(name))
					delete(w.workers, name)
				}
			case 3:
				w.endAll()
			case 4:
				w.plan(t)
			default:
				w.submit(t)
			}
		}
		for _, x := range w.workers {
			x.Draining = false
			w.SetWorker(x)
		}
		for w.endAll(); w.plan(t) > 0; w.endAll() {
		}
		for id, spec := range w.specs {
			if spec.Placement != nil && spec.Placement.Gang != nil || w.started[id] {
				continue
			}
			for _, x := range w.workers {
				if serves(x, spec) && x.Capacity.Covers(spec.Resources) {
					t.Fatalf("a job of %s/%s waits for ever though %s could take it: %+v", spec.Namespace, spec.Queue, x.Name, w.Explain(id, spec, false, w.now))
				}
			}
		}
	})
}
