package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Class is what jobs have in common that are alike to the scheduler: where they wait, how urgent they are and what they ask for. One
// decision is good for all of them, in the order of their age.
type Class struct {
	Namespace, Queue              string
	Priority, MilliCPU, MemoryMiB int32
	Once                          bool   // they may be started only once, so they cannot make room for others
	Bound                         uint8  // how long they are expected to run at most, see boundOf
	Rest                          string // extras, constraints and the like; empty for most
}

// line is the waiting jobs of a class, the oldest first.
type line struct {
	class   Class
	spec    *job.Spec // what its jobs ask for; of any of them
	rest    string    // the part of Rest that is the shape's
	node    *node
	shape   *shape
	gate    *gate  // nil: none
	gang    *gang  // nil: none
	group   *group // that it waits in; nil: nobody waits
	parked  bool
	slot    int // where in its group
	running int
	waiting waiting
	urgency urgency

	reason   string // why its jobs waited, see keepReason
	reasonAt time.Time
}

// urgency orders lines: a job whose priority is higher by one is as urgent as one that has waited for longer by the queue's ageing.
// Without ageing only jobs of the same priority are ordered by age.
type urgency struct {
	priority int32 // the higher goes first; 0 with ageing
	created  int64 // milliseconds since 1970, less what the priority is worth
	oldest   job.ID
}

func (a urgency) compare(b urgency) int {
	return cmp.Or(cmp.Compare(b.priority, a.priority), cmp.Compare(a.created, b.created), a.oldest.Compare(b.oldest))
}

// urgencyOf returns how urgent a job of a class is.
func (l *line) urgencyOf(id job.ID) urgency {
	u := urgency{created: id.Time().UnixMilli(), oldest: id}
	if ageing := l.node.queue.Ageing; ageing > 0 {
		u.created -= int64(l.class.Priority) * ageing.Milliseconds()
	} else {
		u.priority = l.class.Priority
	}
	return u
}

// urge notes how urgent the line's first job is.
func (l *line) urge() { l.urgency = l.urgencyOf(l.waiting.first()) }

// group is the lines of a queue whose jobs have the same shape: when there is no worker for one there is none for any.
type group struct {
	node   *node
	shape  *shape
	lines  heap[*line]
	parked []*line // that cannot go on until something happens which brings them back
	place  int     // among the groups of its node
}

// urgency is that of the most urgent line; without one the group comes last.
func (g *group) urgency() urgency {
	if g.lines.len() == 0 {
		return urgency{priority: -job.MaxPriority - 1, created: math.MaxInt64}
	}
	return g.lines.top().urgency
}

// boundOf rounds a time up to one of few, so that jobs which run about as long are alike: a step is half as long again at most.
func boundOf(d time.Duration) uint8 {
	b := 2 * uint8(max(bits.Len64(uint64(max(d, 1)-1)/uint64(time.Second))-1, 0))
	for b < maxBound && bound(b) < d {
		b++
	}
	return b
}

const maxBound uint8 = 60

// bound is the time that a step of boundOf stands for: a second, 1.5 seconds, 2, 3, 4, 6 and so on.
func bound(b uint8) time.Duration {
	d := time.Second << (b / 2)
	if b%2 == 1 {
		d += d / 2
	}
	return d
}

// classOf returns the class of a job, and what of its Rest is its shape's.
func (s *Scheduler) classOf(spec *job.Spec, again bool) (class Class, rest string) {
	c := Class{
		Namespace: spec.Namespace, Queue: spec.Queue, Priority: spec.Priority,
		MilliCPU: spec.Resources.MilliCPU, MemoryMiB: spec.Resources.MemoryMiB, Bound: boundOf(s.expected(spec)),
		Once: spec.MaxAttempts <= 1,
	}
	rest = shapeRest(spec)
	c.Rest = rest
	if p := spec.Placement; p != nil {
		if p.Concurrency != nil {
			c.Rest += fmt.Sprintf("#%q %d %d", p.Concurrency.Key, p.Concurrency.Limit, p.Concurrency.Policy)
		}
		if p.Gang != nil && !again {
			c.Rest += fmt.Sprintf("&%q %d", p.Gang.Name, p.Gang.Size)
		}
	}
	return c, rest
}

