package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show a real job from start to end, and leave nothing behind",
		Long: `Demo starts a server and an agent in a temporary folder, runs a job of three steps on them, follows its output and removes
everything again. It does not touch your settings.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "hodei-demo-")
			if err != nil {
				return fmt.Errorf("making a temporary folder: %w", err)
			}
			defer os.RemoveAll(dir) //nolint:errcheck // the system cleans its temporary folder too
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			logger, err := newLogger("text", "error")
			if err != nil {
				return err
			}
			config := service.Config{DataDir: dir, Listen: "127.0.0.1:0", OpsListen: "-", Logger: logger}
			return runLocal(ctx, config, func(s *service.Server) error { return demo(ctx, s) })
		},
	}
}

// demoSpec shows steps, both streams, variables and the measured use of the machine.
func demoSpec() *hodeiv1.JobSpec {
	script := func(name, text string) *hodeiv1.Step {
		return &hodeiv1.Step{Name: name, Action: &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: text}}}
	}
	return &hodeiv1.JobSpec{
		Name: "demo",
		Env:  map[string]string{"GREETING": "Hello from a real process"},
		Steps: []*hodeiv1.Step{
			script("greet", `echo "$GREETING on $(uname -s) $(uname -m)"; echo "job $HODEI_JOB_ID, step $HODEI_STEP"`),
			script("count", `for i in 1 2 3 4 5; do echo "line $i"; sleep 0.1; done`),
			script("warn", `echo "this line went to standard error" >&2`),
		},
	}
}

func demo(ctx context.Context, s *service.Server) error {
	config, err := localConfig(s)
	if err != nil {
		return err
	}
	c, err := hodei.New(ctx, hodei.WithConfig(config))
	if err != nil {
		return err
	}
	defer c.Close()
	start := time.Now()
	job, err := c.Submit(ctx, demoSpec())
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "hodei: submitted %s to %s\n", job.GetId(), s.URL())
	step := ""
	completeness, err := c.ReadLogs(ctx, job.GetId(), hodei.LogOptions{Attempt: 1, Follow: true}, func(chunk *hodeiv1.LogChunk) error {
		if chunk.GetStep() != step {
			step = chunk.GetStep()
			fmt.Fprintf(os.Stderr, "hodei: step %s\n", step)
		}
		w := os.Stdout
		if chunk.GetStream() == hodeiv1.LogStream_LOG_STREAM_STDERR {
			w = os.Stderr
		}
		_, err := w.Write(chunk.GetData())
		return err
	})
	if err != nil {
		return err
	}
	if job, err = c.Ended(ctx, job.GetId()); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr)
	table := tabwriter.NewWriter(os.Stderr, 0, 4, 2, ' ', 0)
	jobDetails(table, job)
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "\nhodei: the log is %s; all of it took %s. Next: `hodei dev`, then `hodei run -- COMMAND`\n",
		short(completeness.GetState(), "LOG_STATE_"), rounded(time.Since(start)))
	return jobExit(job, false)
}
