package fleet

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// queueLimit bounds what waits to be sent to one agent. An agent that lets so much gather is cut off; it connects again and
// is told everything anew.
const queueLimit = 100_000

const (
	// outputLimit bounds the output of one agent that waits to be written, with chunkMemory for each chunk. It is far more than what an agent
	// may send before it is acknowledged (see logs.WindowBytes), because some write a few bytes at a time.
	outputLimit = 8 * logs.WindowBytes
	chunkMemory = 64
)

// Message is something to send to an agent: Welcome, Cancel, LogAck, Drain, Heartbeat, Certificate, AccessToken or RenewCertificate.
type Message any

// The messages.
type (
	// Cancel stops an attempt, or one of its steps when Step >= 0.
	Cancel struct {
		Ref   job.AttemptRef
		Step  int
		Force bool
	}
	// LogAck says that log bytes are durable.
	LogAck struct {
		Ref    job.AttemptRef
		Offset uint64
		Ended  bool
	}
	// Drain asks the agent to close the session and connect again.
	Drain struct{ ReconnectAfter time.Duration }
	// Heartbeat answers a heartbeat of the agent.
	Heartbeat struct{}
	// Certificate is a fresh certificate for the agent, in DER with those between it and the root, and the roots.
	Certificate struct{ Chain, Roots [][]byte }
	// AccessToken is a fresh access token, and when it ends.
	AccessToken struct {
		Token   string
		Expires time.Time
	}
	// RenewCertificate asks the agent to ask for one.
	RenewCertificate struct{}
)

// Outgoing is what goes to an agent in one frame: assignments first, then messages.
type Outgoing struct {
	Assignments  []orchestrator.Assignment
	Messages     []Message
	Acknowledged int // reports of this session that have become durable since the last frame
}

// Session is one stream of an agent. One goroutine calls Next and sends; another hands over what arrives.
type Session struct {
	fleet  *Fleet
	worker job.WorkerID
	number uint64

	mu       sync.Mutex
	attempts []orchestrator.Assignment // to be handed out
	queue    []Message
	acked    int // reports to be acknowledged
	begun    bool
	ended    error                           // why, once it has
	owned    map[store.LogRef]job.AttemptRef // whose logs this agent may write
	writing  int                             // output that waits to be written, as outputLimit counts it
	ready    chan struct{}                   // has an element when there is something to send
	closer   sync.Once
	refused  sync.Once
}

func newSession(f *Fleet, worker job.WorkerID, number uint64) *Session {
	return &Session{
		fleet: f, worker: worker, number: number,
		owned: make(map[store.LogRef]job.AttemptRef), ready: make(chan struct{}, 1),
	}
}

// begin puts the welcome before everything that was pushed meanwhile and lets Next go.
func (s *Session) begin(w Welcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append([]Message{w}, s.queue...)
	s.begun = true
	s.signal()
}

func (s *Session) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Push has a message sent.
func (s *Session) Push(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, m)
	s.pushed()
}

// assign hands out attempts. Their logs belong to this agent from now on.
func (s *Session) assign(attempts []orchestrator.Assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range attempts {
		s.owned[logRef(attempts[i].Ref)] = attempts[i].Ref
	}
	if len(s.attempts) == 0 {
		s.attempts = attempts
	} else {
		s.attempts = append(s.attempts, attempts...)
	}
	s.pushed()
}

// pushed is called with the lock held when something was added to what is to be sent.
func (s *Session) pushed() {
	switch {
	case s.ended != nil:
		s.attempts, s.queue = nil, nil
	case len(s.queue)+len(s.attempts) > queueLimit:
		s.end(job.Errorf(job.CodeExhausted, job.ReasonLimitReached, "the agent took too long to take its messages; connect again"))
	default:
		s.signal()
	}
}

// end is called with the lock held.
func (s *Session) end(err error) {
	if s.ended == nil {
		s.ended = err
		s.attempts, s.queue = nil, nil
		s.signal()
	}
}

// Kick ends the session for a reason, which the agent is told.
func (s *Session) Kick(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(err)
}

// Next waits for something to send, at most limit attempts and messages each. The error says why the session is over.
func (s *Session) Next(ctx context.Context, limit int) (Outgoing, error) {
	for {
		out, err := s.take(limit)
		if err == nil {
			err = s.fleet.reveal(ctx, out.Assignments)
		}
		if err != nil || len(out.Messages)+len(out.Assignments)+out.Acknowledged > 0 {
			return out, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return Outgoing{}, ctx.Err()
		}
	}
}

// reveal gives attempts the secrets that their specs name, on their way out. An attempt whose secrets cannot be had goes out with
// the reason. The error is the store's.
func (f *Fleet) reveal(ctx context.Context, attempts []orchestrator.Assignment) error {
	for i := range attempts {
		a := &attempts[i]
		if !a.Spec.WantsSecrets() {
			continue
		}
		var err error
		if a.Secrets, err = f.secrets.Values(ctx, a.Spec); err == nil {
			continue
		}
		var known *job.Error
		if !errors.As(err, &known) {
			return err
		}
		a.Problem = known.Message
	}
	return nil
}

