package bench

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// ExecResult is what Exec measured.
type ExecResult struct {
	Store         string  `json:"store"`
	Jobs          int     `json:"jobs"`
	JobsPerSecond float64 `json:"jobs_per_second"`
	Cost
	Limit      Limit   `json:"limit"` // its spawns are the mean of before and after
	LimitRatio float64 `json:"limit_ratio"`
}

// Exec measures how many processes a second go through, beside how many this machine can start at all.
func Exec(ctx context.Context, options Options) (*ExecResult, error) {
	before, err := spawns(ctx, limitTime)
	if err != nil {
		return nil, err
	}
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	if err := w.StartAgents(ctx, max(options.Agents, 1)); err != nil {
		return nil, err
	}
	start, err := w.spent()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	jobs, err := w.stream(ctx, options, alike)
	if err != nil {
		return nil, errors.Join(err, w.health())
	}
	took := time.Since(begin)
	end, err := w.spent()
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	after, err := spawns(ctx, limitTime)
	if err != nil {
		return nil, err
	}
	r := &ExecResult{
		Store: storeName(options), Jobs: jobs, JobsPerSecond: float64(jobs) / took.Seconds(), Cost: end.minus(start, jobs),
	}
	r.Limit, err = MeasureLimit(options)
	r.Limit.SpawnsPerSecond = (before + after) / 2
	r.LimitRatio = r.JobsPerSecond / r.Limit.SpawnsPerSecond
	return r, err
}

// trueProgram is what both the jobs and the limit run, with the same arguments: GNU's true reads the locale when it has one.
const trueProgram = "/bin/true"

func alike(_, _, size int) []*hodeiv1.JobSpec {
	return slices.Repeat([]*hodeiv1.JobSpec{command(trueProgram)}, size)
}

// spawns measures how many times a second this machine starts the program and waits for it, as many at a time as it has CPUs.
func spawns(ctx context.Context, d time.Duration) (float64, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close() //nolint:errcheck // nothing was written
	var n atomic.Int64
	begin := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.NumCPU() {
		group.Go(func() error {
			for time.Since(begin) < d && ctx.Err() == nil {
				p, err := os.StartProcess(trueProgram, []string{trueProgram}, &os.ProcAttr{Files: []*os.File{null, null, null}})
				if err != nil {
					return err
				}
				if _, err := p.Wait(); err != nil {
					return err
				}
				n.Add(1)
			}
			return ctx.Err()
		})
	}
	err = group.Wait()
	return float64(n.Load()) / time.Since(begin).Seconds(), err
}
