package agent

import (
	"context"
	"time"
)

const (
	// frameTime is how far apart the frames of a busy agent are.
	frameTime = time.Millisecond
	// reportTime is the same for the reports of one whose jobs are short: each frame of reports costs the server a commit,
	// and a job that ends meanwhile is told of once.
	reportTime = 5 * time.Millisecond
	// burst is how many may follow each other at once after a quiet time.
	burst = 8
)

// pace holds a busy agent back a little: few frames with much in them are better than many. An agent that has had nothing
// to say for a while sends at once.
type pace struct {
	every time.Duration
	next  time.Time // when one would be due if they were that far apart from the first on
}

// gather waits, after one, until the next may be sent.
func (p *pace) gather(ctx context.Context) {
	now := time.Now()
	if quiet := now.Add(-burst * p.every); p.next.Before(quiet) {
		p.next = quiet
	}
	p.next = p.next.Add(p.every)
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