func (s *Session) take(limit int) (Outgoing, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out Outgoing
	if s.ended != nil || !s.begun {
		return out, s.ended
	}
	out.Messages, s.queue = cut(s.queue, limit)
	out.Assignments, s.attempts = cut(s.attempts, limit)
	out.Acknowledged, s.acked = s.acked, 0
	if len(s.queue)+len(s.attempts) > 0 {
		s.signal()
	}
	return out, nil
}

// cut splits a queue after at most limit elements.
func cut[T any](queue []T, limit int) (head, rest []T) {
	n := min(limit, len(queue))
	if n == len(queue) {
		return queue, nil // let the array go after a burst
	}
	return queue[:n:n], queue[n:]
}

// Close ends the session. It may be called more than once.
func (s *Session) Close() {
	s.Kick(io.EOF)
	s.closer.Do(func() { s.fleet.remove(s) })
}

// own lets the agent write the log of an attempt.
func (s *Session) own(ref job.AttemptRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned[logRef(ref)] = ref
}

// disownSilent ends the right to write the logs of attempts that wrote nothing, and returns those that had it.
func (s *Session) disownSilent(reports []orchestrator.Report) (silent []store.LogRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range reports {
		if ref := logRef(reports[i].Ref); reports[i].Silent && s.owned[ref] == reports[i].Ref {
			delete(s.owned, ref)
			if silent == nil {
				silent = make([]store.LogRef, 0, len(reports)-i)
			}
			silent = append(silent, ref)
		}
	}
	return silent
}

// Owns reports whether this agent may write the log of an attempt.
func (s *Session) Owns(ref store.LogRef) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.owned[ref]
	return ok
}

// Heartbeat takes in what the agent's machine does, and answers.
func (s *Session) Heartbeat(ctx context.Context, used job.Resources) error {
	if err := s.fleet.jobs.Heartbeat(ctx, s.worker, s.number, used); err != nil {
		return err
	}
	s.Push(Heartbeat{})
	return nil
}

// Report takes in reports; they are acknowledged to the agent once they are durable.
func (s *Session) Report(ctx context.Context, reports []orchestrator.Report) error {
	silent := s.disownSilent(reports)
	n := len(reports)
	return s.fleet.jobs.Report(ctx, s.worker, reports, func() {
		s.mu.Lock()
		s.acked += n
		s.signal()
		s.mu.Unlock()
		for _, ref := range silent {
			s.fleet.logs.Settled(ref)
		}
	})
}

// AgentDrains takes in the agent's wish for no new jobs, or for new ones again.
func (s *Session) AgentDrains(ctx context.Context, draining bool) error {
	return s.fleet.jobs.AgentDrains(ctx, s.worker, s.number, draining)
}

// Append takes in output; the agent gets LogAcks once it is durable. Output of attempts that the agent was never given is
// left out, whatever the reason for it.
func (s *Session) Append(chunks []logs.Chunk, ends []store.LogEnd) error {
	before := len(chunks) + len(ends)
	chunks = slices.DeleteFunc(chunks, func(c logs.Chunk) bool { return !s.Owns(c.Ref) })
	ends = slices.DeleteFunc(ends, func(e store.LogEnd) bool { return !s.Owns(e.Ref) })
	if n := before - len(chunks) - len(ends); n > 0 {
		s.fleet.metrics.OutputRefused(n)
		s.refused.Do(func() { // the rest is counted only: a broken agent must not fill the server's log
			s.fleet.logger.Warn("output of attempts that the agent does not have was refused", "worker", s.worker, "messages", n)
		})
	}
	if len(chunks)+len(ends) == 0 {
		return nil
	}
	size := chunkMemory * (len(chunks) + len(ends))
	for i := range chunks {
		size += len(chunks[i].Data)
	}
	if !s.write(size) {
		return job.Errorf(job.CodeExhausted, job.ReasonLimitReached, "the agent sent more output than it may before it is acknowledged")
	}
	return s.fleet.logs.Append(&logs.Append{Chunks: chunks, Ends: ends, Done: func(acks []logs.Ack) {
		s.write(-size)
		s.acknowledge(acks)
	}})
}

// write counts output that is to be written, or with a negative size has been, and reports whether there is room for it.
func (s *Session) write(size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing += size
	return s.writing <= outputLimit
}

func (s *Session) acknowledge(acks []logs.Ack) {
	for _, a := range acks {
		s.mu.Lock()
		ref, mine := s.owned[a.Ref]
		if a.Ended {
			delete(s.owned, a.Ref)
		}
		s.mu.Unlock()
		if !mine {
			continue // the agent knows already that the log has ended
		}
		s.Push(LogAck{Ref: ref, Offset: a.Offset, Ended: a.Ended})
	}
}
