package agent

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// marginShare is how much of its lease, before its end, the agent takes to end attempts that the server may hand out again:
// killing takes time, and the server must not be first. Of 15 seconds that is 3.
const marginShare = 5

// defaultLease counts until the server has said how long a lease is.
const defaultLease = 15 * time.Second

// lease is the time for which the server counts on this agent. It counts from when the last heartbeat was sent that the server
// has answered: the server cannot have heard it earlier, so its own count ends later, whatever is lost or late on the way.
type lease struct {
	start   time.Time
	renewed atomic.Int64 // nanoseconds since start, on the monotonic clock
	length  atomic.Int64
	changed chan struct{} // has an element when the length has changed

	mu    sync.Mutex
	asked []int64 // when the heartbeats of this session were sent that have no answer yet
}

func newLease() *lease {
	l := &lease{start: time.Now(), changed: make(chan struct{}, 1)}
	l.length.Store(int64(defaultLease))
	return l
}

func (l *lease) set(length time.Duration) {
	if length <= 0 || length == l.duration() {
		return
	}
	l.length.Store(int64(length))
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// begin forgets what a former session has asked.
func (l *lease) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = nil
}

// ask is called before a heartbeat is sent.
func (l *lease) ask() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, int64(time.Since(l.start)))
}

// answered renews the lease: the server has heard the oldest heartbeat that had no answer.
func (l *lease) answered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.asked) > 0 {
		l.renewed.Store(l.asked[0])
		l.asked = l.asked[1:]
	}
}

func (l *lease) duration() time.Duration { return time.Duration(l.length.Load()) }

func (l *lease) margin() time.Duration { return l.duration() / marginShare }

// left is how long until the margin begins.
func (l *lease) left() time.Duration {
	silent := time.Since(l.start) - time.Duration(l.renewed.Load())
	return l.duration() - l.margin() - silent
}

// guard calls fence whenever the lease is about to run out.
func (l *lease) guard(ctx context.Context, fence func()) {
	timer := time.NewTimer(l.left())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.changed:
			timer.Reset(max(l.left(), 0))
			continue
		case <-timer.C:
		}
		left := l.left()
		if left <= 0 {
			fence()
			left = l.margin()
		}
		timer.Reset(left)
	}
}
