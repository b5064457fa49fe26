package scheduler

import "time"

// occupied notes that jobs wait in a queue.
func (s *Scheduler) occupied(n *node) {
	n.place = len(s.busy)
	s.busy = append(s.busy, n)
}

// vacant notes that none waits any more.
func (s *Scheduler) vacant(n *node) {
	s.busy = swapOut(s.busy, n.place, func(moved *node, at int) { moved.place = at })
}

// openAll makes ready for a pass: every queue in which a job may start gets its turn.
func (s *Scheduler) openAll(plan *Plan) {
	s.open(s.root)
	for _, n := range s.busy {
		s.open(n)
		if !s.mayStart(n, plan) {
			continue
		}
		for _, g := range n.groups {
			if g.lines.len() > 0 {
				n.turn.push(g)
			}
		}
		for at := n; at.turn.len()+at.open.len() > 0 && at.parent != nil && !at.opened; at = at.parent {
			s.open(at.parent)
			at.opened = true
			at.key = s.share(at)
			at.parent.open.push(at)
		}
	}
}

// open empties what a node knows of an earlier pass.
func (s *Scheduler) open(n *node) {
	if n.pass != s.pass {
		n.pass, n.opened = s.pass, false
		n.open.reset()
		n.turn.reset()
	}
}

// mayStart reports whether anything of a queue may start now as far as it and all above it are concerned.
func (s *Scheduler) mayStart(n *node, plan *Plan) bool {
	for at := n; at != nil; at = at.parent {
		switch at.closedBy(s.now) {
		case noLimit:
			continue
		case rateLimit:
			plan.wake(at.starts.next(s.now))
		}
		return false
	}
	return true
}

func (p *Plan) wake(at time.Time) {
	if p.Wake.IsZero() || at.Before(p.Wake) {
		p.Wake = at
	}
}

// next returns the queue whose turn it is, nil when there is nothing left to look at.
func (s *Scheduler) next() *node {
	n := s.root
	for {
		own := n.turn.len() > 0
		if n.open.len() == 0 {
			if own {
				return n
			}
			return nil
		}
		child := n.open.top()
		if own && (child.band < 0 || child.band == 0 && n.own.share(&s.whole) <= child.key) {
			return n
		}
		n = child
	}
}

// settle brings the order of a queue and all above it up to date after it had its turn, and takes out what has nothing more to do
// in this pass.
func (s *Scheduler) settle(n *node, plan *Plan) {
	for at := n; at.parent != nil; at = at.parent {
		limit := at.closedBy(s.now)
		if limit == rateLimit {
			plan.wake(at.starts.next(s.now))
		}
		if limit != noLimit || at.turn.len()+at.open.len() == 0 {
			at.parent.open.pop()
			continue
		}
		at.key = s.share(at)
		at.parent.open.fixTop()
	}
}