// Class returns the class of a job. again: it is not its first attempt.
func (s *Scheduler) Class(spec *job.Spec, again bool) Class {
	class, _ := s.classOf(spec, again)
	return class
}

// line returns the line of a class, which it makes when there is none.
func (s *Scheduler) line(spec *job.Spec, again bool) *line {
	if s.latest != nil && s.latest.plain(spec) {
		return s.latest
	}
	class, rest := s.classOf(spec, again)
	if l := s.lines[class]; l != nil {
		s.latest = l
		return l
	}
	s.tidy()
	l := &line{class: class, spec: asks(spec), rest: rest, node: s.queue(spec.Namespace, spec.Queue)}
	l.shape = s.shape(spec, l.node, rest)
	if p := spec.Placement; p != nil {
		if l.gate = s.gate(spec.Namespace, p.Concurrency); l.gate != nil {
			l.gate.lines = append(l.gate.lines, l)
		}
		if !again {
			if l.gang = s.gang(spec, p.Gang); l.gang != nil {
				l.gang.lines = append(l.gang.lines, l)
			}
		}
	}
	s.lines[class], s.latest = l, l
	return l
}

// plain reports whether a spec is of the line's class, where that can be seen quickly: most jobs are like the one before, and ask for
// little.
func (l *line) plain(spec *job.Spec) bool {
	return l.class.Rest == "" && spec.Placement == nil && spec.Name == "" && l.spec.Name == "" &&
		len(spec.Constraints) == 0 && len(spec.Resources.Extras) == 0 &&
		l.class.MilliCPU == spec.Resources.MilliCPU && l.class.MemoryMiB == spec.Resources.MemoryMiB &&
		l.class.Priority == spec.Priority && l.class.Once == (spec.MaxAttempts <= 1) && l.spec.Timeout == spec.Timeout &&
		l.class.Namespace == spec.Namespace && l.class.Queue == spec.Queue
}

// asks keeps of a spec what filters and scorers look at, so that a line does not keep a script in memory.
func asks(spec *job.Spec) *job.Spec {
	return &job.Spec{
		Name: spec.Name, Namespace: spec.Namespace, Queue: spec.Queue, Resources: spec.Resources, Constraints: spec.Constraints,
		Priority: spec.Priority, Timeout: spec.Timeout, Placement: spec.Placement,
	}
}

// Lines without jobs stay for a while, because another job of the class is likely to come.
const idleLines = 4096

// tidy forgets what nobody uses when there is much of it.
func (s *Scheduler) tidy() {
	if len(s.lines) < s.tidyAt {
		return
	}
	s.latest = nil
	used, named := make(map[*shape]bool), make(map[*node]bool)
	idle := func(l *line) bool { return l.waiting.size == 0 && l.running == 0 }
	for class, l := range s.lines {
		if idle(l) {
			delete(s.lines, class)
		} else {
			used[l.shape], named[l.node] = true, true
		}
	}
	for key, g := range s.gates {
		if g.lines = slices.DeleteFunc(g.lines, idle); len(g.lines) == 0 {
			delete(s.gates, key)
		}
	}
	for key, g := range s.gangs {
		if g.lines = slices.DeleteFunc(g.lines, idle); len(g.lines) == 0 {
			delete(s.gangs, key)
		}
	}
	for key, sh := range s.shapes {
		if !used[sh] {
			delete(s.shapes, key)
		}
	}
	for key, f := range s.families {
		if f.shapes = slices.DeleteFunc(f.shapes, func(sh *shape) bool { return !used[sh] }); len(f.shapes) == 0 {
			delete(s.families, key)
		}
	}
	s.tidyNodes(named)
	s.tidyAt = 2*len(s.lines) + idleLines
}

// tidyNodes forgets queues and namespaces that somebody has named once, and nobody has set.
func (s *Scheduler) tidyNodes(named map[*node]bool) {
	for key, n := range s.queues {
		if !n.set && !named[n] && n.children == 0 {
			n.parent.children--
			delete(s.queues, key)
		}
	}
	for name, n := range s.namespaces {
		if !n.set && n.children == 0 {
			n.parent.children--
			delete(s.namespaces, name)
		}
	}
}

