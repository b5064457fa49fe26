package orchestrator

import (
	"container/heap"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// The simulation is a whole system in one goroutine: the reactor, driven turn by turn, on a store that fails; agents,
// clients and a network made of events on a simulated clock. Everything that is left to chance comes from one seed, so a
// seed is a history that can be told again. What must hold is the auditor's business, see sim_audit_test.go.

// simWorld is one such system.
type simWorld struct {
	seed   uint64
	rng    *rand.Rand
	faults simFaults
	now    time.Time
	queue  simQueue
	last   uint64 // number of the newest event
	trace  simTrace

	disk    *simDisk
	server  *simServer // the present life; nil between two lives
	paused  *simServer // a former life that will go on when another has begun
	agents  []*simAgent
	clients *simClients
	audit   *auditor
	scripts map[string]simScript // what jobs do, by the name of the job
	ids     uint64               // how many job ids were made
	healed  bool                 // no more faults

	maxUnfinished int
	longJobs      bool   // jobs take long and may be tried again
	failure       string // the first thing that was wrong
}

// simFaults says how much goes wrong: chances per commit, per read, per message or per tick of the nemesis.
type simFaults struct {
	commit, read, answer                                float64
	cut, stall, pause, crash, forget, leave, lie        float64
	serverCrash, serverStop, serverFreeze, serverDouble float64
	poison                                              float64
}

// simStart is when simulated time begins.
var simStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// simLease is how long a worker may be silent, as the server tells its agents.
const simLease = 15 * time.Second

func newSimWorld(seed uint64) *simWorld {
	w := &simWorld{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 0x5eed)), now: simStart, trace: simTrace{limit: 150},
		scripts: make(map[string]simScript), maxUnfinished: 100_000,
	}
	w.audit = newAuditor(w)
	w.disk = newSimDisk(w)
	w.clients = &simClients{w: w}
	return w
}

// chooseFaults makes worlds differ: each kind of fault is absent, rare or frequent, and in some worlds nothing fails.
func (w *simWorld) chooseFaults() {
	switch w.seed % 8 {
	case 0:
		return
	case 4: // a race: who is first, the agent that ends what may run elsewhere, or the server that lets it run there
		w.faults = simFaults{stall: 1}
		w.longJobs = true
		return
	}
	level := func(frequent float64) float64 { return frequent * []float64{0, 0, 0.2, 1}[w.rng.IntN(4)] }
	w.faults = simFaults{
		commit: level(0.02), read: level(0.02), answer: level(0.3),
		cut: level(0.3), stall: level(0.2), pause: level(0.15), crash: level(0.15), forget: level(1), leave: level(0.03),
		lie:         level(0.1),
		serverCrash: level(0.06), serverStop: level(0.03), serverFreeze: level(0.05), serverDouble: level(1),
		poison: level(0.03),
	}
	if w.chance(0.2) {
		w.maxUnfinished = 20 + w.rng.IntN(40)
	}
}

// fail notes what is wrong; only the first counts, because the rest may follow from it.
func (w *simWorld) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.note("WRONG: %s", w.failure)
	}
}

func (w *simWorld) note(format string, args ...any) {
	w.trace.add(w.now.Sub(simStart), fmt.Sprintf(format, args...))
}

func (w *simWorld) chance(p float64) bool { return p > 0 && w.rng.Float64() < p }

// fault is a chance that is gone once the world is healed.
func (w *simWorld) fault(p float64) bool { return !w.healed && w.chance(p) }

func (w *simWorld) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rng.Int64N(int64(high-low)+1))
}

// clock is what the server reads.
func (w *simWorld) clock() time.Time { return w.now }

func (w *simWorld) newJobID(job.ID) job.ID {
	w.ids++
	return job.NewID(w.now, 0, w.ids)
}

// after runs f when d has passed.
func (w *simWorld) after(d time.Duration, f func()) {
	w.last++
	heap.Push(&w.queue, &simEvent{at: w.now.Add(max(d, 0)), number: w.last, run: f})
}

// run lets so much time pass, and what happens in it.
func (w *simWorld) run(d time.Duration) {
	end := w.now.Add(d)
	for w.failure == "" && len(w.queue) > 0 && !w.queue[0].at.After(end) {
		e, _ := heap.Pop(&w.queue).(*simEvent)
		w.now = e.at
		e.run()
	}
	if w.failure == "" {
		w.now = end
	}
}

// simEvent is something that will happen. Events of one moment happen in the order in which they were planned.
type simEvent struct {
	at     time.Time
	number uint64
	run    func()
}

type simQueue []*simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].number < q[j].number
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any) {
	if e, ok := x.(*simEvent); ok {
		*q = append(*q, e)
	}
}

func (q *simQueue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}

// simTrace is what happened: a hash of all of it, and the last part in words.
type simTrace struct {
	hash  uint64
	lines []string
	limit int
	next  int
}

func (t *simTrace) add(at time.Duration, line string) {
	line = fmt.Sprintf("%12.3fs %s", at.Seconds(), line)
	h := fnv.New64a()
	fmt.Fprintf(h, "%x", t.hash)
	fmt.Fprint(h, line)
	t.hash = h.Sum64()
	if len(t.lines) < t.limit {
		t.lines = append(t.lines, line)
		return
	}
	t.lines[t.next] = line
	t.next = (t.next + 1) % t.limit
}

func (t *simTrace) String() string {
	return strings.Join(append(append([]string{}, t.lines[t.next:]...), t.lines[:t.next]...), "\n")
}
