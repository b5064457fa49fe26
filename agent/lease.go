package agent

import (
	"context"
	"sync/atomic"
	"time"
)

// leaseMargin is how long before the end of its lease the agent ends attempts that the server may hand out again: killing
// takes time, and the server must not be first.
const leaseMargin = 3 * time.Second

// defaultLease counts until the server has said how long a lease is.
const defaultLease = 15 * time.Second

// lease is the time for which the server counts on this agent. Every frame from the server renews it.
type lease struct {
	start   time.Time
	renewed atomic.Int64 // nanoseconds since start, on the monotonic clock
	length  atomic.Int64
}

func newLease() *lease {
	l := &lease{start: time.Now()}
	l.length.Store(int64(defaultLease))
	return l
}

func (l *lease) set(length time.Duration) {
	if length > leaseMargin {
		l.length.Store(int64(length))
	}
}

func (l *lease) renew() { l.renewed.Store(int64(time.Since(l.start))) }

func (l *lease) duration() time.Duration { return time.Duration(l.length.Load()) }

// left is how long until the margin begins.
func (l *lease) left() time.Duration {
	silent := time.Since(l.start) - time.Duration(l.renewed.Load())
	return l.duration() - leaseMargin - silent
}

// guard calls fence whenever the lease is about to run out.
func (l *lease) guard(ctx context.Context, fence func()) {
	timer := time.NewTimer(l.left())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		left := l.left()
		if left <= 0 {
			fence()
			left = leaseMargin
		}
		timer.Reset(left)
	}
}
