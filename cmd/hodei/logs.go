package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// interruptible ends with the first Ctrl-C or SIGTERM.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

func newLogs(g *global) *cobra.Command {
	var options hodei.LogOptions
	var stream string
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Print what a job wrote, from the first byte on",
		Long: `Logs prints a job's stdout to stdout and its stderr to stderr. With -f it stays until the job has ended; Ctrl-C leaves the
job alone.`,
		Example: "hodei logs job_01...\nhodei logs -f --step test job_01...",
		Args:    exactly(1, "the id of a job"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			switch stream {
			case "":
			case "stdout":
				options.Stream = hodeiv1.LogStream_LOG_STREAM_STDOUT
			case "stderr":
				options.Stream = hodeiv1.LogStream_LOG_STREAM_STDERR
			default:
				return usageError{fmt.Errorf("--stream %q is not stdout or stderr", stream)}
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			completeness, err := c.Logs(ctx, args[0], options, func(chunk *hodeiv1.LogChunk) error {
				w := os.Stdout
				if chunk.GetStream() == hodeiv1.LogStream_LOG_STREAM_STDERR {
					w = os.Stderr
				}
				_, err := w.Write(chunk.GetData())
				return err
			})
			if ctx.Err() != nil {
				return &exitError{exitInterrupted, fmt.Sprintf("left; the job goes on. Come back with: hodei logs -f %s", args[0])}
			}
			if err == nil && completeness.GetState() == hodeiv1.LogState_LOG_STATE_GAP {
				fmt.Fprintln(os.Stderr, "hodei: output is missing:", completeness.GetMessage())
			}
			return err
		}),
	}
	flags := cmd.Flags()
	flags.BoolVarP(&options.Follow, "follow", "f", false, "stay until the job has ended")
	flags.Int32Var(&options.Attempt, "attempt", 0, "begin with this attempt (default: the last one)")
	flags.StringVar(&options.Step, "step", "", "only this step")
	flags.StringVar(&stream, "stream", "", "only stdout or stderr")
	return cmd
}

// exactly checks the number of arguments and says what is missing.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("expected %s, got %d arguments", what, len(args))}
		}
		return nil
	}
}
