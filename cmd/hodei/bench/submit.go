package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// callers is how many clients submit at the same time, each on a connection of its own.
const callers = 64

// Quantiles are in milliseconds.
type Quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

func quantilesOf(d []time.Duration) Quantiles {
	return Quantiles{P50: micros(d, 0.50) / 1000, P99: micros(d, 0.99) / 1000}
}

// SubmitResult is what Submit measured.
type SubmitResult struct {
	Store            string    `json:"store"`
	Jobs             int       `json:"jobs"`
	Callers          int       `json:"callers"`
	SubmitsPerSecond float64   `json:"submits_per_second"`
	SubmitMillis     Quantiles `json:"submit_ms"`
	Cost
	Limit      Limit   `json:"limit"`
	LimitRatio float64 `json:"limit_ratio"` // to the round trips
	// FsyncRatio is the median submit divided by the median fsync.
	FsyncRatio float64 `json:"submit_p50_over_fsync_p50"`
}

// Submit measures single submits from many clients at once; they share commits.
func Submit(ctx context.Context, options Options) (*SubmitResult, error) {
	tripsBefore, err := roundTrips(callers, limitTime)
	if err != nil {
		return nil, err
	}
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	clients := make([]*hodei.Client, callers)
	for i := range clients {
		if clients[i], err = w.Client(); err != nil {
			return nil, err
		}
		defer clients[i].Close()
		if _, err := clients[i].Workers(ctx); err != nil { // opens the connection
			return nil, err
		}
	}
	before, err := w.spent()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	took, err := submitSingly(ctx, clients, options)
	if err != nil {
		return nil, errors.Join(err, w.health())
	}
	elapsed := time.Since(begin)
	after, err := w.spent()
	if err != nil {
		return nil, err
	}
	r := &SubmitResult{
		Store: storeName(options), Jobs: len(took), Callers: callers, SubmitsPerSecond: float64(len(took)) / elapsed.Seconds(),
		SubmitMillis: quantilesOf(took), Cost: after.minus(before, len(took)),
	}
	tripsAfter, err := roundTrips(callers, limitTime)
	if err != nil {
		return nil, err
	}
	if r.Limit, err = MeasureLimit(options); err != nil {
		return nil, err
	}
	r.Limit.RoundTrips = (tripsBefore + tripsAfter) / 2
	r.LimitRatio = r.SubmitsPerSecond / r.Limit.RoundTrips
	r.FsyncRatio = r.SubmitMillis.P50 * 1000 / r.Limit.FsyncP50Micros
	return r, nil
}

func submitSingly(ctx context.Context, clients []*hodei.Client, options Options) ([]time.Duration, error) {
	var left atomic.Int64
	left.Store(int64(options.Jobs))
	deadline := time.Now().Add(options.Duration)
	var mu sync.Mutex
	var all []time.Duration
	group, ctx := errgroup.WithContext(ctx)
	for i, c := range clients {
		group.Go(func() error {
			var took []time.Duration
			for n := 0; ; n++ {
				if options.Duration > 0 && time.Now().After(deadline) || options.Duration == 0 && left.Add(-1) < 0 {
					break
				}
				start := time.Now()
				if _, err := c.Submit(ctx, command("true", fmt.Sprintf("%d-%d", i, n))); err != nil {
					return err
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			return nil
		})
	}
	return all, group.Wait()
}

func command(argv ...string) *hodeiv1.JobSpec {
	return &hodeiv1.JobSpec{Steps: []*hodeiv1.Step{{Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: argv}}}}}
}

// onRunner makes a job go to the agents whose runner has a name.
func onRunner(spec *hodeiv1.JobSpec, name string) *hodeiv1.JobSpec {
	spec.Constraints = []*hodeiv1.Constraint{{
		Label: "runner", Operator: hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_IN, Values: []string{name},
	}}
	return spec
}

// QueueResult is what Queue measured.
type QueueResult struct {
	Store       string  `json:"store"`
	Jobs        int     `json:"jobs"`
	FirstRate   float64 `json:"first_submits_per_second"` // of the first tenth of the jobs
	LastRate    float64 `json:"last_submits_per_second"`  // of the last tenth
	RSS         int64   `json:"rss_bytes"`                // when all wait
	BootSeconds float64 `json:"boot_seconds"`             // of a server that was killed with all of them waiting
	BootRSS     int64   `json:"boot_rss_bytes"`
}

// Queue fills a server with jobs that nobody runs, kills it and starts it again.
func Queue(ctx context.Context, options Options) (*QueueResult, error) {
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
	r := &QueueResult{Store: storeName(options), Jobs: options.Jobs / batchJobs * batchJobs}
	batches := r.Jobs / batchJobs
	var took []time.Duration
	for n := range batches {
		start := time.Now()
		if err := submitBatch(ctx, c, different(0, n, batchJobs)); err != nil {
			return nil, errors.Join(err, w.health())
		}
		took = append(took, time.Since(start))
		report(options.Progress, n, batches)
	}
	rate := func(part []time.Duration) float64 { // by the median, because a busy machine makes outliers
		return batchJobs / (micros(part, 0.50) / 1e6)
	}
	tenth := max(batches/10, 1)
	r.FirstRate, r.LastRate = rate(took[:tenth]), rate(took[len(took)-tenth:])
	used, err := usageOf(w.server.pid())
	if err != nil {
		return nil, err
	}
	r.RSS = used.rss
	w.KillServer()
	start := time.Now()
	if err := w.StartServer(ctx, w.Address()); err != nil {
		return nil, err
	}
	r.BootSeconds = time.Since(start).Seconds()
	if waiting, err := w.Metric("hodei_queue_size"); err != nil || int(waiting) != r.Jobs {
		return nil, errors.Join(err, fmt.Errorf("%d jobs were acknowledged and %.0f wait after the restart", r.Jobs, waiting))
	}
	used, err = usageOf(w.server.pid())
	r.BootRSS = used.rss
	return r, err
}

// report tells how far a run has come, now and then.
func report(w io.Writer, n, total int) {
	if tenth := max(total/10, 1); n%tenth == tenth-1 && w != nil {
		fmt.Fprintf(w, "hodei: %d of %d\n", n+1, total)
	}
}
