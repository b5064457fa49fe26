package scheduler

import (
	"cmp"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// gang is jobs of a queue that start together or not at all.
type gang struct {
	key     gangKey
	lines   []*line // with its jobs
	waiting int
	running int
}

type gangKey struct {
	namespace, queue, name string
	size                   int32
}

func (s *Scheduler) gang(spec *job.Spec, asked *job.Gang) *gang {
	if asked == nil {
		return nil
	}
	key := gangKey{spec.Namespace, spec.Queue, asked.Name, asked.Size}
	g := s.gangs[key]
	if g == nil {
		g = &gang{key: key}
		s.gangs[key] = g
	}
	return g
}

// complete reports whether all jobs are there.
func (g *gang) complete() bool { return g.waiting+g.running >= int(g.key.size) }

// joinGang counts a job that waits.
func (s *Scheduler) joinGang(l *line) {
	if l.gang == nil {
		return
	}
	l.gang.waiting++
	s.reopenGang(l.gang)
}

// leftGang counts a job that does not wait any more.
func (s *Scheduler) leftGang(l *line) {
	if l.gang == nil {
		return
	}
	l.gang.waiting--
	s.reopenGang(l.gang)
}

func (s *Scheduler) reopenGang(g *gang) {
	for _, l := range g.lines {
		s.reopen(l)
	}
}

// need is what all waiting jobs of the gang ask for.
func (g *gang) need() amount {
	var sum amount
	for _, l := range g.lines {
		for range l.waiting.size {
			sum.add(&l.shape.ask)
		}
	}
	return sum
}

// tryGang gives the jobs of a gang their places, until there is none for one of them. The largest go first, for small ones fit beside
// them and not the other way round.
func (s *Scheduler) tryGang(g *gang) (taken []*Running, all bool) {
	slices.SortStableFunc(g.lines, func(a, b *line) int {
		x, y := &a.shape.ask, &b.shape.ask
		return cmp.Or(cmp.Compare(y.share(&s.whole), x.share(&s.whole)), cmp.Compare(y.cpu, x.cpu), cmp.Compare(y.memory, x.memory))
	})
	for _, l := range g.lines {
		for _, chunk := range l.waiting.chunks {
			for _, id := range chunk {
				c := s.choose(l.shape, func(c *cell) bool { return s.suits(c, l, id) })
				if c == nil || l.gate != nil && !l.gate.open(l) {
					return taken, false
				}
				taken = append(taken, s.begin(l, id, c, s.now))
			}
		}
	}
	return taken, true
}

// placeGang gives every waiting job of a gang a place, or none of them.
func (s *Scheduler) placeGang(g *gang, plan *Plan) bool {
	taken, all := s.tryGang(g)
	if !all {
		for _, r := range slices.Backward(taken) {
			s.End(r)
		}
		s.missed(g)
		return false
	}
	for _, r := range taken {
		r.line.waiting.remove(r.job)
		s.left(r.line)
		g.waiting--
		s.started(r, plan)
	}
	return true
}

// missed gives up what was promised to a gang that has not started although all of it is free. A promise counts what the jobs hold
// together, and not which of them may stand beside which, so it may never come true: the workers would be kept for nobody.
func (s *Scheduler) missed(g *gang) {
	for _, r := range slices.Clone(s.reservations) {
		if r.line.gang == g && r.at <= nanos(s.now) {
			s.unreserve(r)
			s.released = len(s.aside) > 0
		}
	}
}
