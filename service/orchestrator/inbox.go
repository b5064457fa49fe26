package orchestrator

import (
	"context"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// command is a wish to change the state. apply is pure but for what it writes into the command itself.
type command interface {
	apply(s *state, now time.Time)
	// done is called once, after the commit, or with the error that stopped the server.
	done(err error)
}

// errStopped answers callers while the server stops.
func errStopped() error {
	return &job.Error{
		Code: job.CodeUnavailable, Reason: job.ReasonUnavailable, RetryAfter: time.Second,
		Message: "the server is stopping; try again in a moment",
	}
}

// inbox is a bounded queue with many writers and one reader, who takes all there is at once.
type inbox struct {
	mu     sync.Mutex
	queue  []command
	closed bool
	ready  chan struct{} // has one element while the queue is not empty
	room   chan struct{} // tokens; one for each command that may enter
}

func newInbox(size int) *inbox {
	b := &inbox{ready: make(chan struct{}, 1), room: make(chan struct{}, size)}
	return b
}

// put waits for room, then appends.
func (b *inbox) put(ctx context.Context, c command) error {
	select {
	case b.room <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		<-b.room
		return errStopped()
	}
	b.queue = append(b.queue, c)
	select {
	case b.ready <- struct{}{}:
	default:
	}
	return nil
}

// take moves at most limit commands into buffer, without waiting.
func (b *inbox) take(buffer []command, limit int) []command {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(limit, len(b.queue))
	buffer = append(buffer, b.queue[:n]...)
	clear(b.queue[:n])
	b.queue = b.queue[n:]
	if len(b.queue) == 0 {
		b.queue = nil // let the array go after a burst
	} else {
		select {
		case b.ready <- struct{}{}:
		default:
		}
	}
	for range n {
		<-b.room
	}
	return buffer
}

// close refuses further commands and returns those that were not taken.
func (b *inbox) close() []command {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	rest := b.queue
	b.queue = nil
	return rest
}

// waiter lets the caller of a command wait for its commit.
type waiter struct{ result chan error }

func newWaiter() *waiter { return &waiter{result: make(chan error, 1)} }

func (w *waiter) done(err error) { w.result <- err }

func (w *waiter) wait(ctx context.Context) error {
	select {
	case err := <-w.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
