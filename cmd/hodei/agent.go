package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hodei-jobs/hodei/agent"
	"github.com/hodei-jobs/hodei/agent/runner"
	"github.com/hodei-jobs/hodei/agent/runner/fakerunner"
)

func newAgent() *cobra.Command {
	var config agent.Config
	var labels []string
	var extras map[string]int
	var cpus float64
	var spoolMiB int64
	var format, level, steps, tokenFile string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Make this machine a worker",
		Long: `Agent dials the server and runs its jobs; nothing listens on this machine. The first time it needs a token, which
"hodei token create" prints with the whole command. The first SIGTERM or Ctrl-C takes no new jobs and waits for those that
run; the second ends them. The small program hodei-agent does the same.`,
		Example: "hodei agent --server https://hodei.example.com:7443 --ca-pin sha256:... --token-file token",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if config.Logger, err = newLogger(format, level); err != nil {
				return err
			}
			if config.Labels, err = pairs("--label", labels); err != nil {
				return err
			}
			if tokenFile != "" {
				if config.Token, err = agent.ReadToken(tokenFile, cmd.InOrStdin()); err != nil {
					return err
				}
			}
			if config.Runner, err = runnerNamed(steps); err != nil {
				return err
			}
			config.Capacity.MilliCPU = int32(cpus * 1000)
			config.Capacity.Extras = make(map[string]int32, len(extras))
			for name, n := range extras {
				config.Capacity.Extras[name] = int32(min(max(n, -1), math.MaxInt32)) // the agent refuses what is below 0
			}
			config.SpoolLimitBytes = spoolMiB << 20
			config.Version = version
			ctx, drain := drainThenStop(cmd.Context())
			config.Drain = drain
			tuneMemory(agentGCPercent)
			return agent.Run(ctx, config)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.ServerURL, "server", "", "address of the server's API")
	flags.StringVar(&config.StateDir, "state-dir", defaultDataDir("agent"), "folder for the agent's identity and what waits to be sent")
	flags.StringVar(&config.Token, "token", "", "enrolment token, for the first start; seen in the list of processes, so better --token-file")
	flags.StringVar(&tokenFile, "token-file", "", "file with the enrolment token; - for the standard input")
	flags.StringVar(&config.CAPin, "ca-pin", "", "hash of the server's CA, for the first start")
	flags.StringVar(&config.Name, "name", "", "name of the worker (default: the host's name)")
	flags.StringArrayVar(&labels, "label", nil, "label for constraints, KEY=VALUE; may be repeated")
	flags.StringSliceVar(&config.Taints, "taint", nil, "take only jobs that tolerate it, NAME; may be repeated")
	flags.StringVar(&config.RunAs, "run-as", "", "run jobs as another user: a name, a UID, or a range of UIDs, one for each job: 200000-200063")
	flags.StringToIntVar(&extras, "extra", nil, "named extra for jobs, for example gpu=2; may be repeated")
	flags.Float64Var(&cpus, "cpus", 0, "CPUs for jobs (default: all)")
	flags.Int32Var(&config.Capacity.MemoryMiB, "memory-mib", 0, "memory for jobs in MiB (default: all)")
	flags.Int32Var(&config.Capacity.Slots, "slots", 0, "jobs at the same time (default: 4 for each CPU, at least 32)")
	flags.Int64Var(&spoolMiB, "spool-limit-mib", 0, "output of a job that may wait on the disk in MiB; then the job waits (default 1024)")
	flags.StringVar(&steps, "runner", "process", "what runs steps: process, or, for benchmarks, none (they succeed) or lines (they write)")
	addLogFlags(cmd, &format, &level)
	cmd.AddCommand(newMask(), newProgress())
	return cmd
}

// newMask is what jobs call.
func newMask() *cobra.Command {
	var name string
	mask := &cobra.Command{Use: "mask", Short: "Inside a job: mask further secrets in its output"}
	add := &cobra.Command{
		Use: "add", Short: "Mask what is read from the standard input in everything that this job writes from now on", Args: cobra.NoArgs,
		Example: "fetch-token > token; hodei agent mask add --name deploy < token",
		RunE: func(cmd *cobra.Command, _ []string) error {
			warnings, err := agent.AddMask(cmd.Context(), name, cmd.InOrStdin())
			for _, warning := range warnings {
				fmt.Fprintln(os.Stderr, "hodei:", warning)
			}
			return err
		},
	}
	add.Flags().StringVar(&name, "name", "", "name under which replacements are counted (default: added)")
	mask.AddCommand(add)
	return mask
}

// newProgress is what jobs call too.
func newProgress() *cobra.Command {
	return &cobra.Command{
		Use: "progress FRACTION [MESSAGE]", Short: "Inside a job: say how far it is, from 0 to 1", Args: cobra.RangeArgs(1, 2),
		Example: `hodei agent progress 0.25 "part 1 of 4"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			fraction, err := strconv.ParseFloat(args[0], 64)
			if err != nil {
				return fmt.Errorf("%q is not a fraction like 0.25", args[0])
			}
			return agent.SetProgress(cmd.Context(), fraction, strings.Join(args[1:], ""))
		},
	}
}

// runnerNamed returns what runs steps; nil for the agent's own choice.
func runnerNamed(name string) (runner.Runner, error) {
	switch name {
	case "process":
		return nil, nil
	case "none":
		return fakerunner.Runner{}, nil
	case "lines":
		return fakerunner.Lines{}, nil
	}
	return nil, usageError{fmt.Errorf("--runner %q is not process, none or lines", name)}
}

// drainThenStop closes the channel at the first signal and ends the context at the second.
func drainThenStop(ctx context.Context) (context.Context, <-chan struct{}) {
	ctx, stop := context.WithCancel(ctx)
	drain := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		close(drain)
		<-signals
		stop()
	}()
	return ctx, drain
}
