package scheduler

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// reservation promises a job that did not fit the places where it will start, and when at the latest, if those that run there now
// keep their times. Others may use the places until then.
type reservation struct {
	job       job.ID // of a gang: its first
	line      *line
	at        int64
	parts     []claim
	seen      uint64 // where the log of changes ended when at was found
	preempted bool   // those who were in the way have been asked to leave
}

// claim is what a reservation holds of one worker.
type claim struct {
	cell *cell
	need amount
}

// reservationOf returns the reservation of a job, nil when it has none.
func (s *Scheduler) reservationOf(id job.ID) *reservation {
	for _, r := range s.reservations {
		if r.job == id {
			return r
		}
	}
	return nil
}

// ReservedFor returns the job that is to start next on a worker, and when at the latest if those that run there keep their times; false
// when anybody may.
func (s *Scheduler) ReservedFor(worker job.WorkerID) (id job.ID, at time.Time, ok bool) {
	c := s.cells.byID[worker]
	if c == nil || c.reserved == nil {
		return job.ID{}, time.Time{}, false
	}
	return c.reserved.job, time.Unix(0, c.reserved.at), true
}

// mostReservations is less than the best workers of a shape, so that not all of those are kept for others.
const mostReservations = bestKept / 2

// reserve makes a reservation for the first job of a line that has none, or for its gang, unless there are as many as there may be.
func (s *Scheduler) reserve(l *line) {
	if len(s.reservations) >= s.options.Reservations {
		return
	}
	id := l.waiting.first()
	if s.reservationOf(id) != nil {
		var ok bool
		if id, ok = s.firstWithout(l); !ok {
			return
		}
	}
	r := &reservation{job: id, line: l, at: nanos(s.now)}
	if l.gang == nil {
		s.extend(r, l.shape)
	} else {
		for _, member := range l.gang.lines {
			for range member.waiting.size {
				s.extend(r, member.shape)
			}
		}
		if r.at <= nanos(s.now) {
			return // see missed: it has just been tried
		}
	}
	s.hold(r)
}

// firstWithout returns the first job of a line that has no reservation, if it is not a gang's.
func (s *Scheduler) firstWithout(l *line) (job.ID, bool) {
	if l.gang != nil {
		return job.ID{}, false
	}
	for _, chunk := range l.waiting.chunks {
		for _, id := range chunk {
			if s.reservationOf(id) == nil {
				return id, true
			}
		}
	}
	return job.ID{}, false
}

func (s *Scheduler) hold(r *reservation) {
	if r.at == math.MaxInt64 {
		return // there is nowhere where it could ever start
	}
	for i := range r.parts {
		r.parts[i].cell.reserved = r
	}
	s.reservations = append(s.reservations, r)
	s.orderPromises(r.line)
}

// orderPromises gives the earliest promise of a line to its oldest job, and so on: they are alike, and start in this order.
func (s *Scheduler) orderPromises(l *line) {
	var own []*reservation
	var ids []job.ID
	for _, r := range s.reservations {
		if r.line == l {
			own, ids = append(own, r), append(ids, r.job)
		}
	}
	slices.SortFunc(own, func(a, b *reservation) int { return cmp.Compare(a.at, b.at) })
	slices.SortFunc(ids, job.ID.Compare)
	for i, r := range own {
		r.job = ids[i]
	}
}

// redeem gives up what was kept for a job that has started. When it has taken the place of another one of its line, that one gets its.
func (s *Scheduler) redeem(r *Running) {
	used, own := r.cell.reserved, s.reservationOf(r.job)
	if used != nil && used.line == r.line && used.job != r.job && own != nil {
		used.job, own.job = own.job, used.job
		own = used
	}
	if own != nil {
		s.unreserve(own)
		s.released = len(s.aside) > 0 // one of them may use what is not reserved any more
	}
}

// extend adds to a reservation the place where one more job of a shape starts earliest.
func (s *Scheduler) extend(r *reservation, sh *shape) {
	best, at := -1, int64(math.MaxInt64)
	var bestCell *cell
	s.eligible(sh, func(c *cell) {
		need, index := sh.ask, -1
		for i := range r.parts {
			if r.parts[i].cell == c {
				index, need = i, r.parts[i].need.clone()
				need.add(&sh.ask)
			}
		}
		if t := c.earliest(&need, s.now); t < at || t == at && bestCell != nil && c.compare(bestCell) < 0 {
			at, best, bestCell = t, index, c
		}
	})
	switch {
	case bestCell == nil:
		r.at = math.MaxInt64
		return
	case best >= 0:
		r.parts[best].need.add(&sh.ask)
	default:
		r.parts = append(r.parts, claim{bestCell, sh.ask.clone()})
	}
	r.at = max(r.at, at)
}

