package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
	"github.com/hodei-jobs/hodei/service/scheduler/simulator"
)

// SchedSpeed is how fast the scheduler decides. Its time is that of all its calls: Add, Place and End.
type SchedSpeed struct {
	Workers             int       `json:"workers"`
	Jobs                int       `json:"jobs"`                  // placed while the clock ran
	PlacementsPerSecond float64   `json:"placements_per_second"` // the median of several parts
	PassMillis          Quantiles `json:"pass_ms"`               // of one call of Place
	JobsPerPass         float64   `json:"jobs_per_pass"`
	AddMicros           float64   `json:"add_us_per_job"`
	PlaceMicros         float64   `json:"place_us_per_job"`
	EndMicros           float64   `json:"end_us_per_job"`
	Running             int       `json:"running"` // jobs at the end
	Waiting             float64   `json:"waiting"` // jobs after a round, the mean
	Full                float64   `json:"full"`    // the part of the scarcer of CPUs and memory that is held after a round, the mean
	Cores               float64   `json:"cores"`   // that this process got while the clock ran; much less than 1: others used the machine
	Limited             float64   `json:"limited"` // the part of rounds in which some limit on starts kept jobs from starting
}

const (
	roundTime   = 100 * time.Millisecond // of the scheduler's clock
	roundEnds   = 256                    // jobs that end in a round, the mean; as many start
	mostRounds  = 4096                   // that a job lasts; less than the shortest of the time limits below
	fullEnough  = 0.9
	tooMany     = 200 // jobs of a queue that wait, beyond which no more come
	swingRounds = 600 // after so many rounds each namespace has been busy and quiet once
	warmRounds  = 200 // at most, before the clock runs
	priorities  = 3
)

// shapes are what the jobs ask for: much of little, and a few with wishes about the worker.
var shapes = [...]struct {
	milliCPU, memoryMiB int32
	weight              int
	constraint          job.Constraint
	gpus                int32
}{
	{milliCPU: 100, memoryMiB: 128, weight: 32},
	{milliCPU: 250, memoryMiB: 512, weight: 40},
	{milliCPU: 250, memoryMiB: 1024, weight: 32},
	{milliCPU: 500, memoryMiB: 1024, weight: 40},
	{milliCPU: 500, memoryMiB: 2048, weight: 40},
	{milliCPU: 500, memoryMiB: 4096, weight: 16},
	{milliCPU: 1000, memoryMiB: 2048, weight: 40},
	{milliCPU: 1000, memoryMiB: 4096, weight: 40},
	{milliCPU: 1000, memoryMiB: 8192, weight: 16},
	{milliCPU: 2000, memoryMiB: 4096, weight: 32},
	{milliCPU: 2000, memoryMiB: 8192, weight: 24},
	{milliCPU: 2000, memoryMiB: 16_384, weight: 8},
	{milliCPU: 4000, memoryMiB: 8192, weight: 16},
	{milliCPU: 4000, memoryMiB: 16_384, weight: 12},
	{milliCPU: 8000, memoryMiB: 16_384, weight: 8},
	{milliCPU: 8000, memoryMiB: 32_768, weight: 4},
	{milliCPU: 16_000, memoryMiB: 32_768, weight: 4},
	{milliCPU: 1000, memoryMiB: 2048, weight: 16, constraint: job.Constraint{Label: "zone", Operator: job.OperatorIn, Values: []string{"a", "b"}}},
	{milliCPU: 500, memoryMiB: 1024, weight: 12, constraint: job.Constraint{Label: "zone", Operator: job.OperatorIn, Values: []string{"c"}}},
	{milliCPU: 2000, memoryMiB: 4096, weight: 16, constraint: job.Constraint{Label: "disk", Operator: job.OperatorExists}},
	{milliCPU: 250, memoryMiB: 256, weight: 12, constraint: job.Constraint{Label: "disk", Operator: job.OperatorNotExists}},
	{milliCPU: 1000, memoryMiB: 4096, weight: 12, constraint: job.Constraint{Label: "zone", Operator: job.OperatorNotIn, Values: []string{"d"}}},
	{milliCPU: 500, memoryMiB: 512, weight: 12, constraint: job.Constraint{Label: "cpus", Operator: job.OperatorGreater, Values: []string{"16"}}},
	{milliCPU: 4000, memoryMiB: 16_384, weight: 1, gpus: 1},
}

// timeLimits are what jobs ask for. They last much shorter.
var timeLimits = [...]time.Duration{10 * time.Minute, time.Hour, 24 * time.Hour}

const (
	gpu        = "gpu"
	gpuWorkers = 40 // one of so many has some
)

