// Package fakerunner starts nothing: its steps succeed at once, or after a time. It measures what everything but the
// processes costs, and stands in for them in tests.
package fakerunner

import (
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// Runner is a runner.Runner. The zero value ends every step at once with exit code 0.
type Runner struct {
	// Takes is how long a step runs.
	Takes time.Duration
}

// Start implements runner.Runner.
func (r Runner) Start(c *runner.Command) (runner.Process, error) {
	if r.Takes == 0 {
		return ended{}, nil
	}
	p := &process{end: make(chan struct{})}
	p.timer = time.AfterFunc(r.Takes, p.finish)
	return p, nil
}

// Recover implements runner.Runner: nothing is ever left behind.
func (Runner) Recover() error { return nil }

// ended is a step that had nothing to do.
type ended struct{}

func (ended) Wait() runner.Result { return runner.Result{} }
func (ended) Stop(bool)           {}
func (ended) Has(int) bool        { return false }

// process is a step that takes its time.
type process struct {
	timer *time.Timer
	once  sync.Once
	end   chan struct{}

	mu      sync.Mutex
	stopped bool
}

func (p *process) finish() { p.once.Do(func() { close(p.end) }) }

// Wait implements runner.Process.
func (p *process) Wait() runner.Result {
	<-p.end
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return runner.Result{ExitCode: 128 + 15, Signal: "SIGTERM"}
	}
	return runner.Result{}
}

// Has implements runner.Process: there are no processes.
func (p *process) Has(int) bool { return false }

// Stop implements runner.Process.
func (p *process) Stop(bool) {
	if p.timer.Stop() {
		p.mu.Lock()
		p.stopped = true
		p.mu.Unlock()
		p.finish()
	}
}
