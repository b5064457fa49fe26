package agent

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// newBootID names this life of the agent.
func newBootID() string { return strings.ToLower(rand.Text()[:12]) }

// outbox holds the reports that were not acknowledged, in order. A new session sends all of them again.
type outbox struct {
	journal *journal
	bootID  string
	signal  func()

	mu       sync.Mutex
	reports  []*hwpv1.AgentMessage
	about    map[string]int // how many of them are about each attempt
	sent     int            // how many of them this session has sent
	last     uint64
	draining bool // the server must be told
	told     bool // it was, in this session
}

func newOutbox(j *journal, bootID string, reports []*hwpv1.AgentMessage, signal func()) *outbox {
	o := &outbox{journal: j, bootID: bootID, reports: reports, signal: signal, about: make(map[string]int)}
	for _, m := range reports {
		o.about[attemptKey(aboutAttempt(m))]++
	}
	return o
}

// add takes a report in, numbers it and writes it to the journal before it can be sent.
func (o *outbox) add(m *hwpv1.AgentMessage) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last++
	m.RequestId = fmt.Sprintf("%s-%d", o.bootID, o.last)
	o.reports = append(o.reports, m)
	o.about[attemptKey(aboutAttempt(m))]++
	o.signal()
	return o.journal.report(m)
}

// begin starts over: nothing was sent in the new session.
func (o *outbox) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent, o.told = 0, false
}

// next returns what is to be sent, at most limit messages.
func (o *outbox) next(limit int) []*hwpv1.AgentMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(limit, len(o.reports)-o.sent)
	messages := slices.Clone(o.reports[o.sent : o.sent+n])
	o.sent += n
	if o.draining && !o.told {
		o.told = true
		messages = append(messages, &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_Drain{Drain: &hwpv1.Drain{}}})
	}
	return messages
}

// drain makes sure that the server knows that no more jobs are wanted.
func (o *outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.draining = true
	o.signal()
}

// acknowledge forgets reports and returns the attempts that they were about.
func (o *outbox) acknowledge(ids []string) ([]*hwpv1.AttemptRef, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	acked := make(map[string]bool, len(ids))
	for _, id := range ids {
		acked[id] = true
	}
	return o.remove(func(m *hwpv1.AgentMessage) bool { return acked[m.GetRequestId()] })
}

// forget drops the reports about an attempt that the server does not know.
func (o *outbox) forget(key string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.remove(func(m *hwpv1.AgentMessage) bool { return attemptKey(aboutAttempt(m)) == key })
	return err
}

// remove takes out the reports that match; the caller holds the lock.
func (o *outbox) remove(match func(*hwpv1.AgentMessage) bool) ([]*hwpv1.AttemptRef, error) {
	var refs []*hwpv1.AttemptRef
	var problem error
	kept := o.reports[:0]
	sent := o.sent
	for i, m := range o.reports {
		if !match(m) {
			kept = append(kept, m)
			continue
		}
		if i < o.sent {
			sent--
		}
		ref := aboutAttempt(m)
		refs = append(refs, ref)
		key := attemptKey(ref)
		if o.about[key]--; o.about[key] == 0 {
			delete(o.about, key)
		}
		if err := o.journal.done(reportKey(m.GetRequestId())); err != nil {
			problem = err
		}
	}
	clear(o.reports[len(kept):])
	o.reports, o.sent = kept, sent
	return refs, problem
}

// pending reports whether something about an attempt was not acknowledged.
func (o *outbox) pending(key string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.about[key] > 0
}

// aboutAttempt returns which attempt a report is about.
func aboutAttempt(m *hwpv1.AgentMessage) *hwpv1.AttemptRef {
	switch p := m.GetPayload().(type) {
	case *hwpv1.AgentMessage_StepStarted:
		return p.StepStarted.GetAttempt()
	case *hwpv1.AgentMessage_StepFinished:
		return p.StepFinished.GetAttempt()
	case *hwpv1.AgentMessage_AttemptFinished:
		return p.AttemptFinished.GetAttempt()
	}
	return nil
}
