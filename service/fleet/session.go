package fleet

import (
	"context"
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

// Message is something to send to an agent: Welcome, Assign, Cancel, ReportAck, LogAck, Drain or Heartbeat.
type Message any

// The messages.
type (
	// Assign hands out the current attempt of a job.
	Assign struct{ Job job.Job }
	// Cancel stops an attempt, or one of its steps when Step >= 0.
	Cancel struct {
		Ref   job.AttemptRef
		Step  int
		Force bool
	}
	// ReportAck says that reports are durable.
	ReportAck struct{ IDs []string }
	// LogAck says that log bytes are durable.
	LogAck struct {
		Ref    job.AttemptRef
		Offset uint64
		Ended  bool
	}
	// Drain asks the agent to close the session and connect again.
	Drain struct{ ReconnectAfter time.Duration }
	// Heartbeat says that the server lives.
	Heartbeat struct{}
)

// Session is one stream of an agent. One goroutine calls Next and sends; another hands over what arrives.
type Session struct {
	fleet  *Fleet
	worker job.WorkerID
	number uint64

	mu     sync.Mutex
	queue  []Message
	begun  bool
	ended  error                           // why, once it has
	owned  map[store.LogRef]job.AttemptRef // whose logs this agent may write
	ready  chan struct{}                   // has an element when there is something to send
	closer sync.Once
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

func (s *Session) push(m Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return
	}
	if len(s.queue) >= queueLimit {
		s.end(job.Errorf(job.CodeExhausted, job.ReasonLimitReached, "the agent took too long to take its messages; connect again"))
		return
	}
	s.queue = append(s.queue, m)
	s.signal()
}

// end is called with the lock held.
func (s *Session) end(err error) {
	if s.ended == nil {
		s.ended = err
		s.queue = nil
		s.signal()
	}
}

func (s *Session) kick(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(err)
}

// Next returns all messages that wait, at most limit of them; when none comes for a third of a lease, a Heartbeat. The
// error says why the session is over.
func (s *Session) Next(ctx context.Context, limit int) ([]Message, error) {
	timer := time.NewTimer(s.fleet.heartbeat())
	defer timer.Stop()
	for {
		messages, err := s.take(limit)
		if err != nil || len(messages) > 0 {
			return messages, err
		}
		select {
		case <-s.ready:
		case <-timer.C:
			return []Message{Heartbeat{}}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Session) take(limit int) ([]Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return nil, s.ended
	}
	if !s.begun {
		return nil, nil
	}
	n := min(limit, len(s.queue))
	messages := s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) > 0 {
		s.signal()
	} else {
		s.queue = nil
	}
	return messages, nil
}

// Close ends the session. It may be called more than once.
func (s *Session) Close() {
	s.kick(io.EOF)
	s.closer.Do(func() { s.fleet.remove(s) })
}

// own lets the agent write the log of an attempt.
func (s *Session) own(ref job.AttemptRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owned[logRef(ref)] = ref
}

// Owns reports whether this agent may write the log of an attempt.
func (s *Session) Owns(ref store.LogRef) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.owned[ref]
	return ok
}

// Heartbeat takes in what the agent's machine does.
func (s *Session) Heartbeat(ctx context.Context, used job.Resources) error {
	return s.fleet.jobs.Heartbeat(ctx, s.worker, used)
}

// Report takes in reports; the agent gets a ReportAck with the ids once they are durable.
func (s *Session) Report(ctx context.Context, reports []orchestrator.Report, ids []string) error {
	return s.fleet.jobs.Report(ctx, s.worker, reports, func() { s.push(ReportAck{IDs: ids}) })
}

// AgentDrains takes in the agent's wish for no new jobs, or for new ones again.
func (s *Session) AgentDrains(ctx context.Context, draining bool) error {
	return s.fleet.jobs.AgentDrains(ctx, s.worker, draining)
}

// Append takes in output; the agent gets LogAcks once it is durable. Output of attempts that the agent was never given is
// left out, whatever the reason for it.
func (s *Session) Append(chunks []store.Chunk, ends []store.LogEnd) error {
	before := len(chunks) + len(ends)
	chunks = slices.DeleteFunc(chunks, func(c store.Chunk) bool { return !s.Owns(c.Ref) })
	ends = slices.DeleteFunc(ends, func(e store.LogEnd) bool { return !s.Owns(e.Ref) })
	if n := before - len(chunks) - len(ends); n > 0 {
		s.fleet.logger.Warn("output of attempts that the agent does not have was refused", "worker", s.worker, "messages", n)
	}
	return s.fleet.logs.Append(&logs.Append{Chunks: chunks, Ends: ends, Done: s.acknowledge})
}

func (s *Session) acknowledge(acks []logs.Ack) {
	for _, a := range acks {
		s.mu.Lock()
		ref := s.owned[a.Ref]
		if a.Ended {
			delete(s.owned, a.Ref)
		}
		s.mu.Unlock()
		s.push(LogAck{Ref: ref, Offset: a.Offset, Ended: a.Ended})
	}
}
