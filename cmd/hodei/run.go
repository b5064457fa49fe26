package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// explainAfter is how long `run` waits for a start before it says why there is none.
const explainAfter = 3 * time.Second

func newRun(g *global) *cobra.Command {
	var f jobFlags
	var detach bool
	var statusFile string
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command on a worker, with its output and its exit code",
		Long: `Run submits a job of one command and follows it: the job's stdout goes to stdout and its stderr to stderr, byte for byte,
and hodei exits with the job's own code. It survives a restart of the server.

Ctrl-C cancels the job, a second Ctrl-C kills it at once. See "hodei exit-codes" for all codes.`,
		Example: `hodei run -- echo hello
hodei run --working-dir $PWD -- go build ./...
hodei run --cpu 2 --memory 1Gi --timeout 10m -- make test
hodei run --constraint os=linux --env CI=true -- sh -c 'echo $CI'`,
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			spec, err := f.spec(args)
			if err != nil {
				return err
			}
			if detach {
				return submit(cmd, g, c, spec)
			}
			job, err := runJob(cmd.Context(), c, spec, os.Stdout, os.Stderr)
			if statusFile != "" {
				err = errors.Join(err, writeStatus(statusFile, job))
			}
			return err
		}),
	}
	f.add(cmd)
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "submit only, and print the job's id")
	cmd.Flags().StringVar(&statusFile, "status-file", "", "file to write the job to, as JSON, when it has ended")
	return cmd
}

// runJob submits a job and follows it to its end. The error carries the exit code.
func runJob(ctx context.Context, c *hodei.Client, spec *hodeiv1.JobSpec, stdout, stderr io.Writer) (*hodeiv1.Job, error) {
	job, err := c.Submit(ctx, spec)
	if err != nil {
		return nil, ownFailure(err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var interrupts atomic.Int32
	signal.Ignore(syscall.SIGPIPE) // so that a reader that leaves can be answered with a cancel
	go cancelOnInterrupt(ctx, c, job.GetId(), &interrupts, stop)
	var wrote atomic.Bool
	go explainWaiting(ctx, c, job.GetId(), &wrote)
	completeness, err := c.ReadLogs(ctx, job.GetId(), hodei.LogOptions{Attempt: 1, Follow: true}, func(chunk *hodeiv1.LogChunk) error {
		wrote.Store(true)
		w := stdout
		if chunk.GetStream() == hodeiv1.LogStream_LOG_STREAM_STDERR {
			w = stderr
		}
		if _, err := w.Write(chunk.GetData()); err != nil {
			return errNoReader
		}
		return nil
	})
	if errors.Is(err, errNoReader) {
		return nil, cancelUnread(c, job.GetId())
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
			err = cause
		}
		return nil, ownFailure(fmt.Errorf("following job %s: %w", job.GetId(), err))
	}
	if completeness.GetState() == hodeiv1.LogState_LOG_STATE_GAP {
		fmt.Fprintln(os.Stderr, "hodei: output is missing:", completeness.GetMessage())
	}
	job, err = c.Ended(ctx, job.GetId())
	if err != nil {
		return nil, ownFailure(err)
	}
	return job, jobExit(job, interrupts.Load() > 0)
}

// errNoReader says that nobody reads the output any more.
var errNoReader = errors.New("the output is not read any more")

// cancelUnread ends a job whose output nobody reads any more, as a pipe ends a process.
func cancelUnread(c *hodei.Client, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := c.Cancel(ctx, id, hodei.CancelOptions{Reason: "its output was not read any more"}); err != nil &&
		!errors.Is(err, hodei.ErrFailedPrecondition) {
		return ownFailure(fmt.Errorf("the output of job %s is not read any more, and it was not canceled: %w", id, err))
	}
	return &exitError{128 + int(syscall.SIGPIPE), ""}
}

// ownFailure marks an error as Hodei's and not the job's.
func ownFailure(err error) error {
	var usage usageError
	if errors.As(err, &usage) {
		return err
	}
	return &exitError{exitOwnFailure, err.Error()}
}

// cancelOnInterrupt asks for the end of the job at the first signal, for its immediate end at the second, and gives up at
// the third.
func cancelOnInterrupt(ctx context.Context, c *hodei.Client, id string, count *atomic.Int32, giveUp context.CancelCauseFunc) {
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
		}
		n := count.Add(1)
		if n > 2 {
			giveUp(fmt.Errorf("left while the job is being canceled; `hodei job get %s` shows it", id))
			return
		}
		if n == 1 {
			fmt.Fprintf(os.Stderr, "\nhodei: canceling job %s; press Ctrl-C again to kill it at once\n", id)
		} else {
			fmt.Fprintf(os.Stderr, "\nhodei: killing job %s\n", id)
		}
		go func() {
			_, err := c.Cancel(ctx, id, hodei.CancelOptions{Force: n == 2, Reason: "interrupted"})
			if err != nil && ctx.Err() == nil && !errors.Is(err, hodei.ErrFailedPrecondition) {
				fmt.Fprintln(os.Stderr, "hodei: the job was not canceled:", err)
			}
		}()
	}
}

// explainWaiting says why the job does not start, and again when the reason changes.
func explainWaiting(ctx context.Context, c *hodei.Client, id string, wrote *atomic.Bool) {
	ticker := time.NewTicker(explainAfter)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if wrote.Load() {
			return
		}
		job, err := c.Get(ctx, id)
		if err != nil {
			continue // the log stream tells about a server that is gone
		}
		switch job.GetState() {
		case hodeiv1.JobState_JOB_STATE_QUEUED, hodeiv1.JobState_JOB_STATE_DELAYED, hodeiv1.JobState_JOB_STATE_BLOCKED:
			if reason := waitingReason(job); reason != said {
				said = reason
				fmt.Fprintf(os.Stderr, "hodei: job %s waits: %s\n", id, reason)
			}
		case hodeiv1.JobState_JOB_STATE_ASSIGNED:
		default:
			return
		}
	}
}

func waitingReason(job *hodeiv1.Job) string {
	if job.GetState() == hodeiv1.JobState_JOB_STATE_DELAYED {
		return "its next attempt is at " + job.GetNextAttemptTime().AsTime().Local().Format(time.TimeOnly)
	}
	if reason := job.GetPendingReason(); reason != "" {
		return reason
	}
	return "for a worker"
}

func writeStatus(path string, job *hodeiv1.Job) error {
	plain, err := plainValue(job)
	if err != nil {
		return err
	}
	data, err := json.Marshal(plain)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing --status-file: %w", err)
	}
	return nil
}
