package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// RecoveryResult is what Recovery measured.
type RecoveryResult struct {
	Store        string    `json:"store"`
	Kills        int       `json:"kills"`
	Acknowledged int       `json:"acknowledged"`  // jobs whose submit was answered
	Lost         int       `json:"lost"`          // acknowledged jobs that are not there, or did not end
	StartedTwice int       `json:"started_twice"` // jobs that may start once and did more often, by their own word
	NotStarted   int       `json:"not_started"`   // jobs that ended as succeeded and never ran, by their own word
	BootSeconds  Quantiles `json:"boot_seconds"`  // from the start of the server's program until it takes calls
	WorkSeconds  Quantiles `json:"work_seconds"`  // from then until the first job ends
	// AgentLostSeconds is how long after an agent was killed its jobs were LOST, or waited to run again.
	AgentLostSeconds float64 `json:"agent_lost_seconds"`
	Limit            Limit   `json:"limit"`
}

// Recovery kills the server again and again while jobs are submitted and run, and counts what is missing at the end. The
// jobs are real processes that may start once; each writes its id into a file.
func Recovery(ctx context.Context, options Options, kills int, seed uint64) (*RecoveryResult, error) {
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	if err := w.StartAgents(ctx, max(options.Agents, 1)); err != nil {
		return nil, err
	}
	l := &load{world: w, file: filepath.Join(w.dir, "started"), acknowledged: make(map[string]bool)}
	if err := os.WriteFile(l.file, nil, 0o600); err != nil {
		return nil, err
	}
	r := &RecoveryResult{Store: storeName(options), Kills: kills}
	submitting, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(submitting)
	for n := range 4 {
		group.Go(func() error { return l.submit(running, n) })
	}
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it spreads the kills; the seed repeats them
	var boots, works []time.Duration
	for n := range kills {
		if err := sleep(running, 300*time.Millisecond+time.Duration(random.Int64N(int64(500*time.Millisecond)))); err != nil {
			return nil, errors.Join(err, group.Wait(), w.health())
		}
		address := w.Address()
		w.KillServer()
		begin := time.Now()
		if err := w.StartServer(ctx, address); err != nil {
			return nil, err
		}
		boots = append(boots, time.Since(begin))
		begin = time.Now()
		if err := poll(ctx, "a job to end after the restart", func() (bool, error) {
			ended, err := w.Metric("hodei_jobs_completed_total")
			return ended > 0, err
		}); err != nil {
			return nil, errors.Join(err, w.health())
		}
		works = append(works, time.Since(begin))
		report(options.Progress, n, kills)
	}
	stop()
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	r.BootSeconds, r.WorkSeconds = seconds(boots), seconds(works)
	if err := l.count(ctx, r); err != nil {
		return nil, err
	}
	if r.AgentLostSeconds, err = w.loseAgent(ctx); err != nil {
		return nil, err
	}
	r.Limit, err = MeasureLimit(options)
	return r, err
}

// loseAgent kills an agent that has a job that may run once and one that may run again, and returns how long it takes until
// the one is LOST and the other waits for a worker.
func (w *World) loseAgent(ctx context.Context) (float64, error) {
	if err := w.StartAgents(ctx, 1, "--label", "runner=doomed"); err != nil {
		return 0, err
	}
	c, err := w.Client()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var ids []string
	for attempts := range int32(2) {
		spec := onRunner(command("sleep", "600"), "doomed")
		spec.MaxAttempts = attempts + 1
		job, err := c.Submit(ctx, spec)
		if err != nil {
			return 0, err
		}
		ids = append(ids, job.GetId())
	}
	in := func(states ...hodeiv1.JobState) func() (bool, error) {
		return func() (bool, error) {
			for _, id := range ids {
				job, err := c.Get(ctx, id)
				if err != nil || !slices.Contains(states, job.GetState()) {
					return false, err
				}
			}
			return true, nil
		}
	}
	if err := poll(ctx, "the jobs to run", in(hodeiv1.JobState_JOB_STATE_RUNNING)); err != nil {
		return 0, err
	}
	begin := time.Now()
	w.agents[len(w.agents)-1].kill()
	waits := in(hodeiv1.JobState_JOB_STATE_LOST, hodeiv1.JobState_JOB_STATE_QUEUED, hodeiv1.JobState_JOB_STATE_DELAYED)
	err = poll(ctx, "the jobs of a killed agent to be lost", waits)
	return time.Since(begin).Seconds(), err
}

func seconds(d []time.Duration) Quantiles {
	return Quantiles{P50: micros(d, 0.50) / 1e6, P99: micros(d, 0.99) / 1e6}
}

// load submits jobs and remembers which were acknowledged.
type load struct {
	world *World
	file  string

	mu           sync.Mutex
	acknowledged map[string]bool
}

func (l *load) submit(ctx context.Context, n int) error {
	c, err := l.world.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	for ctx.Err() == nil {
		specs := make([]*hodeiv1.JobSpec, 1+n*8)
		for i := range specs {
			specs[i] = command("sh", "-c", `echo "$HODEI_JOB_ID" >> "$0"`, l.file)
		}
		results, err := c.SubmitBatch(ctx, specs)
		if err != nil {
			if ctx.Err() != nil {
				return nil // the run is over; whether these were accepted nobody was told
			}
			return fmt.Errorf("a submit was given up: %w", err)
		}
		l.mu.Lock()
		for _, result := range results {
			l.acknowledged[result.GetJobId()] = true
		}
		l.mu.Unlock()
		if err := sleep(ctx, time.Duration(len(specs))*3*time.Millisecond); err != nil {
			return nil
		}
	}
	return nil
}

// count looks at what became of every job when nothing is left to do.
func (l *load) count(ctx context.Context, r *RecoveryResult) error {
	c, err := l.world.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	if err := poll(ctx, "all jobs to end", func() (bool, error) {
		left, err := l.world.Metric("hodei_queue_size")
		return left == 0, err
	}); err != nil {
		return err
	}
	started := make(map[string]int)
	data, err := os.ReadFile(l.file)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(data) {
		started[string(bytes.TrimSpace(line))]++
	}
	for _, n := range started {
		if n > 1 {
			r.StartedTwice++
		}
	}
	return l.look(ctx, c, started, r)
}

func (l *load) look(ctx context.Context, c *hodei.Client, started map[string]int, r *RecoveryResult) error {
	r.Acknowledged = len(l.acknowledged)
	ended := make(map[string]bool)
	for job, err := range c.List(ctx, &hodeiv1.JobFilter{}, 1000) {
		if err != nil {
			return err
		}
		ended[job.GetId()] = hodei.Terminal(job.GetState())
		if job.GetState() == hodeiv1.JobState_JOB_STATE_SUCCEEDED && started[job.GetId()] == 0 {
			r.NotStarted++
		}
	}
	for id := range l.acknowledged {
		if !ended[id] {
			r.Lost++
		}
	}
	return nil
}