// workerSizes are in CPUs; each has 4 GiB of memory for a CPU.
var workerSizes = [...]int32{16, 32, 64, 96}

func schedWorker(n int) *job.Worker {
	cpus := workerSizes[n%len(workerSizes)]
	w := &job.Worker{
		ID: job.WorkerID(fmt.Sprintf("worker-%06d", n)), Connected: true, Slots: 4 * cpus,
		Labels:   map[string]string{"zone": string(rune('a' + n/4%4)), "cpus": strconv.Itoa(int(cpus))},
		Capacity: job.Resources{MilliCPU: 1000 * cpus, MemoryMiB: 4096 * cpus},
	}
	if n/16%2 == 0 {
		w.Labels["disk"] = "ssd"
	}
	if n%gpuWorkers == 0 { // it takes only jobs that need it, as operators set such workers up
		w.Capacity.Extras = map[string]int32{gpu: 4}
		w.Taints = []string{gpu}
	}
	return w
}

// schedLoad is a cluster in a steady state: in each round jobs end, as many come, and the scheduler places what it can.
type schedLoad struct {
	workers    int
	placements int // to measure
	backlog    int // jobs that wait all the time; 0: as many come as the cluster has room for
	policy     *simulator.Policy
	swing      float64 // by which part the demand of each namespace goes up and down
	queues     []job.Queue

	scheduler         *scheduler.Scheduler
	random            *rand.Rand
	round             int
	life              float64      // rounds that a job lasts, the mean
	specs             [][]job.Spec // of each queue, by shape and priority
	kinds             []kind       // of every job
	waiting           []int        // jobs of each queue
	due               [mostRounds][]*scheduler.Running
	running           int
	cpu, memory       int64 // held
	allCPU, allMemory int64
	shapeWeights      int

	clock  bool // it runs
	result SchedSpeed
	rounds int
	passes []time.Duration
	rates  []float64
	spent  spentTime
	wall   time.Duration // in which the clock ran, and
	used   time.Duration // how much of it a processor worked
}

// spentTime is how long the calls of the scheduler took.
type spentTime struct{ add, place, end time.Duration }

func (s *spentTime) all() time.Duration { return s.add + s.place + s.end }

// kind says what a job is: one of the specs.
type kind struct{ queue, spec uint16 }

func newLoad(o SchedOptions, queues []job.Queue) *schedLoad {
	return &schedLoad{
		workers: o.Workers, placements: o.Jobs, policy: new(simulator.Policy), queues: queues, waiting: make([]int, len(queues)),
		random: rand.New(rand.NewPCG(o.Seed, 0)), //nolint:gosec // the same load for the same seed is what it is for
	}
}

// plainLoad has one queue, and no policy.
func plainLoad(o SchedOptions) *schedLoad {
	return newLoad(o, []job.Queue{job.DefaultQueueSettings(job.DefaultNamespace, job.DefaultQueue)})
}

// largeLoad has ten times as many workers, and a hundred times as many jobs that wait for them, in a few namespaces.
func largeLoad(o SchedOptions) *schedLoad {
	var queues []job.Queue
	for i := range 8 {
		queues = append(queues, job.DefaultQueueSettings(fmt.Sprintf("tenant-%d", i), job.DefaultQueue))
	}
	l := newLoad(o, queues)
	l.workers, l.backlog = 10*o.Workers, 100*o.Workers
	return l
}

// policyLoad has 20 namespaces with 5 queues each, all with weights. Half of the namespaces may hold only so many CPUs and the other half
// start only so many jobs, a little more than they need on the whole. Each needs more for a while and less for a while, so that
// the limits bind now and then.
func policyLoad(o SchedOptions) *schedLoad {
	const namespaces, perNamespace = 20, 5
	var queues []job.Queue
	for i := range namespaces * perNamespace {
		queues = append(queues, job.DefaultQueueSettings(fmt.Sprintf("tenant-%d", i/perNamespace), fmt.Sprintf("queue-%d", i%perNamespace)))
	}
	l := newLoad(o, queues)
	l.swing = 0.8
	cpus := 0.0
	for i := range o.Workers {
		cpus += fullEnough * float64(schedWorker(i).Capacity.MilliCPU) / namespaces
	}
	starts := roundEnds / namespaces * time.Minute.Seconds() / roundTime.Seconds()
	for i := range namespaces {
		n := simulator.NamespacePolicy{Name: fmt.Sprintf("tenant-%d", i), Weight: int32(1 + i%4)}
		if i%2 == 0 {
			n.Limits.MilliCPU = int32(1.2 * cpus)
		} else {
			n.Limits.StartsPerMinute = int32(1.05 * starts)
		}
		l.policy.Namespaces = append(l.policy.Namespaces, n)
	}
	for i, q := range queues {
		l.policy.Queues = append(l.policy.Queues, simulator.QueuePolicy{Namespace: q.Namespace, Name: q.Name, Weight: int32(1 + i%perNamespace)})
	}
	return l
}

