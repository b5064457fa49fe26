package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// LogLoad is what many jobs that write at the same time come to, each followed by a reader.
type LogLoad struct {
	Streams          int       `json:"streams"`
	LinesPerMinute   float64   `json:"lines_per_minute"` // that were seen
	Seconds          float64   `json:"seconds"`
	Lines            int       `json:"lines"`
	Exact            int       `json:"exact"`              // streams of which every byte arrived, by the hash that the job wrote
	DeliveryMillis   Quantiles `json:"delivery_ms"`        // from the write in the agent to the reader, from the third second on
	HeartbeatMillis  Quantiles `json:"heartbeat_delay_ms"` // how much later than planned the server saw the agents' heartbeats
	ServerRSS        int64     `json:"server_rss_bytes"`
	ServerRSSGrowth  float64   `json:"server_rss_growth"` // since the first minute, or the first quarter of a shorter run
	AgentRSS         int64     `json:"agent_rss_bytes"`
	AgentRSSGrowth   float64   `json:"agent_rss_growth"`
	ServerCPUPerLine float64   `json:"server_cpu_us_per_line"`
	AgentCPUPerLine  float64   `json:"agent_cpu_us_per_line"`
	ClientCPUPerLine float64   `json:"client_cpu_us_per_line"` // of the thousand readers, in one process
}

// settleTime is how long the readers have to find their logs; lines of that time do not count for the delivery.
const settleTime = 2 * time.Second

// clientsOfLoad is how many connections the readers share.
const clientsOfLoad = 8

// measureLogLoad runs the jobs in an agent that makes their lines itself: a thousand processes would measure the machine.
func measureLogLoad(ctx context.Context, options Options, logs LogOptions) (LogLoad, error) {
	r := LogLoad{Streams: logs.Streams}
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return r, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	if err := w.StartAgents(ctx, 1, "--runner", "lines", "--slots", strconv.Itoa(logs.Streams+1)); err != nil {
		return r, err
	}
	clients := make([]*hodei.Client, clientsOfLoad)
	for i := range clients {
		if clients[i], err = w.Client(); err != nil {
			return r, err
		}
		defer clients[i].Close()
	}
	pause := time.Duration(float64(time.Minute) * float64(logs.Streams) / float64(logs.LinesPerMinute))
	lines := max(int(options.Duration/pause), 1)
	specs := slices.Repeat([]*hodeiv1.JobSpec{command(pause.String(), strconv.Itoa(lines))}, logs.Streams)
	before, err := usageOf(os.Getpid())
	if err != nil {
		return r, err
	}
	begin := time.Now()
	results, err := clients[0].SubmitBatch(ctx, specs)
	if err != nil {
		return r, err
	}
	watch, stop := context.WithCancel(ctx)
	defer stop()
	var watching errgroup.Group
	watching.Go(func() error { return r.watch(watch, w, clients[0], options.Duration) })
	checks, err := follow(ctx, clients, results)
	r.Seconds = time.Since(begin).Seconds()
	after, problem := usageOf(os.Getpid())
	r.ClientCPUPerLine = float64((after.cpu - before.cpu).Microseconds())
	stop()
	if err := errors.Join(err, problem, watching.Wait()); err != nil {
		return r, errors.Join(err, w.health())
	}
	var delays []time.Duration
	unsettled := int(settleTime / pause)
	for _, c := range checks {
		r.Lines += len(c.delays)
		delays = append(delays, c.delays[min(unsettled, len(c.delays)):]...)
		if c.exact {
			r.Exact++
		}
	}
	r.DeliveryMillis = quantilesOf(delays)
	r.LinesPerMinute = float64(r.Lines) / r.Seconds * 60
	r.ServerCPUPerLine /= float64(r.Lines)
	r.AgentCPUPerLine /= float64(r.Lines)
	r.ClientCPUPerLine /= float64(r.Lines)
	return r, nil
}

// follow reads the output of all jobs at the same time.
func follow(ctx context.Context, clients []*hodei.Client, jobs []*hodeiv1.SubmitJobResult) ([]*lineCheck, error) {
	checks := make([]*lineCheck, len(jobs))
	group, ctx := errgroup.WithContext(ctx)
	for i, job := range jobs {
		if job.GetProblem() != nil {
			return nil, fmt.Errorf("a job was refused: %s", job.GetProblem().GetMessage())
		}
		checks[i] = newLineCheck()
		group.Go(func() error {
			end, err := clients[i%len(clients)].ReadLogs(ctx, job.GetJobId(), hodei.LogOptions{Attempt: 1, Follow: true}, checks[i].take)
			if err == nil && end.GetState() != hodeiv1.LogState_LOG_STATE_COMPLETE {
				err = fmt.Errorf("the log of job %s is %v", job.GetJobId(), end)
			}
			return err
		})
	}
	return checks, group.Wait()
}

// watch looks at memory and heartbeats until the context ends.
func (r *LogLoad) watch(ctx context.Context, w *World, c *hodei.Client, d time.Duration) error {
	var settled atomic.Bool
	timer := time.AfterFunc(min(time.Minute, d/4), func() { settled.Store(true) })
	defer timer.Stop()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	var beats beatWatch
	var server, agent, firstServer, firstAgent usage
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			r.HeartbeatMillis = quantilesOf(beats.late)
			r.ServerRSS, r.AgentRSS = server.rss, agent.rss
			r.ServerRSSGrowth, r.AgentRSSGrowth = growth(firstServer.rss, server.rss), growth(firstAgent.rss, agent.rss)
			r.ServerCPUPerLine, r.AgentCPUPerLine = float64(server.cpu.Microseconds()), float64(agent.cpu.Microseconds())
			return nil
		}
		var err error
		if server, err = usageOf(w.server.pid()); err != nil {
			return err
		}
		if agent, err = usageOf(w.agents[0].pid()); err != nil {
			return err
		}
		if settled.Load() && firstServer.rss == 0 {
			firstServer, firstAgent = server, agent
		}
		workers, err := c.Workers(ctx)
		if err != nil {
			continue // the run is over, or says more
		}
		for _, worker := range workers {
			beats.see(worker.GetHeartbeatTime().AsTime())
		}
	}
}

func growth(first, last int64) float64 {
	if first == 0 {
		return 0
	}
	return float64(last)/float64(first) - 1
}

// beatWatch sees when the server had heartbeats of one worker.
type beatWatch struct {
	last time.Time
	late []time.Duration
}

// beatEvery is how often an agent says that it lives.
const beatEvery = 5 * time.Second

func (b *beatWatch) see(at time.Time) {
	if !b.last.IsZero() && at.After(b.last) {
		b.late = append(b.late, max(at.Sub(b.last)-beatEvery, 0))
	}
	b.last = at
}
