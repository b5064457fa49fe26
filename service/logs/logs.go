// Package logs takes in what jobs write and lets any number of readers follow it from any position.
//
// A log belongs to an attempt. It is one sequence of bytes, those of all steps and streams in the order in which the agent
// read them, cut into chunks that know their step and stream. The server takes every byte once: an agent may send again
// what it is not sure of.
package logs

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// WindowBytes is how many bytes an agent may have sent without an acknowledgement.
const WindowBytes = 4 << 20

// maxBatchBytes bounds what one commit writes.
const maxBatchBytes = 8 << 20

// commitTime is how far apart the commits of a busy service begin: what many agents send meanwhile is written, and told to readers,
// at once. After a quiet time nothing waits.
const commitTime = 4 * time.Millisecond

// Metrics counts log bytes. Its method must be quick.
type Metrics interface{ LogBytes(n int) }

// Service is the log keeper. Run must be running for appends to be written. All methods may be called at once.
type Service struct {
	store   store.Logs
	codec   codec
	metrics Metrics
	logger  *slog.Logger

	mu      sync.Mutex
	pending []*Append
	closed  error
	held    map[store.LogRef]uint64 // during a pause, how far what waits for its end goes; nil: there is none
	ready   chan struct{}
	heads   map[store.LogRef]*head

	unsealed sealings
	scans    chan struct{} // has an element for each search under way
}

// head is the writing end of a log that is followed or was written to lately.
type head struct {
	bytes   uint64   // taken in: stored, or in the commit under way
	at      position // where the next block begins
	small   small
	recent  recent
	ended   bool
	readers int
	loaded  bool
	grown   chan struct{} // closed and replaced when something was stored
}

// wake tells readers that something has changed; the caller holds the lock.
func (h *head) wake() {
	close(h.grown)
	h.grown = make(chan struct{})
}

// New makes a service on a store.
func New(logs store.Logs, metrics Metrics, logger *slog.Logger) *Service {
	return &Service{
		store: logs, codec: newCodec(), metrics: metrics, logger: logger,
		ready: make(chan struct{}, 1), heads: make(map[store.LogRef]*head),
		unsealed: sealings{tasks: make(map[store.LogRef]sealing), ready: make(chan struct{}, 1)},
		scans:    make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
}

// Append is what one agent sent: chunks and ends, in order.
type Append struct {
	Chunks []Chunk
	Ends   []store.LogEnd
	// Done is called after the commit with how far each log has come; from the writer, so it must not block.
	Done func([]Ack)
}

// Ack says that all bytes of a log before an offset are durable, and whether its end is.
type Ack struct {
	Ref    store.LogRef
	Offset uint64
	Ended  bool
}

// Append hands over chunks; it does not wait. What an agent may have under way bounds the queue (see WindowBytes). The
// error says that the service has stopped.
func (s *Service) Append(a *Append) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != nil {
		return s.closed
	}
	if s.held != nil {
		s.hold(a)
	}
	s.pending = append(s.pending, a)
	select {
	case s.ready <- struct{}{}:
	default:
	}
	return nil
}

// Run writes what was appended until the context ends. Like the reactor it makes one commit of all that has gathered. It
// returns an error when a commit failed; then the process must end, because acknowledgements can no longer be trusted. When it
// returns, nothing of the service uses the store any more but readers.
func (s *Service) Run(ctx context.Context) error {
	var sealer sync.WaitGroup
	defer sealer.Wait()
	sealing, cancel := context.WithCancel(ctx)
	defer cancel()
	sealer.Go(func() { s.sealAll(sealing) })
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			s.close(job.Errorf(job.CodeUnavailable, job.ReasonUnavailable, "the server is stopping"))
			return nil
		case <-s.ready:
		}
		for batch := s.take(); len(batch) > 0; batch = s.take() {
			<-next.C
			next.Reset(commitTime)
			if err := s.write(ctx, append(batch, s.take()...)); err != nil {
				s.close(err)
				return err
			}
		}
	}
}

// Pause stops the writing of what is appended, or lets it go on. Meanwhile appends wait and are not acknowledged, so that
// agents keep what they have sent and stop when their window is full.
func (s *Service) Pause(paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = nil
	if paused {
		s.held = make(map[store.LogRef]uint64)
	}
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// hold forgets the bytes that an agent, which connected again during a pause, sends once more: they are in the queue
// already, and a long pause must not fill the memory with them. An agent sends each log without gaps.
func (s *Service) hold(a *Append) {
	for i := range a.Chunks {
		c := &a.Chunks[i]
		if end := c.Offset + uint64(len(c.Data)); end > s.held[c.Ref] {
			s.held[c.Ref] = end
		} else {
			c.Data = nil
		}
	}
}

func (s *Service) close(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.pending = err, nil
}

// take returns the next appends, as many as fit into one commit; none during a pause.
func (s *Service) take() []*Append {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		return nil
	}
	n, bytes := 0, 0
	for n < len(s.pending) && bytes < maxBatchBytes {
		for i := range s.pending[n].Chunks {
			bytes += len(s.pending[n].Chunks[i].Data)
		}
		n++
	}
	batch := s.pending[:n:n]
	s.pending = s.pending[n:]
	if len(s.pending) == 0 {
		s.pending = nil
	}
	return batch
}

func (s *Service) write(ctx context.Context, batch []*Append) error {
	w := &writing{service: s, ctx: context.WithoutCancel(ctx), parts: make(map[store.LogRef]*part)}
	for _, a := range batch {
		if err := w.add(a); err != nil {
			return err
		}
	}
	followed := w.followed()
	blocks, err := w.blocks()
	if err != nil {
		return err
	}
	if len(blocks)+len(w.ends) > 0 {
		if err := s.store.AppendLogs(w.ctx, blocks, w.ends); err != nil {
			return fmt.Errorf("the store refused %d bytes of logs, so the server stops rather than lose them: %w", w.bytes, err)
		}
		s.metrics.LogBytes(w.bytes)
	}
	acks := make([][]Ack, len(batch))
	s.mu.Lock()
	for i, a := range batch {
		acks[i] = w.acks(a)
	}
	for ref, p := range w.parts {
		chunks, any := followed[ref]
		p.head.recent.add(chunks, p.head, any)
		for i := range p.blocks {
			p.head.small.add(&p.blocks[i])
		}
		s.written(ref, p.head)
		p.head.wake()
		s.drop(ref, p.head)
	}
	s.mu.Unlock()
	for i, a := range batch {
		a.Done(acks[i])
	}
	return nil
}
