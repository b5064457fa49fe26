package simulator

import (
	"cmp"
	"slices"
	"time"
)

// ledger writes down what happens, and adds it up at the end.
type ledger struct {
	capacity  float64 // thousandths of a CPU, of all workers
	largest   int32   // of one worker
	jobs      []Job
	limited   bool // there are limits that may keep jobs waiting for ever
	promising bool

	now        time.Duration
	busy       int64   // thousandths of a CPU that run
	work       float64 // thousandths of CPUs times seconds, so far
	first      time.Duration
	last       time.Duration // when the latest job ended
	beforeLast float64       // the work until the latest start
	lastStart  time.Duration
	any        bool // a job was submitted

	tenants []*tenant
	byName  map[string]*tenant
	queues  map[queueKey]*line
	of      []*line // the queue of each job
	shared  float64 // seconds in which every tenant had jobs waiting

	promises map[int]time.Duration // the first that was made to each job
	late     int
	finished []finished

	placements, backfilled, tooLarge, neverStarted, passes, preempted int
	lostWork                                                          float64
}

// tenant is a namespace.
type tenant struct {
	name     string
	weight   float64
	busy     int64
	waiting  int
	received float64 // thousandths of CPUs times seconds, while every tenant had jobs waiting
}

type queueKey struct{ namespace, name string }

// line is the jobs of a queue in the order of their submission.
type line struct {
	tenant  *tenant
	jobs    []int
	waiting map[int]bool
	front   int // before it nobody waits
}

// finished is a job that has ended.
type finished struct {
	job  int
	wait time.Duration
}

func newLedger(c *Cluster, jobs []Job, p *Policy) *ledger {
	l := &ledger{
		capacity: float64(c.MilliCPU) * float64(c.Workers), largest: c.MilliCPU, jobs: jobs, byName: make(map[string]*tenant),
		queues: make(map[queueKey]*line), of: make([]*line, len(jobs)), promises: make(map[int]time.Duration),
	}
	for i := range jobs {
		key := queueKey{jobs[i].Namespace, jobs[i].Queue}
		q := l.queues[key]
		if q == nil {
			q = &line{tenant: l.tenant(jobs[i].Namespace, p), waiting: make(map[int]bool)}
			l.queues[key] = q
		}
		l.of[i] = q
	}
	slices.SortFunc(l.tenants, func(a, b *tenant) int { return cmp.Compare(a.name, b.name) })
	for i := range p.Namespaces {
		l.limited = l.limited || p.Namespaces[i].Limits != Limits{}
	}
	for i := range p.Queues {
		l.limited = l.limited || p.Queues[i].Limits != Limits{} || p.Queues[i].Paused
	}
	return l
}

func (l *ledger) tenant(name string, p *Policy) *tenant {
	t := l.byName[name]
	if t == nil {
		t = &tenant{name: name, weight: p.weightOf(name)}
		l.byName[name] = t
		l.tenants = append(l.tenants, t)
	}
	return t
}

// advance counts the time until a moment.
func (l *ledger) advance(to time.Duration) {
	seconds := (to - l.now).Seconds()
	l.now = to
	l.work += float64(l.busy) * seconds
	if slices.ContainsFunc(l.tenants, func(t *tenant) bool { return t.waiting == 0 }) {
		return
	}
	l.shared += seconds
	for _, t := range l.tenants {
		t.received += float64(t.busy) * seconds
	}
}

// waits notes that a job waits, for the first time or again.
func (l *ledger) waits(n int) {
	if !l.any {
		l.any, l.first = true, l.now
	}
	q := l.of[n]
	q.tenant.waiting++
	q.waiting[n] = true
	at, again := slices.BinarySearch(q.jobs, n)
	if !again {
		q.jobs = append(q.jobs, n)
	}
	q.front = min(q.front, at)
}

// started notes the jobs that start at this moment. Whoever then leaves an earlier one of its queue waiting has been backfilled.
func (l *ledger) started(starts []start) {
	for _, s := range starts {
		q := l.of[s.job]
		q.tenant.waiting--
		q.tenant.busy += int64(l.jobs[s.job].MilliCPU)
		l.busy += int64(l.jobs[s.job].MilliCPU)
		delete(q.waiting, s.job)
		if at, ok := l.promises[s.job]; ok && l.now > at+promiseSlack {
			l.late++
		}
		l.lastStart, l.beforeLast = l.now, l.work
		l.placements++
	}
	for _, s := range starts {
		q := l.of[s.job]
		for q.front < len(q.jobs) && !q.waiting[q.jobs[q.front]] {
			q.front++
		}
		if q.front < len(q.jobs) && q.jobs[q.front] < s.job {
			l.backfilled++
		}
	}
}

// promiseSlack is how much later than promised a job may start: times are rounded on the way.
const promiseSlack = time.Second

// promise notes when a job is to start at the latest. The first promise counts.
func (l *ledger) promise(n int, at time.Duration) {
	if _, ok := l.promises[n]; !ok {
		l.promises[n] = at
	}
}

// lost notes that a job had to make room after some time, which was for nothing.
func (l *ledger) lost(n int, ran time.Duration) {
	l.stops(n)
	l.preempted++
	l.lostWork += float64(l.jobs[n].MilliCPU) * ran.Seconds()
	delete(l.promises, n)
}

// ends notes that a job has done its work, which began at a moment.
func (l *ledger) ends(n int, began time.Duration) {
	l.stops(n)
	l.last = l.now
	l.finished = append(l.finished, finished{n, began - l.jobs[n].Submit})
}

func (l *ledger) stops(n int) {
	l.busy -= int64(l.jobs[n].MilliCPU)
	l.of[n].tenant.busy -= int64(l.jobs[n].MilliCPU)
}

// classOf returns under which name a job is reported: its class, or how much it asks for of a worker.
func (l *ledger) classOf(j *Job) string {
	switch {
	case j.Class != "":
		return j.Class
	case int64(j.MilliCPU)*smallPart <= int64(l.largest):
		return "small"
	case int64(j.MilliCPU)*mediumPart <= int64(l.largest):
		return "medium"
	default:
		return "large"
	}
}

// A job is small that asks for at most one of so many parts of a worker's CPUs, and medium likewise.
const (
	smallPart  = 32
	mediumPart = 4
)
