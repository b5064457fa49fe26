package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newWait(g *global) *cobra.Command {
	var anyOne bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait ID...",
		Short: "Wait until jobs have ended, well or not",
		Long: `Wait exits with the code of the first job that did not succeed, in the order of the arguments, and with 0 when all did.
With --any it ends with the first job that ends, and with its code. Ctrl-C leaves the jobs alone.`,
		Example: "hodei wait job_01...\nhodei wait --any --timeout 10m job_01... job_02...",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("expected the ids of one or more jobs")}
			}
			return nil
		},
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			limited, cancel := ctx, context.CancelFunc(func() {})
			if timeout > 0 {
				limited, cancel = context.WithTimeout(ctx, timeout)
			}
			defer cancel()
			ended, err := waitAll(limited, c, args, anyOne)
			switch {
			case ctx.Err() != nil:
				return &exitError{exitInterrupted, "left; the jobs go on. Come back with the same command"}
			case limited.Err() != nil, timeout > 0 && errors.Is(err, context.DeadlineExceeded):
				return &exitError{exitTimeout, fmt.Sprintf("not all jobs ended within %v", timeout)}
			case err != nil:
				return ownFailure(err)
			}
			if err := printEnded(cmd, g, ended); err != nil {
				return err
			}
			for _, job := range ended {
				if err := jobExit(job, false); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&anyOne, "any", false, "end with the first job that ends")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this time, with exit code 124")
	return cmd
}

// waitAll returns the jobs that have ended: all of them in the order of the ids, or with anyOne the first.
func waitAll(ctx context.Context, c *hodei.Client, ids []string, anyOne bool) ([]*hodeiv1.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		index int
		job   *hodeiv1.Job
		err   error
	}
	results := make(chan result, len(ids))
	for i, id := range ids {
		go func() {
			job, err := c.Ended(ctx, id)
			results <- result{i, job, err}
		}()
	}
	ended := make([]*hodeiv1.Job, len(ids))
	for range ids {
		r := <-results
		if r.err != nil {
			return nil, r.err
		}
		if anyOne {
			return []*hodeiv1.Job{r.job}, nil
		}
		ended[r.index] = r.job
	}
	return ended, nil
}

func printEnded(cmd *cobra.Command, g *global, jobs []*hodeiv1.Job) error {
	plain, err := plainList(jobs)
	if err != nil {
		return err
	}
	return g.print(cmd.OutOrStdout(), plain, func(w *tabwriter.Writer) {
		for _, job := range jobs {
			fmt.Fprintf(w, "%s\t%s\n", job.GetId(), short(job.GetState(), "JOB_STATE_"))
		}
	})
}
