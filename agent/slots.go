package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// slots holds the attempts that the agent has: those that run, and those of which the server does not have everything.
type slots struct {
	agent *agent
	dir   string

	mu       sync.Mutex
	attempts map[uint64]*attempt // by epoch, which no two attempts share
	last     uint64              // number of the newest attempt
	changed  chan struct{}       // closed when an attempt ends or is forgotten; nil while nobody waits for that
	waiting  atomic.Int32        // how many wait for changed

	ready  readySet     // attempts that may have output to send
	flying atomic.Int64 // bytes of output that were sent and not acknowledged
}

func newSlots(a *agent) *slots {
	return &slots{
		agent: a, dir: filepath.Join(a.config.StateDir, "attempts"), attempts: make(map[uint64]*attempt),
	}
}

// restore takes over what a former life of the agent has left: attempts whose processes are gone, but whose output and
// reports may not have been sent. Folders of attempts that are settled are removed.
func (s *slots) restore(attempts []journaled) error {
	known := make(map[string]bool)
	for _, former := range attempts {
		t := newAttempt(s.agent, &hwpv1.Assign{Attempt: former.ref}, time.Now())
		known[filepath.Base(t.dir())] = true
		if former.ended.GetSilent() {
			t.logAcked.Store(true)
		} else if err := t.restoreOutput(former.ended); err != nil {
			return err
		}
		if t.final = former.ended; t.final == nil {
			t.finish(&hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_LOST, Message: "the agent was restarted"}, -1)
		}
		close(t.ended)
		s.add(t)
		s.agent.outbox.add(t)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("looking for attempts of a former agent: %w", err)
	}
	for _, e := range entries {
		if !known[e.Name()] {
			_ = os.RemoveAll(filepath.Join(s.dir, e.Name()))
		}
	}
	return nil
}

// dir is where the attempt keeps its output.
func (t *attempt) dir() string {
	return filepath.Join(t.agent.slots.dir, fmt.Sprintf("%s.%d", filepath.Base(t.ref.GetJobId()), t.ref.GetAttempt()))
}

// assign takes attempts and starts them. Those that are known already are left alone.
func (s *slots) assign(assigned []*hwpv1.Assign) error {
	taken := s.take(assigned)
	if len(taken) == 0 {
		return nil
	}
	accepted := make([]*hwpv1.Assign, len(taken))
	for i, t := range taken {
		accepted[i] = t.assign
	}
	if err := s.agent.journal.take(accepted); err != nil {
		// Not taken: the server hands them out again when the agent comes back without them.
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, t := range taken {
			delete(s.attempts, t.ref.GetEpoch())
		}
		return fmt.Errorf("assignments cannot be written to the agent's journal, so they are not started: %w", err)
	}
	for _, t := range taken {
		go t.run()
	}
	return nil
}

// take makes attempts of the assignments that are not known yet.
func (s *slots) take(assigned []*hwpv1.Assign) []*attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := make([]*attempt, 0, len(assigned))
	now := time.Now()
	for _, a := range assigned {
		if s.attempts[a.GetAttempt().GetEpoch()] != nil {
			continue
		}
		t := newAttempt(s.agent, a, now)
		if s.agent.config.users.ranged() {
			t.stopped = make(chan struct{})
		}
		s.add(t)
		taken = append(taken, t)
	}
	return taken
}

// get returns an attempt with this very fencing number, nil when there is none.
func (s *slots) get(ref *hwpv1.AttemptRef) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.attempts[ref.GetEpoch()]
	if t == nil || t.ref.GetJobId() != ref.GetJobId() {
		return nil
	}
	return t
}

// add makes an attempt known; the caller holds the lock.
func (s *slots) add(t *attempt) {
	s.last++
	t.number = s.last
	s.attempts[t.ref.GetEpoch()] = t
}

// all returns the attempts in the order in which they were taken.
func (s *slots) all() []*attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.attempts), func(a, b *attempt) int { return cmp.Compare(a.number, b.number) })
}

