package scheduler_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// world is a scheduler with a clock and what it has placed.
type world struct {
	*scheduler.Scheduler
	now     time.Time
	next    int
	running map[string]scheduler.Placement // by the number of the job
}

func newWorld(options scheduler.Options, workers ...*job.Worker) *world {
	w := &world{Scheduler: scheduler.New(options), now: at, next: 1, running: map[string]scheduler.Placement{}}
	for _, worker := range workers {
		w.SetWorker(worker)
	}
	return w
}

// queue sets a queue of the default namespace.
func (w *world) queue(name string, edit func(*job.Queue)) {
	q := job.DefaultQueueSettings("default", name)
	edit(&q)
	w.SetQueue(q)
}

// add lets a job wait, and returns its number.
func (w *world) add(edit func(*job.Spec)) string {
	spec := &job.Spec{Namespace: "default", Queue: "default", MaxAttempts: 2, Timeout: time.Hour}
	edit(spec)
	n := w.next
	w.next++
	w.Add(id(n), spec, false)
	return fmt.Sprint(n)
}

// place makes a plan, and returns it as text.
func (w *world) place() string {
	plan := w.Place(w.now)
	for _, p := range plan.Placements {
		w.running[fmt.Sprint(p.Job.Time().Unix())] = p
	}
	text := placed(plan)
	for _, p := range plan.Preemptions {
		text += fmt.Sprintf(" %d leaves for %d", p.Victim.Time().Unix(), p.For.Time().Unix())
	}
	return strings.TrimSpace(text)
}

func (w *world) end(n string) {
	w.End(w.running[n].Place)
	delete(w.running, n)
}

func (w *world) expect(t *testing.T, what, want string) {
	t.Helper()
	if got := w.place(); got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func cpu(milli int32) func(*job.Spec) { return func(s *job.Spec) { s.Resources.MilliCPU = milli } }

func both(edits ...func(*job.Spec)) func(*job.Spec) {
	return func(s *job.Spec) {
		for _, edit := range edits {
			edit(s)
		}
	}
}

func inQueue(name string) func(*job.Spec) { return func(s *job.Spec) { s.Queue = name } }
func limit(d time.Duration) func(*job.Spec) {
	return func(s *job.Spec) { s.Timeout = d }
}
func priority(p int32) func(*job.Spec) { return func(s *job.Spec) { s.Priority = p } }
func placement(p job.Placement) func(*job.Spec) {
	return func(s *job.Spec) { s.Placement = &p }
}

func slots(n int32) func(*job.Worker) { return func(w *job.Worker) { w.Slots = n } }

func TestPriorityIsWorthSomeWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 1000, slots(1)))
	w.queue("default", func(q *job.Queue) { q.Ageing = 2 * time.Second })
	w.add(both(cpu(1000), priority(0))) // made at second 1
	w.add(cpu(1000))                    // at 2
	w.add(cpu(1000))
	w.add(both(cpu(1000), priority(1))) // at 4, and as urgent as one of second 2
	for _, want := range []string{"1:w", "2:w", "4:w", "3:w"} {
		w.expect(t, "next", want)
		w.end(want[:1])
	}
	w.queue("default", func(q *job.Queue) { q.Ageing = 0 })
	w.add(cpu(1000))
	w.add(both(cpu(1000), priority(1)))
	w.expect(t, "without ageing", "6:w")
}

func TestBandsGoBeforeShares(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 0, slots(3)))
	w.queue("first", func(q *job.Queue) { q.Band = 1 })
	w.queue("last", func(q *job.Queue) { q.Weight = 100 })
	for range 2 {
		w.add(inQueue("last"))
		w.add(inQueue("first"))
	}
	w.expect(t, "with bands", "2:w 4:w 1:w")
}

