package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

const (
	batchJobs  = 1000   // in one call of SubmitBatch
	submitters = 3      // calls under way
	backlog    = 40_000 // accepted and not ended; beyond it the submitters wait
	benchSlots = 8000   // of all agents together
)

// Cost is what a run took of the machine.
type Cost struct {
	ServerCPU float64 `json:"server_cpu_us_per_job"`
	AgentCPU  float64 `json:"agent_cpu_us_per_job"`
	ClientCPU float64 `json:"client_cpu_us_per_job"`
	Commits   float64 `json:"fsyncs_per_job"`
	PeakRSS   int64   `json:"peak_rss_bytes"` // of the server
}

// JobsResult is what Jobs measured.
type JobsResult struct {
	Store         string  `json:"store"`
	Jobs          int     `json:"jobs"`
	Seconds       float64 `json:"seconds"`
	JobsPerSecond float64 `json:"jobs_per_second"`
	Cost
	Limit      Limit   `json:"limit"`
	LimitRatio float64 `json:"limit_ratio"`
}

// Jobs measures how many jobs a second go all the way, from submit to finished and durable, in a continuous stream: the
// client submits batches and the agents, which start no processes, finish what they get.
func Jobs(ctx context.Context, options Options) (*JobsResult, error) {
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	slots := strconv.Itoa(benchSlots / max(options.Agents, 1))
	if err := w.StartAgents(ctx, max(options.Agents, 1), "--runner", "none", "--slots", slots); err != nil {
		return nil, err
	}
	before, err := w.spent()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	jobs, err := w.stream(ctx, options, different)
	if err != nil {
		return nil, errors.Join(err, w.health())
	}
	took := time.Since(begin)
	after, err := w.spent()
	if err != nil {
		return nil, err
	}
	r := &JobsResult{
		Store: storeName(w.options), Jobs: jobs, Seconds: took.Seconds(), JobsPerSecond: float64(jobs) / took.Seconds(), Cost: after.minus(before, jobs),
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if r.Limit, err = MeasureLimit(options); err != nil {
		return nil, err
	}
	if err := r.Limit.measureStore(ctx, options); err != nil {
		return nil, err
	}
	r.LimitRatio = r.JobsPerSecond / r.Limit.StoreJobsPerSecond
	return r, nil
}

func storeName(options Options) string {
	if options.Store == "" || options.Store == "pebble" {
		return "pebble"
	}
	return "postgres"
}

// health tells what the server and the agents said, when something went wrong.
func (w *World) health() error {
	for _, p := range append(w.agents, w.server) {
		if !p.running() {
			return fmt.Errorf("a process of the run ended:\n%s", p.tail())
		}
	}
	return nil
}

// stream submits what specs makes until there were enough jobs, and returns their number when all have ended.
func (w *World) stream(ctx context.Context, options Options, specs specsOf) (int, error) {
	deadline := time.Now().Add(options.Duration)
	var submitted, ended atomic.Int64
	enough := func() bool {
		if options.Duration > 0 {
			return time.Now().After(deadline)
		}
		return submitted.Load() >= int64(options.Jobs)
	}
	group, submitting := errgroup.WithContext(ctx)
	for n := range submitters {
		group.Go(func() error {
			c, err := w.Client()
			if err != nil {
				return err
			}
			defer c.Close()
			for batch := 0; !enough(); batch++ {
				for submitted.Load()-ended.Load() > backlog {
					if err := sleep(submitting, time.Millisecond); err != nil {
						return err
					}
				}
				size := batchJobs
				if options.Duration == 0 {
					size = min(size, options.Jobs-int(submitted.Add(batchJobs))+batchJobs)
				} else {
					submitted.Add(batchJobs)
				}
				if size <= 0 {
					return nil
				}
				if err := submitBatch(submitting, c, specs(n, batch, size)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	done := make(chan error, 1)
	go func() { done <- group.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				return 0, err
			}
			done = nil
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		n, err := w.Metric("hodei_jobs_completed_total")
		if err != nil {
			return 0, err
		}
		ended.Store(int64(n))
		total := int(submitted.Load())
		if options.Duration == 0 {
			total = min(total, options.Jobs)
		}
		if done == nil && int(n) >= total {
			return int(n), nil
		}
	}
}

// specsOf makes the jobs of a submitter's batch.
type specsOf func(submitter, batch, size int) []*hodeiv1.JobSpec

// different makes jobs that differ, as real ones do.
func different(submitter, batch, size int) []*hodeiv1.JobSpec {
	specs := make([]*hodeiv1.JobSpec, size)
	for i := range specs {
		specs[i] = command("true", strconv.Itoa(submitter)+"-"+strconv.Itoa(batch*batchJobs+i))
	}
	return specs
}

func submitBatch(ctx context.Context, c *hodei.Client, specs []*hodeiv1.JobSpec) error {
	results, err := c.SubmitBatch(ctx, specs)
	if err != nil {
		return err
	}
	for i, r := range results {
		if r.GetJobId() == "" {
			return fmt.Errorf("job %d of a batch was refused: %s", i, r.GetProblem().GetMessage())
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spent is what the processes of a world have used so far.
type spent struct {
	server, agent, client time.Duration
	commits               float64
	peakRSS               int64
}

func (w *World) spent() (spent, error) {
	var s spent
	server, err := usageOf(w.server.pid())
	if err != nil {
		return s, err
	}
	s.server, s.peakRSS = server.cpu, server.peakRSS
	for _, a := range w.agents {
		u, err := usageOf(a.pid())
		if err != nil {
			return s, err
		}
		s.agent += u.cpu
	}
	own, err := usageOf(os.Getpid())
	if err != nil {
		return s, err
	}
	s.client = own.cpu
	s.commits, err = w.Metric("hodei_commit_duration_seconds_count")
	return s, err
}

func (s spent) minus(before spent, jobs int) Cost {
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(jobs, 1)) }
	return Cost{
		ServerCPU: per(s.server - before.server), AgentCPU: per(s.agent - before.agent), ClientCPU: per(s.client - before.client),
		Commits: (s.commits - before.commits) / float64(max(jobs, 1)), PeakRSS: s.peakRSS,
	}
}
