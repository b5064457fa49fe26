// Package bus carries events from the one writer to many readers inside the server.
//
// The bus is a ring of the last events. Publishing stores pointers and wakes readers; it never waits for one. A reader
// keeps its own position and takes what is new, without copies. A reader that falls behind by more than the ring holds is
// told so and starts over from a snapshot: events are a hint of what changed, the store is the truth.
package bus

import (
	"context"
	"errors"
	"sync"

	"github.com/hodei-jobs/hodei/service/job"
)

// ErrLagged says that events were overwritten before the reader took them; it must read a snapshot and start over.
var ErrLagged = errors.New("bus: the reader fell behind and events are gone")

// Event is a job as it stands after a change. It is shared by all readers and must not be changed.
type Event struct {
	Seq uint64 // grows by one with every event; the first is 1
	Job *job.Job
}

// Bus is the ring. The zero value is not usable; use New. All methods may be called from several goroutines at once.
type Bus struct {
	mu      sync.Mutex
	ring    []Event
	last    uint64 // the Seq of the newest event, 0 before the first
	gone    uint64 // the Seq of the newest event that nobody wanted, and that is therefore not in the ring
	readers int
	until   uint64        // up to this Seq a reader who has left could go on
	holds   bool          // the ring has events, which keep jobs in memory
	wake    chan struct{} // closed and replaced when something new is there
}

// New makes a bus that holds the last size events.
func New(size int) *Bus {
	return &Bus{ring: make([]Event, size), wake: make(chan struct{})}
}

// Publish appends one event per job. The jobs must not change afterwards.
func (b *Bus) Publish(jobs []job.Job) {
	if len(jobs) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holds = true
	for i := range jobs {
		b.last++
		b.ring[b.last%uint64(len(b.ring))] = Event{Seq: b.last, Job: &jobs[i]}
	}
	close(b.wake)
	b.wake = make(chan struct{})
}

// Join tells that events are wanted from now on, until leave is called.
func (b *Bus) Join() (leave func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readers++
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.readers--
		b.until = b.last + uint64(len(b.ring))
	})
}

// Wanted reports whether anybody reads events, or did so lately and could come back to go on.
func (b *Bus) Wanted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readers > 0 || b.last < b.until
}

// Skip counts events that nobody wanted. A reader who comes later learns that it has missed them.
func (b *Bus) Skip(n int) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last += uint64(n)
	b.gone = b.last
	if b.holds { // nobody can ask for these any more
		clear(b.ring)
		b.holds = false
	}
	close(b.wake)
	b.wake = make(chan struct{})
}

// Last returns the Seq of the newest event: a reader that starts here sees all that is published from now on.
func (b *Bus) Last() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}

// Next appends to events all events after the given Seq, waiting for the first, and returns them. It fails with ErrLagged
// when some of them are gone or after lies in the future, and with the context's error when it ends first.
func (b *Bus) Next(ctx context.Context, after uint64, events []Event) ([]Event, error) {
	for {
		events, wake, err := b.take(after, events)
		if err != nil || len(events) > 0 {
			return events, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return events, ctx.Err()
		}
	}
}

func (b *Bus) take(after uint64, events []Event) ([]Event, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if after > b.last || after < b.gone || b.last-after > uint64(len(b.ring)) {
		return events, nil, ErrLagged
	}
	for seq := after + 1; seq <= b.last; seq++ {
		events = append(events, b.ring[seq%uint64(len(b.ring))])
	}
	return events, b.wake, nil
}