func TestLimitsHold(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		what   string
		limits job.Limits
		want   string
		text   string
	}{
		{"running", job.Limits{Running: 2}, "1:w 2:w", "2 jobs of queue default of namespace default run, as many as its limit allows"},
		{"cpu", job.Limits{MilliCPU: 2500}, "1:w 2:w", "it needs 1 CPU; queue default of namespace default may hold 2.5 CPUs and holds 2 CPUs"},
		{"memory", job.Limits{MemoryMiB: 300}, "1:w 2:w 3:w", "may hold 300 and holds 300"},
		{"starts", job.Limits{StartsPerMinute: 6}, "1:w", "starts at most 6 jobs a minute"},
	} {
		w := newWorld(scheduler.Options{}, worker("w", 8000, slots(8)))
		w.queue("default", func(q *job.Queue) { q.Limits = tc.limits })
		for range 4 {
			w.add(both(cpu(1000), func(s *job.Spec) { s.Resources.MemoryMiB = 100 }))
		}
		w.expect(t, tc.what, tc.want)
		spec := &job.Spec{
			Namespace: "default", Queue: "default", MaxAttempts: 2, Timeout: time.Hour, Resources: job.Resources{MilliCPU: 1000, MemoryMiB: 100},
		}
		if e := w.Explain(id(4), spec, false, w.now); !strings.Contains(e.Text, tc.text) || e.Limit == "" {
			t.Errorf("%s: %q does not say %q", tc.what, e.Text, tc.text)
		}
	}
}

func TestStartRateIsKeptOverTime(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 0, slots(1000)))
	w.queue("default", func(q *job.Queue) { q.Limits.StartsPerMinute = 60 })
	for range 200 {
		w.add(cpu(0))
	}
	started := 0
	for range 1000 { // 100 seconds
		plan := w.Place(w.now)
		started += len(plan.Placements)
		if len(plan.Placements) == 0 && w.Len() > 0 && !plan.Wake.After(w.now) {
			t.Fatalf("at %v nothing started, and it wants to be asked again at %v", w.now, plan.Wake)
		}
		w.now = w.now.Add(100 * time.Millisecond)
	}
	if started < 108 || started > 111 { // ten at once, and one a second
		t.Errorf("%d jobs started in 100 seconds", started)
	}
}

func TestParentsShareWhatChildrenGet(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 0, slots(100)))
	w.queue("a", func(*job.Queue) {})
	w.queue("b", func(*job.Queue) {})
	for _, child := range []string{"a1", "a2"} {
		w.queue(child, func(q *job.Queue) { q.Parent = "a" })
	}
	for range 100 {
		w.add(inQueue("a1"))
		w.add(inQueue("a2"))
		w.add(inQueue("b"))
	}
	w.place()
	got := map[string]int{}
	w.Queues("default", func(q job.Queue, s scheduler.Standing) { got[q.Name] = s.Running })
	if got["a1"] != 25 || got["a2"] != 25 || got["a"] != 50 || got["b"] != 50 {
		t.Errorf("the queues run %v", got)
	}
}

// Under saturation every namespace holds its part of the workers, whatever its jobs are like and however long they take.
func TestSharesFollowWeights(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var workers []*job.Worker
		for i := range 10 {
			workers = append(workers, worker(fmt.Sprint("w", i), 32_000, func(w *job.Worker) { w.Slots, w.Capacity.MemoryMiB = 1000, 128_000 }))
		}
		w := newWorld(scheduler.Options{}, workers...)
		weights := map[string]int32{}
		sizes := map[string]int32{}
		for i := range rapid.IntRange(2, 4).Draw(t, "namespaces") {
			name := fmt.Sprint("n", i)
			weights[name] = rapid.Int32Range(1, 4).Draw(t, "weight")
			sizes[name] = rapid.SampledFrom([]int32{250, 500, 1000}).Draw(t, "size")
			w.SetNamespace(job.Namespace{Name: name, Weight: weights[name]})
		}
		total := int32(0)
		for name, weight := range weights {
			total += weight
			for range 4000 {
				w.add(func(s *job.Spec) { s.Namespace, s.Resources.MilliCPU = name, sizes[name] })
			}
		}
		w.place()
		for range 20 { // some end, others start
			for n := range w.running {
				if len(w.running) > 0 && rapid.IntRange(0, 9).Draw(t, "ends") == 0 {
					w.end(n)
				}
			}
			w.place()
		}
		saturated := true
		w.Namespaces(func(_ job.Namespace, s scheduler.Standing) { saturated = saturated && s.Waiting > 0 })
		w.Namespaces(func(n job.Namespace, s scheduler.Standing) {
			want := float64(weights[n.Name]) / float64(total)
			if saturated && (math.Abs(s.Share-want) > 0.05*want+0.004 || math.Abs(s.Due-want) > 1e-9) {
				t.Fatalf("namespace %s of weight %d holds %.3f and is due %.3f, of %.3f", n.Name, n.Weight, s.Share, s.Due, want)
			}
		})
	})
}

func TestHeadJobIsNotPassedForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 4000, slots(10)))
	w.add(both(cpu(3000), limit(time.Hour)))
	w.expect(t, "at first", "1:w")
	big := w.add(cpu(4000))
	w.add(both(cpu(1000), limit(30*time.Minute)))
	w.add(both(cpu(1000), limit(3*time.Hour)))
	w.expect(t, "only what ends before the reserved time passes", "3:w")
	if reserved, when, ok := w.ReservedFor("w"); !ok || reserved != id(2) || when.Before(w.now.Add(time.Hour)) {
		t.Errorf("the worker is reserved for %v at %v, %t", reserved, when, ok)
	}
	w.end("3")
	w.expect(t, "still", "")
	spec := &job.Spec{Namespace: "default", Queue: "default", MaxAttempts: 2, Timeout: 3 * time.Hour, Resources: job.Resources{MilliCPU: 1000}}
	if e := w.Explain(id(4), spec, false, w.now); e.Limit != "reservation" || !strings.Contains(e.Text, id(2).String()) {
		t.Errorf("the one that waits: %+v", e)
	}
	w.end("1")
	w.expect(t, "then the head job", "2:w")
	w.end(big)
	w.expect(t, "and then the other", "4:w")
}

// Whatever comes and however long it runs within its limit, nobody starts later than was once promised.
func TestPromisesAreKept(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(scheduler.Options{Reservations: rapid.SampledFrom([]int{1, 4}).Draw(t, "reservations")},
			worker("a", 4000, slots(100)), worker("b", 8000, slots(100)))
		promised := map[job.ID]time.Time{}
		ends := map[string]time.Time{}
		limits := map[int]time.Duration{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			for range rapid.IntRange(0, 3).Draw(t, "new") {
				d := time.Duration(rapid.IntRange(1, 600).Draw(t, "limit")) * time.Second
				limits[w.next] = d
				w.add(both(cpu(rapid.Int32Range(1, 8).Draw(t, "cpu")*1000), limit(d)))
			}
			for n, end := range ends {
				if !end.After(w.now) {
					w.end(n)
					delete(ends, n)
				}
			}
			before := len(w.running)
			w.place()
			if before != len(w.running) {
				for n, p := range w.running {
					if _, known := ends[n]; !known {
						var number int
						_, _ = fmt.Sscan(n, &number)
						ran := time.Duration(rapid.Float64Range(0.1, 1).Draw(t, "part") * float64(limits[number]))
						ends[n] = w.now.Add(ran)
						if at, ok := promised[p.Job]; ok && w.now.After(at.Add(time.Second)) {
							t.Fatalf("%s started at %v and was promised %v", p.Job, w.now, at)
						}
					}
				}
			}
			for _, worker := range []job.WorkerID{"a", "b"} {
				if reserved, at, ok := w.ReservedFor(worker); ok {
					if earlier, ok := promised[reserved]; !ok || at.Before(earlier) {
						promised[reserved] = at
					}
				}
			}
			step := w.now.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "wait")) * time.Second)
			for _, end := range ends { // nobody is late: a pass follows every end
				if end.After(w.now) && end.Before(step) {
					step = end
				}
			}
			w.now = step
		}
	})
}

func TestFewestAndYoungestMakeRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 4000, slots(10)))
	w.queue("low", func(q *job.Queue) { q.Preemptible = true })
	w.queue("high", func(q *job.Queue) { q.Preempts = true })
	for range 3 {
		w.add(both(inQueue("low"), cpu(1000)))
		w.place()
		w.now = w.now.Add(time.Minute)
	}
	w.add(both(inQueue("low"), cpu(1000), priority(9)))
	w.add(both(inQueue("default"), cpu(1000)))
	w.place()
	w.add(both(inQueue("high"), cpu(2000), priority(5)))
	w.expect(t, "the two that have run for the shortest time", "3 leaves for 6 2 leaves for 6")
	w.expect(t, "they are asked once", "")
	w.end("3")
	w.expect(t, "one is not enough, and nobody else takes the room", "")
	w.end("2")
	w.expect(t, "then", "6:w")
}

func TestGangIsPlacedAsAWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("a", 2000, slots(2)), worker("b", 2000, slots(2)))
	w.add(cpu(1000))
	w.place()
	gang := placement(job.Placement{Gang: &job.Gang{Name: "g", Size: 4}})
	for range 4 {
		w.add(both(cpu(1000), gang))
	}
	w.expect(t, "three places for four", "")
	w.add(both(cpu(1000), limit(2*time.Hour)))
	w.expect(t, "a long job does not take a place from them", "")
	w.end("1")
	if got := w.place(); strings.Count(got, ":a") != 2 || strings.Count(got, ":b") != 2 || strings.Contains(got, "6:") {
		t.Errorf("then %q", got)
	}
}

func TestGangThatCannotStartIsExplained(t *testing.T) {
	t.Parallel()
	for want, p := range map[string]job.Placement{
		"there is room for 2 of the 3 jobs of its gang": {Gang: &job.Gang{Name: "g", Size: 3}},
		"there is room for 1 of the 3 jobs of its gang": {
			Gang: &job.Gang{Name: "g", Size: 3}, Concurrency: &job.Concurrency{Key: "k", Limit: 1, Policy: job.ConcurrencyQueue},
		},
		"3 jobs of its gang": {Gang: &job.Gang{Name: "g", Size: 6}},
	} {
		w := newWorld(scheduler.Options{}, worker("w", 4000, slots(10)))
		var spec job.Spec
		for range 3 {
			w.add(both(cpu(2000), placement(p), func(s *job.Spec) { spec = *s }))
		}
		w.expect(t, "nobody starts", "")
		spec.Namespace, spec.Queue, spec.MaxAttempts, spec.Timeout = "default", "default", 2, time.Hour
		if e := w.Explain(id(1), &spec, false, w.now); !strings.Contains(e.Text, want) {
			t.Errorf("%q does not say %q", e.Text, want)
		}
		if held, n := w.Held("w"); n > 0 {
			t.Errorf("the explanation left %+v behind", held)
		}
	}
}

func TestApartAndSpread(t *testing.T) {
	t.Parallel()
	zone := func(z string) func(*job.Worker) {
		return func(w *job.Worker) { w.Labels, w.Slots = map[string]string{"zone": z}, 10 }
	}
	w := newWorld(scheduler.Options{}, worker("a", 8000, zone("1")), worker("b", 8000, zone("1")), worker("c", 8000, zone("2")))
	for range 3 {
		w.add(both(placement(job.Placement{Apart: "zone"}), func(s *job.Spec) { s.Name = "db" }))
	}
	if got := w.place(); strings.Count(got, ":") != 2 || strings.Count(got, ":c") != 1 {
		t.Errorf("one in each zone: %q", got)
	}
	for range 4 {
		w.add(both(placement(job.Placement{Spread: "zone"}), cpu(100), func(s *job.Spec) { s.Name = "web" }))
	}
	if got := w.place(); strings.Count(got, ":c") != 2 {
		t.Errorf("two in each zone: %q", got)
	}
}

func TestConcurrencyKeysLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 0, slots(10)))
	key := placement(job.Placement{Concurrency: &job.Concurrency{Key: "k", Limit: 2, Policy: job.ConcurrencyQueue}})
	for range 4 {
		w.add(key)
	}
	w.add(both(key, func(s *job.Spec) { s.Namespace = "other" }))
	w.expect(t, "two of each namespace", "1:w 5:w 2:w")
	w.end("1")
	w.expect(t, "then the next", "3:w")
}

func TestLoadOfOthersTurnsJobsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("idle", 4000, slots(4)), worker("loaded", 4000, slots(4)))
	w.add(cpu(500))
	first := strings.TrimPrefix(w.place(), "1:") // the two are alike
	w.SetLoad(job.WorkerID(first), job.Resources{MilliCPU: 4000})
	w.add(cpu(500))
	if got := w.place(); strings.HasSuffix(got, ":"+first) {
		t.Errorf("the job went to the worker with the foreign load: %q", got)
	}
	for _, nonsense := range []job.Resources{{MilliCPU: -1}, {MemoryMiB: -5}, {MilliCPU: 10_000_000}} {
		w.SetLoad("idle", nonsense)
	}
	if n := w.TakeNonsense(); n != 3 {
		t.Errorf("%d of 3 measurements were left out", n)
	}
	w.add(cpu(500))
	if got := w.place(); strings.HasSuffix(got, ":"+first) {
		t.Errorf("nonsense counted: %q", got)
	}
}

func TestPreferencesDecide(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("spot", 4000, func(w *job.Worker) { w.Labels["price"] = "0.1"; w.Labels["data"] = "x" }),
		worker("demand", 4000, func(w *job.Worker) { w.Labels["price"] = "3" }))
	w.queue("cheap", func(q *job.Queue) { q.Scoring.Price = 500 })
	w.queue("wide", func(q *job.Queue) { q.Scoring.Spread = true })
	for _, weight := range []int32{100, -100} {
		likes := job.Affinity{Constraint: job.Constraint{Label: "data", Operator: job.OperatorIn, Values: []string{"x"}}, Weight: weight}
		w.add(both(cpu(100), placement(job.Placement{Affinities: []job.Affinity{likes}})))
	}
	w.expect(t, "affinities", "1:spot 2:demand")
	for range 3 {
		w.add(both(cpu(500), inQueue("cheap")))
	}
	w.expect(t, "prices", "3:spot 4:spot 5:spot")
	w.add(both(cpu(500), inQueue("wide")))
	w.expect(t, "the emptiest", "6:demand")
}

// Whoever names ever new queues and keys does not fill the memory with them.
func TestWhatNobodyUsesIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{}, worker("w", 4000, slots(10)))
	w.queue("kept", func(q *job.Queue) { q.Weight = 5 })
	for i := range 30_000 {
		w.add(func(s *job.Spec) {
			s.Namespace, s.Queue, s.Name = fmt.Sprint("n", i%7000), fmt.Sprint("q", i), fmt.Sprint("name", i)
			s.Placement = &job.Placement{Apart: "zone", Concurrency: &job.Concurrency{Key: fmt.Sprint(i), Limit: 1, Policy: job.ConcurrencyQueue}}
		})
		plan := w.Place(w.now)
		for _, p := range plan.Placements {
			w.End(p.Place)
		}
	}
	queues, kept := 0, false
	w.Queues("", func(q job.Queue, _ scheduler.Standing) {
		queues++
		kept = kept || q.Name == "kept" && q.Weight == 5
	})
	if w.Len() > 0 || queues > 10_000 || !kept {
		t.Errorf("%d jobs wait, %d queues are remembered, one that was set: %t", w.Len(), queues, kept)
	}
}

func TestPassIsBoundedAndGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(scheduler.Options{Work: 10}, worker("w", 0, slots(100)))
	for range 50 {
		w.add(cpu(0))
	}
	passes := 0
	for more := true; more; passes++ {
		plan := w.Place(w.now)
		more = plan.More
	}
	if w.Len() > 0 || passes < 5 {
		t.Errorf("after %d passes %d jobs wait", passes, w.Len())
	}
}
