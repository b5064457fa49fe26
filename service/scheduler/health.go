package scheduler

import (
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// health is whether a worker can be trusted with jobs. One on which jobs end abnormally often is taken out of use for a while, and is
// then given one job at a time, until one succeeds.
type health struct {
	failed   int             // jobs that ended badly since the last one that did well
	faults   int             // of those, how many the agent itself failed
	names    map[string]bool // of the families that failed, as many as it takes
	since    time.Time       // of the first of them
	last     string          // why the last one failed
	until    time.Time       // out of use until then; zero: in use
	wait     time.Duration   // how long it was out of use last
	probing  bool            // it gets one job at a time
	why      string          // why it was taken out of use
	connects [flaps]time.Time
	connect  int // how many of them there were
}

const (
	faultsAllowed   = 3  // in a row, of the agent itself
	failuresAllowed = 10 // in a row, of jobs of familiesFailed names, while jobs succeed elsewhere
	familiesFailed  = 3
	firstWait       = time.Minute // out of use, doubled each time
	longestWait     = time.Hour

	flaps    = 10 // so many connections within flapTime are no more than a bad network
	flapTime = time.Minute
	flapWait = 20 * time.Second // out of use after one more
)

// Ended takes in how a job with a name ended on its worker, before End. Whose fault it was cannot be known of a single job, but of many.
func (s *Scheduler) Ended(r *Running, name string, cause *job.Cause, now time.Time) {
	if s.failing == 0 && cause.Kind == job.CauseExitCode && cause.ExitCode == 0 {
		return
	}
	h := &r.cell.health
	defer s.countFailing(h.doubtful(), h)
	switch {
	case cause.Kind == job.CauseExitCode && cause.ExitCode == 0:
		s.succeeded, s.succeededOn = now, r.cell
		s.recovered(r.cell)
		return
	case cause.Kind == job.CauseCanceled, cause.Kind == job.CausePreempted, cause.Kind == job.CauseTimeout, cause.Kind == job.CauseWorkerLost:
		return // says nothing about the worker, or is dealt with elsewhere
	case !h.until.IsZero():
		return // it began before the worker was taken out of use
	case cause.Kind == job.CauseAgentError:
		h.faults++
	}
	if h.failed++; h.failed == 1 {
		h.since, h.names = now, make(map[string]bool)
	}
	if len(h.names) < familiesFailed {
		h.names[name] = true
	}
	h.last = describeCause(cause)
	elsewhere := s.succeededOn != nil && s.succeededOn != r.cell && s.succeeded.After(h.since)
	switch {
	case h.probing:
		s.takeOut(r.cell, "the job that it was tried with failed: "+h.last, now)
	case h.faults >= faultsAllowed:
		s.takeOut(r.cell, fmt.Sprintf("its agent failed %d jobs in a row, the last one: %s", h.faults, h.last), now)
	case h.failed >= failuresAllowed && len(h.names) >= familiesFailed && elsewhere:
		s.takeOut(r.cell, fmt.Sprintf("%d jobs in a row failed there while others succeed elsewhere, the last one: %s", h.failed, h.last), now)
	}
}

// doubtful reports whether it is of interest how the next job ends.
func (h *health) doubtful() bool { return h.failed > 0 || h.probing }

// countFailing keeps count after a change.
func (s *Scheduler) countFailing(before bool, h *health) {
	switch after := h.doubtful(); {
	case after && !before:
		s.failing++
	case before && !after:
		s.failing--
	}
}

func describeCause(c *job.Cause) string {
	if c.Message != "" {
		return c.Message
	}
	if c.Kind == job.CauseExitCode {
		return fmt.Sprintf("exit code %d", c.ExitCode)
	}
	return c.Kind.String()
}

// recovered notes that a worker has done a job well.
func (s *Scheduler) recovered(c *cell) {
	h := &c.health
	if h.failed == 0 && !h.probing {
		return
	}
	h.failed, h.faults, h.names = 0, 0, nil
	if h.probing {
		h.probing, h.wait, h.why = false, 0, ""
		s.note(c)
	}
}

// takeOut takes a worker out of use for a while.
func (s *Scheduler) takeOut(c *cell, why string, now time.Time) {
	h := &c.health
	h.wait = min(max(2*h.wait, firstWait), longestWait)
	h.why, h.probing = why, true
	h.failed, h.faults, h.names = 0, 0, nil
	s.outUntil(c, now.Add(h.wait))
}

func (s *Scheduler) outUntil(c *cell, until time.Time) {
	c.health.until = until
	c.usable = isUsable(c)
	s.note(c)
	s.out = append(s.out, c)
}

// heal gives workers that were out of use another try when it is time to.
func (s *Scheduler) heal(plan *Plan) {
	kept := s.out[:0]
	for _, c := range s.out {
		if c.health.until.After(s.now) {
			plan.wake(c.health.until)
			kept = append(kept, c)
			continue
		}
		c.health.until = time.Time{}
		c.usable = isUsable(c)
		s.note(c)
	}
	clear(s.out[len(kept):])
	s.out = kept
}

// connectedNow notes that a worker has connected, and takes one out of use that comes and goes.
func (s *Scheduler) connectedNow(c *cell, now time.Time) {
	h := &c.health
	oldest := h.connects[h.connect%flaps]
	h.connects[h.connect%flaps] = now
	h.connect++
	if h.connect > flaps && now.Sub(oldest) < flapTime && h.until.IsZero() {
		h.why = fmt.Sprintf("it has connected %d times within %v", flaps+1, now.Sub(oldest).Round(time.Second))
		s.outUntil(c, now.Add(flapWait))
	}
}

// Distrusted says why a worker is out of use, or gets one job at a time, and until when it gets none; empty when it is trusted.
func (s *Scheduler) Distrusted(id job.WorkerID) (why string, until time.Time) {
	c := s.cells.byID[id]
	if c == nil || !c.health.probing && c.health.until.IsZero() {
		return "", time.Time{}
	}
	return c.health.why, c.health.until
}

// Trust puts a worker back into use, as if nothing had happened.
func (s *Scheduler) Trust(id job.WorkerID) {
	if c := s.cells.byID[id]; c != nil {
		s.out = slices.DeleteFunc(s.out, func(other *cell) bool { return other == c })
		before := c.health.doubtful()
		c.health = health{}
		s.countFailing(before, &c.health)
		c.usable = isUsable(c)
		s.note(c)
	}
}

func trusted(_ *shape, c *cell) bool { return c.health.until.IsZero() }

func explainTrust(_ *shape, refused []*cell) string {
	return fmt.Sprintf("%s out of use until %s: %s", count(refused), refused[0].health.until.UTC().Format(time.TimeOnly), refused[0].health.why)
}

func mayTry(_ *shape, c *cell) bool { return !c.health.probing || len(c.running) == 0 }

func explainTry(_ *shape, refused []*cell) string {
	return fmt.Sprintf("%s tried with one job at a time, because %s", count(refused), refused[0].health.why)
}
