package simulator

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Setup is what is simulated.
type Setup struct {
	Cluster   Cluster
	Jobs      []Job
	Policy    *Policy // complete; nil: nothing but defaults
	FirstCome bool    // strict first come, first served, instead of the Scheduler
	Promises  bool    // see whether promised starts are kept, which takes a look at every worker each time
}

// Run lets a workload pass over a cluster in virtual time and returns what was measured. The same setup gives the same result. A
// placement for which there is no room is an error, and so is a job that could start and never does without a limit that keeps it.
func Run(ctx context.Context, setup Setup) (*Result, error) {
	s, err := newSimulation(&setup)
	if err != nil {
		return nil, err
	}
	for events := 0; s.step(); events++ {
		if s.now > longest {
			return nil, fmt.Errorf("the workload takes more than %v; take fewer jobs or more workers", longest)
		}
		if err := s.happen(); err != nil {
			return nil, fmt.Errorf("after %v: %w", s.now, err)
		}
		if events%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if err := s.isAtRest(); err != nil {
		return nil, err
	}
	return s.ledger.result(), nil
}

const (
	longest    = 200 * 365 * 24 * time.Hour // far from the end of what the Scheduler's times can hold
	idlePasses = 1000                       // in a row at one moment, after which nothing will come of another one
	idleWakes  = 1000                       // in a row while nothing else happens
	leaveTime  = job.DefaultGrace           // how long a job takes that is to make room
)

// simulation is a run under way.
type simulation struct {
	cluster    Cluster
	jobs       []Job // in the order of their submission
	runs       []run
	rooms      []room
	discipline discipline
	ledger     *ledger
	events     events
	submitted  int // how many of the jobs
	now        time.Duration
	wake       time.Duration // 0: none
	idle       int           // wakes in a row that changed nothing
	waiting    int
	running    int
}

// run is where a job stands.
type run struct {
	phase  phase
	worker int32
	turn   int32 // how often it has started
	began  time.Duration
}

type phase uint8

const (
	absent phase = iota // not submitted, or too large for every worker
	waits
	runs
	ended
)

func newSimulation(setup *Setup) (*simulation, error) {
	if err := setup.Cluster.validate(); err != nil {
		return nil, err
	}
	if len(setup.Jobs) > MaxJobs {
		return nil, fmt.Errorf("the workload has %d jobs; at most %d are allowed", len(setup.Jobs), MaxJobs)
	}
	policy := setup.Policy
	if policy == nil {
		policy = new(Policy)
	}
	jobs := slices.Clone(setup.Jobs)
	sortJobs(jobs)
	for i := range jobs {
		if err := jobs[i].validate(); err != nil {
			return nil, fmt.Errorf("job %d: %w", jobs[i].Number, err)
		}
		if setup.Cluster.MemoryMiB == 0 {
			jobs[i].MemoryMiB = 0
		}
	}
	s := &simulation{
		cluster: setup.Cluster, jobs: jobs, runs: make([]run, len(jobs)), rooms: setup.Cluster.rooms(),
		ledger: newLedger(&setup.Cluster, jobs, policy),
	}
	if setup.FirstCome {
		s.discipline = newFirstCome(&s.cluster, jobs)
	} else {
		s.discipline = newScheduled(&s.cluster, jobs, policy)
	}
	s.ledger.promising = setup.Promises && !setup.FirstCome
	return s, nil
}

// step goes on to the next moment at which something happens, and reports whether there is one.
func (s *simulation) step() bool {
	next, found := time.Duration(0), false
	consider := func(at time.Duration) {
		if !found || at < next {
			next, found = at, true
		}
	}
	if s.submitted < len(s.jobs) {
		consider(s.jobs[s.submitted].Submit)
	}
	if len(s.events) > 0 {
		consider(s.events[0].at)
	}
	if s.wake > 0 && (found || s.idle < idleWakes) {
		consider(s.wake)
	}
	if found {
		s.ledger.advance(next)
		s.now = next
	}
	return found
}

// happen does all that happens at this moment.
func (s *simulation) happen() error {
	if s.wake <= s.now {
		s.wake = 0
	}
	for len(s.events) > 0 && s.events[0].at == s.now {
		s.over(heap.Pop(&s.events).(event))
	}
	for ; s.submitted < len(s.jobs) && s.jobs[s.submitted].Submit == s.now; s.submitted++ {
		n := s.submitted
		if !s.cluster.fits(&s.jobs[n]) {
			s.ledger.tooLarge++
			continue
		}
		s.wait(n, false)
	}
	return s.place()
}

func (s *simulation) wait(n int, again bool) {
	s.runs[n].phase = waits
	s.waiting++
	s.ledger.waits(n)
	s.discipline.add(n, again)
}

// over ends a job, or takes its place away, unless that has happened already.
func (s *simulation) over(e event) {
	r := &s.runs[e.job]
	if r.phase != runs || r.turn != e.turn {
		return
	}
	s.rooms[r.worker].give(&s.jobs[e.job])
	s.running--
	s.discipline.end(e.job)
	if e.leaves {
		s.ledger.lost(e.job, s.now-r.began)
		s.wait(e.job, true)
		return
	}
	r.phase = ended
	s.ledger.ends(e.job, r.began)
}

// place asks for decisions until there are no more for this moment, and checks each.
func (s *simulation) place() error {
	var starts []start
	decided := false
	for pass := 0; ; pass++ {
		d := s.discipline.place(s.now)
		s.ledger.passes++
		for _, st := range d.starts {
			if err := s.start(st); err != nil {
				return err
			}
		}
		for _, n := range d.leaving {
			if n < 0 || n >= len(s.jobs) || s.runs[n].phase != runs {
				return fmt.Errorf("job %d was asked to make room and does not run", s.numberOf(n))
			}
			heap.Push(&s.events, event{s.now + leaveTime, n, s.runs[n].turn, true})
		}
		starts = append(starts, d.starts...)
		if len(d.starts)+len(d.leaving) > 0 {
			decided, pass = true, 0
		}
		if d.wake > 0 {
			s.wake = max(d.wake, s.now+1) // time must go on
		}
		if !d.again {
			break
		}
		if pass == idlePasses {
			return fmt.Errorf("the scheduler wanted to be asked again at once %d times in a row and decided nothing", pass)
		}
	}
	s.ledger.started(starts)
	if s.ledger.promising {
		s.discipline.promised(s.ledger.promise)
	}
	if s.idle++; decided || len(s.events) > 0 {
		s.idle = 0
	}
	return nil
}

// start lets a job run, if it may.
func (s *simulation) start(st start) error {
	if st.job < 0 || st.job >= len(s.jobs) || s.runs[st.job].phase != waits {
		return fmt.Errorf("job %d was placed and does not wait", s.numberOf(st.job))
	}
	j, r := &s.jobs[st.job], &s.runs[st.job]
	if st.worker < 0 || st.worker >= len(s.rooms) {
		return fmt.Errorf("job %d was given to a worker that is not there", j.Number)
	}
	if free := &s.rooms[st.worker]; !free.covers(j) {
		return fmt.Errorf("job %d was given to worker %d, which has not enough free: it needs %d thousandths of a CPU and %d MiB, of %+v",
			j.Number, st.worker, j.MilliCPU, j.MemoryMiB, *free)
	}
	s.rooms[st.worker].take(j)
	s.waiting--
	s.running++
	*r = run{runs, int32(st.worker), r.turn + 1, s.now}
	heap.Push(&s.events, event{s.now + j.Runtime, st.job, r.turn, false})
	return nil
}

func (s *simulation) numberOf(n int) int {
	if n < 0 || n >= len(s.jobs) {
		return n
	}
	return s.jobs[n].Number
}

// isAtRest returns what is wrong when nothing happens any more.
func (s *simulation) isAtRest() error {
	s.ledger.neverStarted = s.waiting
	if s.running > 0 {
		return fmt.Errorf("%d jobs run and never end", s.running)
	}
	empty := room{int64(s.cluster.MilliCPU), int64(s.cluster.MemoryMiB), int64(s.cluster.slots())}
	for i := range s.rooms {
		if s.rooms[i] != empty {
			return fmt.Errorf("all jobs have ended, and worker %d has %+v free instead of %+v", i, s.rooms[i], empty)
		}
	}
	if d, ok := s.discipline.(*scheduled); ok && s.waiting == 0 {
		return d.isEmpty()
	}
	if s.waiting > 0 && !s.ledger.limited {
		return errors.New("jobs that fit wait although nothing runs and no limit keeps them")
	}
	return nil
}

// event is the end of a job's turn.
type event struct {
	at     time.Duration
	job    int
	turn   int32
	leaves bool // it makes room, and has not done its work
}

// events is a heap, the earliest first.
type events []event

func (e events) Len() int { return len(e) }

func (e events) Less(i, k int) bool {
	switch a, b := &e[i], &e[k]; {
	case a.at != b.at:
		return a.at < b.at
	case a.leaves != b.leaves:
		return b.leaves // who ends at the very moment has done its work
	default:
		return a.job < b.job
	}
}

func (e events) Swap(i, k int) { e[i], e[k] = e[k], e[i] }

func (e *events) Push(x any) { *e = append(*e, x.(event)) }

func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
