// Package scheduler decides which waiting job goes to which worker, and says why a job has to wait.
//
// It is pure: it has neither a clock nor goroutines, and the same calls give the same plans. A Scheduler is told which jobs wait and
// run and what the workers are; Place makes a plan of it. Whose turn it is follows from the shares of namespaces and queues and from
// the urgency of jobs; filters say on which workers a job may run and explain themselves where it may not; scorers choose among the
// workers that are left.
package scheduler

import (
	"container/list"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Placement gives a job to a worker.
type Placement struct {
	Job    job.ID
	Worker job.WorkerID
	Place  *Running // to be given back to End
	Waited string   // why it has waited, as was found last; empty: it has not, or nobody looked
}

// Plan is what Place decided; it is good until the next call. Its placements are in force: who cannot carry one out calls End.
type Plan struct {
	Placements  []Placement  // in the order of decision
	Preemptions []Preemption // jobs that must leave
	Superseded  []job.ID     // jobs, waiting or running, that a newer one with their concurrency key replaces
	More        bool         // the work for one pass is done but not all jobs were looked at: ask again at once
	Wake        time.Time    // when to ask again although nothing has changed; zero: no need to
}

// Options are the bounds within which a Scheduler works. Zero values mean the defaults.
type Options struct {
	SampleAbove  int // with more workers than that a good one is enough, and need not be the best; 4096
	Work         int // how many workers one pass looks at, about, unless it finds no place for any job; 100,000
	Reservations int // how many jobs that do not fit are promised a start; 1, which is EASY backfilling. Many are conservative; up to 32
}

// Scheduler knows the jobs that wait and those that run, and the workers. It has one owner.
type Scheduler struct {
	options    Options
	names      names
	root       *node
	namespaces map[string]*node
	queues     map[queueKey]*node
	busy       []*node // that have groups
	lines      map[Class]*line
	latest     *line // that a job came to; nil: none
	tidyAt     int   // how many lines are many
	shapes     map[shapeKey]*shape
	families   map[familyKey]*family
	gates      map[gateKey]*gate
	gangs      map[gangKey]*gang
	cells      cells
	scopes     map[string]int // of how many workers what they serve is part
	changes    changes
	whole      amount // what all workers have that are there
	waiting    int
	superseded []job.ID
	nonsense   int
	spare      []*Running
	placements []Placement // of the last plan

	history     history
	out         []*cell   // that are out of use for a while
	failing     int       // on how many workers the last job failed, or which are tried with one job
	succeeded   time.Time // when a job did last while there were such workers
	succeededOn *cell

	reservations []*reservation
	scanned      int // where the next look at a part of the workers begins

	// Of the pass under way.
	pass     uint64
	now      time.Time
	work     int
	aside    []*line // that are not looked at any more
	heads    []*line // whose first jobs found no room, and have no reservation yet
	released bool    // a reservation was given up while lines were set aside
}

// New makes a Scheduler without jobs and workers.
func New(options Options) *Scheduler {
	if options.SampleAbove == 0 {
		options.SampleAbove = 4096
	}
	if options.Work == 0 {
		options.Work = 100_000
	}
	options.Reservations = min(max(options.Reservations, 1), mostReservations)
	s := &Scheduler{
		options: options, namespaces: make(map[string]*node), queues: make(map[queueKey]*node),
		lines: make(map[Class]*line), tidyAt: idleLines, shapes: make(map[shapeKey]*shape), families: make(map[familyKey]*family),
		history: history{families: make(map[familyName]*list.Element)},
		gates:   make(map[gateKey]*gate), gangs: make(map[gangKey]*gang), cells: cells{byID: make(map[job.WorkerID]*cell)},
		scopes: make(map[string]int),
	}
	s.changes.end = 1
	s.root = newNode("", nil)
	return s
}

// Len returns how many jobs wait.
func (s *Scheduler) Len() int { return s.waiting }

// Begin takes in a job that runs already, as far as anybody knows since a time.
func (s *Scheduler) Begin(id job.ID, spec *job.Spec, again bool, worker job.WorkerID, since time.Time) *Running {
	return s.begin(s.line(spec, again), id, s.cell(worker), since)
}

// begin gives a job its place, and counts it wherever jobs are counted.
func (s *Scheduler) begin(l *line, id job.ID, c *cell, since time.Time) *Running {
	r := s.newRunning()
	*r = Running{job: id, line: l, began: nanos(since), until: nanos(since) + int64(bound(l.class.Bound))}
	s.take(c, r, &l.shape.ask)
	l.running++
	l.node.hold(&l.shape.ask)
	l.gate.pass(r)
	if l.gang != nil {
		l.gang.running++
	}
	l.shape.spread.count(c, 1)
	l.shape.apart.count(c, 1)
	return r
}

// End takes back the place of a job that runs no more. It must not be used afterwards.
func (s *Scheduler) End(r *Running) {
	l := r.line
	l.shape.spread.count(r.cell, -1)
	l.shape.apart.count(r.cell, -1)
	if l.gang != nil {
		l.gang.running--
	}
	l.node.letGo(&l.shape.ask)
	l.running--
	s.give(r, &l.shape.ask)
	s.passed(l.gate, r)
	*r = Running{}
	s.spare = append(s.spare, r)
}

// newRunning takes one that is not used any more, if there is one: short jobs would make much garbage.
func (s *Scheduler) newRunning() *Running {
	last := len(s.spare) - 1
	if last < 0 {
		return new(Running)
	}
	r := s.spare[last]
	s.spare = s.spare[:last]
	return r
}

// Place gives waiting jobs to workers, those whose turn it is first, each to the best worker that can take it. Jobs that are placed
// do not wait any more. No worker gets more than it has free, and the plan is the same whatever the order of the workers.
func (s *Scheduler) Place(now time.Time) Plan {
	s.now, s.work = now, 0
	plan := Plan{Superseded: s.superseded, Placements: s.placements[:0]}
	s.superseded = nil
	s.heal(&plan)
	s.keepReservations()
	for s.released = true; s.released && !plan.More; {
		s.released = false
		s.goRound(&plan)
	}
	s.placements = plan.Placements
	return plan
}

// goRound looks at every job that may start, one for all that are alike.
func (s *Scheduler) goRound(plan *Plan) {
	s.pass++
	s.openAll(plan)
	n := s.next()
	for ; n != nil && (s.work < s.options.Work || len(plan.Placements) == 0); n = s.next() {
		s.work++
		s.serve(n, plan)
		s.settle(n, plan)
	}
	plan.More = n != nil
	for _, l := range s.aside {
		if l.waiting.size > 0 { // a gang may have taken it along
			s.joinGroup(l)
		}
	}
	clear(s.aside)
	clear(s.heads)
	s.aside, s.heads = s.aside[:0], s.heads[:0]
}

// serve looks at the most urgent job of a queue.
func (s *Scheduler) serve(n *node, plan *Plan) {
	g := n.turn.top()
	if g.lines.len() == 0 || g.shape.blocked == s.pass {
		n.turn.pop()
		return
	}
	l := g.lines.top()
	if l.waiting.size == 0 || !l.open() {
		s.leaveGroup(l)
		if l.waiting.size > 0 {
			s.joinGroup(l) // it is parked there
		}
		s.reorder(n, g)
		return
	}
	need := l.shape.ask
	if l.gang != nil {
		need = l.gang.need()
	}
	if _, limit := n.limited(&need, s.now); limit != noLimit {
		s.keepReason(l)
		if l.gang != nil {
			s.setAside(n, g)
		} else {
			n.turn.pop() // all of the shape ask for as much
		}
		return
	}
	for _, head := range s.heads {
		s.reserve(head)
	}
	clear(s.heads)
	s.heads = s.heads[:0]
	if !s.placeFirst(l, plan) {
		s.noRoom(n, g, l, plan)
		return
	}
	s.reorder(n, g)
}

// placeFirst places the first job of a line, or its gang.
func (s *Scheduler) placeFirst(l *line, plan *Plan) bool {
	if l.gang != nil {
		return s.placeGang(l.gang, plan)
	}
	id := l.waiting.first()
	c := s.choose(l.shape, func(c *cell) bool { return s.suits(c, l, id) })
	if c == nil {
		return false
	}
	l.waiting.remove(id)
	s.left(l)
	s.started(s.begin(l, id, c, s.now), plan)
	return true
}

// started puts a job that has got its place into the plan.
func (s *Scheduler) started(r *Running, plan *Plan) {
	r.line.node.spend()
	p := Placement{Job: r.job, Worker: r.cell.worker.ID, Place: r}
	if at := r.line.reasonAt; !at.IsZero() && at.UnixMilli() >= r.job.Time().UnixMilli() {
		p.Waited = r.line.reason
	}
	plan.Placements = append(plan.Placements, p)
	if len(s.reservations) > 0 {
		s.redeem(r)
	}
	if l := r.line; l.waiting.size > 0 {
		l.urge()
	}
}

// noRoom deals with a job for which there is no worker now.
func (s *Scheduler) noRoom(n *node, g *group, l *line, plan *Plan) {
	s.heads = append(s.heads, l)
	s.keepReason(l)
	s.preempt(l, plan)
	if l.gang == nil && len(l.shape.best) == 0 {
		// What is free only shrinks in a pass, so there is none for any other job of the shape either.
		l.shape.blocked = s.pass
		n.turn.pop()
		return
	}
	s.setAside(n, g) // it is in the way of a reservation, others of the shape may not be
}

// setAside leaves the most urgent line of a group out until the pass is over.
func (s *Scheduler) setAside(n *node, g *group) {
	l := g.lines.top()
	s.leaveGroup(l)
	s.aside = append(s.aside, l)
	s.reorder(n, g)
}

// reorder puts the first group of a queue where it belongs after its lines have changed.
func (s *Scheduler) reorder(n *node, g *group) {
	if g.lines.len() == 0 {
		n.turn.pop()
		return
	}
	g.lines.fixTop()
	n.turn.fixTop()
}