// Add takes a waiting job in. Adding it again changes nothing. again: it is not its first attempt.
func (s *Scheduler) Add(id job.ID, spec *job.Spec, again bool) {
	l := s.line(spec, again)
	before := l.waiting.size
	if l.waiting.add(id); l.waiting.size == before {
		return
	}
	s.waiting++
	l.node.waiting++
	if l.gate != nil {
		s.superseded = l.gate.supersede(s.superseded, l, id)
	}
	s.joinGang(l)
	if l.group != nil && l.waiting.first() != id {
		return
	}
	s.leaveGroup(l)
	l.urge()
	s.joinGroup(l)
}

// Remove takes a waiting job out.
func (s *Scheduler) Remove(id job.ID, spec *job.Spec, again bool) {
	l := s.find(id, spec, again)
	if l == nil {
		return
	}
	first := l.waiting.first() == id
	l.waiting.remove(id)
	s.left(l)
	s.leftGang(l)
	if !first {
		return
	}
	s.leaveGroup(l)
	if l.waiting.size > 0 {
		l.urge()
		s.joinGroup(l)
	}
}

// find returns the line in which a job waits, nil when it does not. What is expected of the job may be another time now than when
// it came.
func (s *Scheduler) find(id job.ID, spec *job.Spec, again bool) *line {
	class, _ := s.classOf(spec, again)
	if l := s.lines[class]; l != nil && l.waiting.has(id) {
		return l
	}
	if spec.Name == "" {
		return nil
	}
	for class.Bound = range maxBound + 1 {
		if l := s.lines[class]; l != nil && l.waiting.has(id) {
			return l
		}
	}
	return nil
}

func (s *Scheduler) left(l *line) {
	s.waiting--
	l.node.waiting--
}

// joinGroup puts a line, in which jobs wait, where its queue finds it.
func (s *Scheduler) joinGroup(l *line) {
	g := l.node.byShape[l.shape]
	if g == nil {
		g = &group{node: l.node, shape: l.shape, place: len(l.node.groups)}
		g.lines.before = func(a, b *line) bool { return a.urgency.compare(b.urgency) < 0 }
		g.lines.moved = func(l *line, at int) { l.slot = at }
		l.node.groups = append(l.node.groups, g)
		l.node.byShape[l.shape] = g
		if len(l.node.groups) == 1 {
			s.occupied(l.node)
		}
	}
	l.group = g
	if l.parked = !l.open(); l.parked {
		l.slot = len(g.parked)
		g.parked = append(g.parked, l)
	} else {
		g.lines.push(l)
	}
}

// open reports whether the line's jobs may start as far as other jobs are concerned.
func (l *line) open() bool {
	return (l.gate == nil || l.gate.open(l)) && (l.gang == nil || l.gang.complete())
}

// leaveGroup takes a line out of its group.
func (s *Scheduler) leaveGroup(l *line) {
	g := l.group
	if g == nil {
		return
	}
	l.group = nil
	if l.parked {
		g.parked = swapOut(g.parked, l.slot, func(moved *line, at int) { moved.slot = at })
	} else {
		g.lines.remove(l.slot)
	}
	if len(g.parked)+g.lines.len() > 0 {
		return
	}
	n := l.node
	delete(n.byShape, g.shape)
	if n.groups = swapOut(n.groups, g.place, func(moved *group, at int) { moved.place = at }); len(n.groups) == 0 {
		s.vacant(n)
	}
}

// swapOut removes an element by putting the last one into its place, which is told.
func swapOut[T any](list []T, at int, moved func(T, int)) []T {
	last := len(list) - 1
	if at < last {
		list[at] = list[last]
		moved(list[at], at)
	}
	var zero T
	list[last] = zero
	return list[:last]
}

// reopen looks again whether the jobs of a line may start.
func (s *Scheduler) reopen(l *line) {
	if l.group != nil && l.parked == l.open() {
		s.leaveGroup(l)
		s.joinGroup(l)
	}
}
