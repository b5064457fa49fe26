package bench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hodei-jobs/hodei/agent"
	"github.com/hodei-jobs/hodei/agent/runner/fakerunner"
)

// AgentsResult is what Agents measured.
type AgentsResult struct {
	Agents         int     `json:"agents"`
	ConnectSeconds float64 `json:"connect_seconds"` // to enrol and connect all of them
	RSS            int64   `json:"rss_bytes"`       // of the server, with all of them connected
	Cores          float64 `json:"cores"`           // that the server uses while nothing happens
	Seconds        float64 `json:"seconds"`
}

// enrolAtOnce bounds how many agents enrol at the same time.
const enrolAtOnce = 32

// Agents connects many agents, which run in this process, and looks at what an idle server costs.
func Agents(ctx context.Context, options Options) (*AgentsResult, error) {
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	c, err := w.Client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	token, err := c.CreateToken(ctx, time.Hour, int32(options.Agents), nil)
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	var group errgroup.Group
	defer func() {
		stop()
		_ = group.Wait() // they end because they were told to
	}()
	begin := time.Now()
	for n := range options.Agents {
		group.Go(func() error {
			return agent.Run(running, agent.Config{
				ServerURL: w.config.URL, StateDir: filepath.Join(w.dir, fmt.Sprintf("agent-%d", n)), Name: fmt.Sprintf("idle-%d", n),
				Token: token.GetSecret(), CAPin: token.GetCaPin(), Runner: fakerunner.Runner{},
			})
		})
		if n%enrolAtOnce == enrolAtOnce-1 || n == options.Agents-1 {
			if err := w.awaitAgents(ctx, n+1); err != nil {
				return nil, errors.Join(err, w.health())
			}
		}
		report(options.Progress, n, options.Agents)
	}
	r := &AgentsResult{Agents: options.Agents, ConnectSeconds: time.Since(begin).Seconds()}
	if err := sleep(ctx, 3*time.Second); err != nil { // what connecting has left to do
		return nil, err
	}
	before, err := usageOf(w.server.pid())
	if err != nil {
		return nil, err
	}
	begin = time.Now()
	if err := sleep(ctx, max(options.Duration, time.Second)); err != nil {
		return nil, err
	}
	after, err := usageOf(w.server.pid())
	r.Seconds = time.Since(begin).Seconds()
	r.RSS, r.Cores = after.rss, (after.cpu-before.cpu).Seconds()/r.Seconds
	return r, err
}

func (w *World) awaitAgents(ctx context.Context, n int) error {
	return poll(ctx, "the agents to connect", func() (bool, error) {
		active, err := w.Metric("hodei_agents_active")
		return int(active) == n, err
	})
}
