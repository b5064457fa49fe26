package bench

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
	"github.com/hodei-jobs/hodei/service/store/pgstore"
)

// StoreResult is what Store measured.
type StoreResult struct {
	Store         string  `json:"store"`
	Jobs          int     `json:"jobs"`
	Batch         int     `json:"batch"`
	JobsPerSecond float64 `json:"jobs_per_second"`
	CPU           float64 `json:"cpu_us_per_job"`
	CommitMillis  struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
	} `json:"commit_ms"`
}

// storeLag is how many commits lie between the acceptance of a job and its end.
const storeLag = 8

// Store measures the store alone: commits that accept, assign and end jobs, as a busy server makes them.
func Store(ctx context.Context, options Options) (*StoreResult, error) {
	dir, err := os.MkdirTemp(options.Dir, "hodei-store-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the run's data
	db, err := openStore(ctx, options, dir)
	if err != nil {
		return nil, err
	}
	r, err := fillStore(ctx, db, options)
	return r, errors.Join(err, db.Close())
}

func openStore(ctx context.Context, options Options, dir string) (store.Store, error) {
	if options.Store == "" || options.Store == "pebble" {
		return pebblestore.Open(dir, pebblestore.Options{})
	}
	return pgstore.Open(ctx, options.Store, pgstore.Options{})
}

func fillStore(ctx context.Context, db store.Store, options Options) (*StoreResult, error) {
	r := &StoreResult{Store: storeName(options), Jobs: options.Jobs / batchJobs * batchJobs, Batch: batchJobs}
	term, err := db.Lead(ctx)
	if err != nil {
		return nil, err
	}
	var commits []time.Duration
	var running [][]*job.Job
	before, err := usageOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	for n := range r.Jobs/batchJobs + storeLag {
		batch := &store.Batch{Term: term}
		if n < r.Jobs/batchJobs {
			if batch.Accepted, err = assignedJobs(n); err != nil {
				return nil, err
			}
			running = append(running, batch.Accepted)
		}
		if n >= storeLag {
			for _, j := range running[0] {
				if err := endJob(j); err != nil {
					return nil, err
				}
			}
			batch.Changed, running = running[0], running[1:]
		}
		start := time.Now()
		if err := db.Commit(ctx, batch); err != nil {
			return nil, err
		}
		commits = append(commits, time.Since(start))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	r.JobsPerSecond = float64(r.Jobs) / time.Since(begin).Seconds()
	after, err := usageOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	r.CPU = float64((after.cpu - before.cpu).Microseconds()) / float64(r.Jobs)
	r.CommitMillis.P50, r.CommitMillis.P99 = micros(commits, 0.50)/1000, micros(commits, 0.99)/1000
	return r, nil
}

// assignedJobs makes a batch of jobs that were accepted and assigned at once.
func assignedJobs(batch int) ([]*job.Job, error) {
	now := time.Now()
	jobs := make([]*job.Job, batchJobs)
	for i := range jobs {
		n := batch*batchJobs + i
		j, err := job.New(job.NewID(now, 0, uint64(n)<<24), job.Spec{Steps: []job.Step{{Argv: []string{"true", strconv.Itoa(n)}}}}, now)
		if err == nil {
			j, err = j.Assign("wkr_01k8x2v5n3w6t9q4r7y1z0m2p5", uint64(n)+1<<32)
		}
		if err != nil {
			return nil, err
		}
		jobs[i] = &j
	}
	return jobs, nil
}

func endJob(j *job.Job) error {
	now := time.Now()
	cause := job.Cause{Kind: job.CauseExitCode}
	ended, err := j.StepsReported([]job.StepReport{{Started: now, Ended: now, State: job.StepSucceeded, Cause: cause}})
	if err == nil {
		cause.Step = ended.Spec.Steps[0].Name
		ended, err = ended.Finish(cause, now)
	}
	ended.Silent = true
	*j = ended
	return err
}