// lookedAt is how many workers are looked at, at most, for a reservation or for somebody who could make room.
const lookedAt = 128

// eligible calls visit for workers that could take a job of a shape were they empty, and that nobody has reserved.
func (s *Scheduler) eligible(sh *shape, visit func(*cell)) {
	s.review(sh)
	all, seen := s.cells.all, 0
	for n := range all {
		c := all[(s.scanned+n)%len(all)]
		if c == nil || !c.usable || c.reserved != nil || !sh.fit(c) {
			continue
		}
		visit(c)
		s.work += 1 + len(c.running)/8
		if seen++; seen == lookedAt {
			return
		}
	}
}

// earliest returns when there is room for some jobs, if those that run end when they are expected to: in nanoseconds since 1970.
func (c *cell) earliest(need *amount, now time.Time) int64 {
	if c.free.covers(need) {
		return nanos(now)
	}
	free := c.free.clone()
	for _, r := range c.byEnd() {
		free.add(&r.line.shape.ask)
		if free.covers(need) {
			return max(r.until, nanos(now)+int64(overdue))
		}
	}
	return math.MaxInt64
}

// overdue is how much longer a job may run, as far as is assumed, that should have ended already.
const overdue = time.Second

// suits reports whether a job may start on a worker that is reserved: for itself or one that is like it, until the reserved time, or
// beside what is reserved.
func (s *Scheduler) suits(c *cell, l *line, id job.ID) bool {
	r := c.reserved
	if r == nil || r.job == id || r.line == l || r.line.gang != nil && r.line.gang == l.gang {
		return true
	}
	if nanos(s.now)+int64(bound(l.class.Bound)) <= r.at {
		return true
	}
	spare := c.free.clone()
	for _, other := range c.running {
		if other.until <= r.at {
			spare.add(&other.line.shape.ask)
		}
	}
	for i := range r.parts {
		if r.parts[i].cell == c {
			spare.sub(&r.parts[i].need)
		}
	}
	return spare.covers(&l.shape.ask)
}

// unreserve gives a reservation up; nil is none.
func (s *Scheduler) unreserve(r *reservation) {
	if r == nil {
		return
	}
	for i := range r.parts {
		r.parts[i].cell.reserved = nil
	}
	for i := range s.reservations {
		if s.reservations[i] == r {
			s.reservations = swapOut(s.reservations, i, func(*reservation, int) {})
			return
		}
	}
}

// isLimited reports whether something other than the workers keeps the jobs of a line from starting.
func (s *Scheduler) isLimited(l *line) bool {
	need := l.shape.ask
	if l.gang != nil {
		need = l.gang.need()
	}
	_, limit := l.node.limited(&need, s.now)
	return limit != noLimit && limit != rateLimit || !l.open()
}

// stale reports whether the time of a reservation may be another one than it was.
func (r *reservation) stale(now time.Time) bool {
	if r.at <= nanos(now) {
		return true
	}
	for i := range r.parts {
		if r.parts[i].cell.changed >= r.seen {
			return true
		}
	}
	return false
}

// keepReservations looks at every reservation again: who does not wait any more needs none, and one on a worker that takes no jobs
// is worth nothing. A promise may become earlier; it becomes later only when somebody ran for longer than expected.
func (s *Scheduler) keepReservations() {
	for i := len(s.reservations) - 1; i >= 0; i-- {
		r := s.reservations[i]
		if !r.line.waiting.has(r.job) || s.isLimited(r.line) {
			s.unreserve(r)
			continue
		}
		if !r.stale(s.now) {
			continue
		}
		r.seen = s.changes.end
		at := nanos(s.now)
		for k := range r.parts {
			if p := &r.parts[k]; p.cell.usable {
				at = max(at, p.cell.earliest(&p.need, s.now))
			} else {
				at = math.MaxInt64
			}
		}
		if at == math.MaxInt64 {
			s.unreserve(r)
			continue
		}
		r.at = at
	}
	if len(s.reservations) > 1 {
		for _, r := range s.reservations {
			s.orderPromises(r.line)
		}
	}
}
