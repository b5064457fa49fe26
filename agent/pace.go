package agent

import (
	"context"
	"time"
)

const (
	// frameTime is how far apart the frames of a busy agent are.
	frameTime = time.Millisecond
	// frameBurst is how many frames may follow each other at once after a quiet time.
	frameBurst = 8
)

// pace holds a busy agent back a little. Each frame costs the server a commit, so few with much in them are better than many;
// an agent that has had nothing to say for a while sends at once.
type pace struct {
	next time.Time // when a frame would be due if they were frameTime apart from the first on
}

// gather waits, after a frame, until the next one may be sent.
func (p *pace) gather(ctx context.Context) {
	now := time.Now()
	if quiet := now.Add(-frameBurst * frameTime); p.next.Before(quiet) {
		p.next = quiet
	}
	p.next = p.next.Add(frameTime)
	wait := p.next.Sub(now)
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