// slicesTaken is into how many parts a measurement is cut. Those of several loads are taken in turn, and the median counts, because others
// use the machine too.
const slicesTaken = 9

// measureSpeed fills the clusters, lets them run in, and then measures them in turn.
func measureSpeed(ctx context.Context, loads ...*schedLoad) error {
	return onOneCore(func() error {
		for _, l := range loads {
			if err := l.policy.Complete(); err != nil {
				return err
			}
			l.fill()
			for range min(int(l.life), warmRounds) {
				l.turn()
			}
			l.clock = true
		}
		for range slicesTaken {
			for _, l := range loads {
				if err := l.measure(ctx, l.placements/slicesTaken+1); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// sliceTime bounds how long the calls of a part take, so that a slow scheduler is measured by fewer jobs.
const sliceTime = 1500 * time.Millisecond

// measure lets rounds pass until so many more jobs have started.
func (l *schedLoad) measure(ctx context.Context, jobs int) error {
	before, spent, begin, used := l.result.Jobs, l.spent.all(), time.Now(), cpuTime()
	for idle := 0; l.result.Jobs < before+jobs && l.spent.all()-spent < sliceTime; idle++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		started := l.result.Jobs
		if l.turn(); l.result.Jobs > started {
			idle = 0
		}
		if idle > mostRounds {
			return fmt.Errorf("nothing starts any more: %d jobs run and %d wait", l.running, l.scheduler.Len())
		}
	}
	l.wall, l.used = l.wall+time.Since(begin), l.used+cpuTime()-used
	l.rates = append(l.rates, float64(l.result.Jobs-before)/(l.spent.all()-spent).Seconds())
	return nil
}

// cpuTime is how long processors have worked for this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil { // it has no reason to fail
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// speed sums up what was measured.
func (l *schedLoad) speed() SchedSpeed {
	r := l.result
	per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / float64(max(r.Jobs, 1)) }
	r.Workers, r.Running, r.PassMillis = l.workers, l.running, quantilesOf(l.passes)
	r.AddMicros, r.PlaceMicros, r.EndMicros = per(l.spent.add), per(l.spent.place), per(l.spent.end)
	r.JobsPerPass = float64(r.Jobs) / float64(max(len(l.passes), 1))
	r.Cores = l.used.Seconds() / max(l.wall, 1).Seconds()
	rounds := float64(max(l.rounds, 1))
	r.Waiting, r.Full, r.Limited = r.Waiting/rounds, r.Full/rounds, r.Limited/rounds
	if len(l.rates) > 0 {
		slices.Sort(l.rates)
		r.PlacementsPerSecond = l.rates[len(l.rates)/2]
	}
	return r
}

// fill starts jobs until the cluster is as full as it is to be. Those that run in a steady state last as long from any
// moment on as new ones do, so they need no history.
func (l *schedLoad) fill() {
	l.scheduler = l.policy.NewScheduler()
	for n := range l.workers {
		w := schedWorker(n)
		l.allCPU, l.allMemory = l.allCPU+int64(w.Capacity.MilliCPU), l.allMemory+int64(w.Capacity.MemoryMiB)
		l.scheduler.SetWorker(w)
	}
	for i := range shapes {
		l.shapeWeights += shapes[i].weight
	}
	for _, q := range l.queues {
		l.specs = append(l.specs, specsOfQueue(&q))
	}
	var first []*scheduler.Running
	for stuck := 0; stuck < 10; l.round++ {
		began := len(first)
		l.add()
		l.place(func(r *scheduler.Running) { first = append(first, r) })
		if stuck++; len(first) > began {
			stuck = 0
		}
	}
	l.life = float64(len(first)) / roundEnds
	for _, r := range first {
		l.last(r)
	}
}

// specsOfQueue makes the specs of a queue's jobs.
func specsOfQueue(q *job.Queue) []job.Spec {
	var specs []job.Spec
	for i, sh := range shapes {
		for p := range priorities {
			s := job.Spec{
				Namespace: q.Namespace, Queue: q.Name, Priority: int32(p), Timeout: timeLimits[i%len(timeLimits)],
				Resources: job.Resources{MilliCPU: sh.milliCPU, MemoryMiB: sh.memoryMiB},
			}
			if sh.constraint.Operator != 0 {
				s.Constraints = []job.Constraint{sh.constraint}
			}
			if sh.gpus > 0 {
				s.Resources.Extras = map[string]int32{gpu: sh.gpus}
				s.Placement = &job.Placement{Tolerations: []string{gpu}}
			}
			specs = append(specs, s)
		}
	}
	return specs
}

// turn is one round.
func (l *schedLoad) turn() {
	l.round++
	ending := l.due[l.round%mostRounds]
	l.due[l.round%mostRounds] = nil
	for _, r := range ending {
		l.hold(l.kinds[numberOf(r.Job())], -1)
	}
	begin := time.Now()
	for _, r := range ending {
		l.scheduler.End(r)
	}
	l.spend(&l.spent.end, begin)
	l.add()
	l.place(l.last)
	if l.clock {
		l.rounds++
		l.result.Waiting += float64(l.scheduler.Len())
		l.result.Full += l.full()
	}
}

func (l *schedLoad) spend(on *time.Duration, begin time.Time) {
	if l.clock {
		*on += time.Since(begin)
	}
}

func (l *schedLoad) now() time.Time { return time.Unix(1e9, 0).Add(time.Duration(l.round) * roundTime) }

func (l *schedLoad) full() float64 {
	return max(float64(l.cpu)/float64(l.allCPU), float64(l.memory)/float64(l.allMemory))
}

// add lets jobs come: as many as are missing from the backlog, or until the cluster will be full enough.
func (l *schedLoad) add() {
	from := len(l.kinds)
	cpu, memory := l.cpu, l.memory
	enough := func() bool {
		if l.backlog > 0 {
			return l.scheduler.Len()+len(l.kinds)-from >= l.backlog
		}
		return max(float64(cpu)/float64(l.allCPU), float64(memory)/float64(l.allMemory)) >= fullEnough
	}
	for !enough() && len(l.kinds)-from < 4096 {
		k := kind{l.drawQueue(), l.drawSpec()}
		l.kinds = append(l.kinds, k)
		l.waiting[k.queue]++
		need := l.specs[k.queue][k.spec].Resources
		cpu, memory = cpu+int64(need.MilliCPU), memory+int64(need.MemoryMiB)
	}
	now := l.now()
	begin := time.Now()
	for n := from; n < len(l.kinds); n++ {
		k := l.kinds[n]
		l.scheduler.Add(job.NewID(now, 0, uint64(n)), &l.specs[k.queue][k.spec], false)
	}
	l.spend(&l.spent.add, begin)
}

// drawQueue draws where a job waits: not where very many do already, and where the demand is high just now more often.
func (l *schedLoad) drawQueue() uint16 {
	for tries := 0; ; tries++ {
		q := l.random.IntN(len(l.queues))
		phase := 2 * math.Pi * (float64(l.round)/swingRounds + float64(q)/float64(len(l.queues)))
		if (1+l.swing*math.Sin(phase))/(1+l.swing) < l.random.Float64() {
			continue
		}
		if l.backlog > 0 || len(l.queues) == 1 || l.waiting[q] < tooMany || tries > 1000 {
			return uint16(q)
		}
	}
}

func (l *schedLoad) drawSpec() uint16 {
	draw, i := l.random.IntN(l.shapeWeights), 0
	for ; draw >= shapes[i].weight; i++ {
		draw -= shapes[i].weight
	}
	return uint16(i*priorities + l.random.IntN(priorities))
}

// place lets the scheduler decide until it has no more to say, and hands over what started.
func (l *schedLoad) place(started func(*scheduler.Running)) {
	limited := 0.0
	for more := true; more; {
		begin := time.Now()
		plan := l.scheduler.Place(l.now())
		took := time.Since(begin)
		more = plan.More
		for _, p := range plan.Placements {
			k := l.kinds[numberOf(p.Job)]
			l.waiting[k.queue]--
			l.hold(k, 1)
			started(p.Place)
		}
		if !plan.Wake.IsZero() {
			limited = 1
		}
		if l.clock {
			l.spent.place += took
			l.passes = append(l.passes, took)
			l.result.Jobs += len(plan.Placements)
		}
	}
	if l.clock {
		l.result.Limited += limited
	}
}

// hold counts what a job holds, or gives back.
func (l *schedLoad) hold(k kind, sign int64) {
	need := l.specs[k.queue][k.spec].Resources
	l.cpu += sign * int64(need.MilliCPU)
	l.memory += sign * int64(need.MemoryMiB)
	l.running += int(sign)
}

// last decides how long a job lasts.
func (l *schedLoad) last(r *scheduler.Running) {
	rounds := min(1+int(l.random.ExpFloat64()*l.life), mostRounds-1)
	at := (l.round + rounds) % mostRounds
	l.due[at] = append(l.due[at], r)
}

func numberOf(id job.ID) uint64 { return binary.BigEndian.Uint64(id[8:]) }
