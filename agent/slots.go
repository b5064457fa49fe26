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

	"google.golang.org/protobuf/types/known/timestamppb"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// slots holds the attempts that the agent has: those that run, and those of which the server does not have everything.
type slots struct {
	agent *agent
	dir   string

	mu       sync.Mutex
	attempts map[string]*attempt // by attemptKey
	last     uint64              // number of the newest attempt
	changed  chan struct{}       // closed and replaced when an attempt ends or is forgotten

	ready  readySet     // attempts that may have output to send
	flying atomic.Int64 // bytes of output that were sent and not acknowledged
}

func newSlots(a *agent) *slots {
	return &slots{
		agent: a, dir: filepath.Join(a.config.StateDir, "attempts"), attempts: make(map[string]*attempt), changed: make(chan struct{}),
	}
}

// restore takes over what a former life of the agent has left: attempts whose processes are gone, but whose output and
// reports may not have been sent. Folders of attempts that are settled are removed.
func (s *slots) restore(attempts []pastAttempt) error {
	known := make(map[string]bool)
	for _, former := range attempts {
		ref := former.ref
		t := newAttempt(s.agent, &hwpv1.Assign{Attempt: ref}, s.attemptDir(ref))
		known[filepath.Base(t.dir)] = true
		var err error
		if t.spool, err = openSpool(t.spoolConfig()); err != nil {
			return err
		}
		if former.finished {
			t.spool.close("")
		} else {
			t.spool.close("the agent was restarted while the job ran")
			if err := t.reportFinished(&hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_LOST, Message: "the agent was restarted"}, -1); err != nil {
				return err
			}
		}
		close(t.ended)
		s.add(t)
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

func (s *slots) attemptDir(ref *hwpv1.AttemptRef) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s.%d", filepath.Base(ref.GetJobId()), ref.GetAttempt()))
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
	if err := s.agent.journal.accept(accepted); err != nil {
		// Not taken: the server hands them out again when the agent comes back without them.
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, t := range taken {
			delete(s.attempts, attemptKey(t.ref))
		}
		return fmt.Errorf("assignments cannot be written to the agent's journal, so they are not started: %w", err)
	}
	for _, t := range taken {
		go func() {
			t.run()
			s.settle(attemptKey(t.ref))
		}()
	}
	return nil
}

// take makes attempts of the assignments that are not known yet.
func (s *slots) take(assigned []*hwpv1.Assign) []*attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	var taken []*attempt
	for _, a := range assigned {
		key := attemptKey(a.GetAttempt())
		if s.attempts[key] != nil {
			continue
		}
		t := newAttempt(s.agent, a, s.attemptDir(a.GetAttempt()))
		s.add(t)
		taken = append(taken, t)
	}
	return taken
}

// get returns an attempt with this very fencing number, nil when there is none.
func (s *slots) get(ref *hwpv1.AttemptRef) *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.attempts[attemptKey(ref)]
	if t == nil || t.ref.GetEpoch() != ref.GetEpoch() {
		return nil
	}
	return t
}

// add makes an attempt known; the caller holds the lock.
func (s *slots) add(t *attempt) {
	s.last++
	t.number = s.last
	s.attempts[attemptKey(t.ref)] = t
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

// settle forgets an attempt of which the server has everything.
func (s *slots) settle(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.notify()
	t := s.attempts[key]
	if t == nil || !t.over() || !t.logAcked.Load() || s.agent.outbox.pending(key) {
		return
	}
	s.remove(key, t)
}

// remove forgets an attempt; the caller holds the lock.
func (s *slots) remove(key string, t *attempt) {
	delete(s.attempts, key)
	if t.spool != nil {
		t.spool.drop()
	}
	_ = os.RemoveAll(t.dir) // what is left is removed at the next start
	if err := s.agent.journal.done(key); err != nil {
		s.agent.config.Logger.Error("the end of an attempt was not noted", "attempt", key, "error", err)
	}
}

func (s *slots) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// forget ends an attempt that the server does not know and deletes all of it.
func (s *slots) forget(t *attempt) {
	key := attemptKey(t.ref)
	t.dropOutput()
	t.stop(true, hwpv1.OutcomeKind_OUTCOME_KIND_LOST, "the server does not know the attempt")
	go func() {
		<-t.ended
		if err := s.agent.outbox.forget(key); err != nil {
			s.agent.config.Logger.Error("reports of an unknown attempt were not dropped", "attempt", key, "error", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		defer s.notify()
		s.remove(key, t)
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
	for {
		s.mu.Lock()
		done, changed := reached(), s.changed
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

func now() *timestamppb.Timestamp { return timestamppb.New(time.Now()) }