func (s *slots) refs() []*hwpv1.AttemptRef {
	var refs []*hwpv1.AttemptRef
	for _, t := range s.all() {
		refs = append(refs, t.ref)
	}
	return refs
}

// settle forgets those of the attempts of which the server has everything.
func (s *slots) settle(attempts ...*attempt) error {
	s.mu.Lock()
	refs := make([]*hwpv1.AttemptRef, 0, len(attempts))
	for _, t := range attempts {
		if t.endAcked.Load() && t.logAcked.Load() && s.attempts[t.ref.GetEpoch()] == t {
			refs = append(refs, t.ref)
			s.remove(t)
		}
	}
	left := len(s.attempts)
	s.notify()
	s.mu.Unlock()
	if len(refs) == 0 {
		return nil
	}
	return s.agent.journal.settle(refs, left)
}

// live returns what the journal must have.
func (s *slots) live() []journaled {
	all := s.all()
	live := make([]journaled, len(all))
	for i, t := range all {
		t.mu.Lock()
		live[i] = journaled{ref: t.ref, ended: t.final}
		t.mu.Unlock()
	}
	return live
}

// remove forgets an attempt; the caller holds the lock.
func (s *slots) remove(t *attempt) {
	delete(s.attempts, t.ref.GetEpoch())
	if out := t.output(); out != nil {
		out.drop()
		_ = os.RemoveAll(t.dir()) // what is left is removed at the next start
	}
}

// notify wakes those who wait; the caller holds the lock.
func (s *slots) notify() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// over is called when nothing of an attempt runs any more.
func (s *slots) over() {
	if s.waiting.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notify()
}

// forget ends an attempt that the server does not know and deletes all of it.
func (s *slots) forget(t *attempt) {
	t.dropOutput()
	t.stop(true, hwpv1.OutcomeKind_OUTCOME_KIND_LOST, "the server does not know the attempt")
	go func() {
		<-t.ended
		s.agent.outbox.forget(t)
		s.mu.Lock()
		s.remove(t)
		left := len(s.attempts)
		s.notify()
		s.mu.Unlock()
		if err := s.agent.journal.settle([]*hwpv1.AttemptRef{t.ref}, left); err != nil {
			s.agent.journalFailed(err)
		}
	}()
}

// fence ends the attempts that the server may hand out again, because it has not been heard of for too long.
func (s *slots) fence() {
	for _, t := range s.all() {
		if t.assign.GetRetryable() && !t.over() {
			s.agent.config.Logger.Warn("the server was silent for too long: an attempt that it may hand out again is ended", "job", t.ref.GetJobId())
			t.stop(true, hwpv1.OutcomeKind_OUTCOME_KIND_LOST, "the agent lost the server for longer than its lease")
		}
	}
}

// stopAll ends everything and waits until nothing runs.
func (s *slots) stopAll(why string) {
	all := s.all()
	for _, t := range all {
		t.stop(true, hwpv1.OutcomeKind_OUTCOME_KIND_LOST, why)
	}
	for _, t := range all {
		<-t.ended
	}
}

// awaitIdle returns when no attempt runs, or the context ends.
func (s *slots) awaitIdle(ctx context.Context) {
	s.await(ctx, func() bool {
		for _, t := range s.attempts {
			if !t.over() {
				return false
			}
		}
		return true
	})
}

// awaitForgotten returns when the server has everything, or the context ends.
func (s *slots) awaitForgotten(ctx context.Context) {
	s.await(ctx, func() bool { return len(s.attempts) == 0 })
}

func (s *slots) await(ctx context.Context, reached func() bool) {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	for {
		s.mu.Lock()
		done := reached()
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// sweepInterval is how often limits on the time of attempts are looked at.
const sweepInterval = time.Second

// sweep ends attempts whose time is up. One look at all of them now and then costs less than a timer for each.
func (s *slots) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		for _, t := range s.all() {
			if limit := time.Duration(t.assign.GetTimeout()); limit > exactLimit && now.Sub(t.begun) >= limit {
				t.timeUp(limit)
			}
		}
	}
}
