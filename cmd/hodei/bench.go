package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/hodei-jobs/hodei/agent/runner/fakerunner"
	"github.com/hodei-jobs/hodei/cmd/hodei/bench"
)

func newBench() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure Hodei beside what the machine can do",
		Long: `Every measurement starts a server and agents of its own, as processes with mTLS and durable commits, and stops them at the
end. Progress goes to stderr; the last line of stdout is a JSON object with the figures, and the physical limit that was
measured in the same run.`,
	}
	cmd.AddCommand(
		benchmark("jobs", "Jobs a second from submit to finished and durable",
			`Jobs streams jobs in batches through agents that run no processes.`,
			bench.Options{Jobs: 1_000_000}, bench.Jobs),
		benchmark("submit", "Single submits a second from 64 clients",
			`Submit lets 64 clients, each on a connection of its own, submit one job after the other. Nothing runs them.`,
			bench.Options{Jobs: 150_000}, bench.Submit),
		benchmark("exec", "Processes a second, beside what this machine can spawn",
			`Exec runs /bin/true again and again and measures, before and after, how often this machine starts it without Hodei.`,
			bench.Options{Jobs: 10_000}, bench.Exec),
		benchmark("latency", "Time from submit to the start and to the first byte of output, when idle",
			`Latency runs one job after the other: one that starts no process, and "echo", beside "echo" without Hodei. Overhead is the
difference of the medians.`,
			bench.Options{Jobs: 200}, bench.Latency),
		benchmark("queue", "Memory, submit rate and boot time with many waiting jobs",
			`Queue submits jobs that nobody runs, kills the server and starts it again.`,
			bench.Options{Jobs: 1_000_000}, bench.Queue),
		benchmark("agents", "What a server with many idle agents costs",
			`Agents connects agents, which all run in this process, and looks at the server while nothing happens.`,
			bench.Options{Agents: 1000, Duration: 20 * time.Second}, bench.Agents),
		benchmark("auth", "What it costs to prove who one is, beside handshakes of Go alone",
			`Auth makes handshakes in which both sides prove who they are, with the server and with crypto/tls alone; connects and makes one call;
and times calls with and without a permission that they need. --duration is that of each part.`,
			bench.Options{Duration: 4 * time.Second}, bench.Auth),
		benchmark("store", "Jobs a second that the store alone takes",
			`Store makes the commits of a busy server without the server: each accepts and assigns a batch of jobs and ends another.`,
			bench.Options{Jobs: 1_000_000}, bench.Store),
		newBenchRecovery(), newBenchLogs(), newBenchSched(), newLines(),
	)
	return cmd
}

func newBenchLogs() *cobra.Command {
	var logs bench.LogOptions
	cmd := benchmark("logs", "How output gets from jobs to readers, and how long logs are read",
		`Logs times single lines on an idle server, lets many jobs write at once, each followed by a reader, and one job as fast as it can;
and it reads and searches a long log. --duration is that of many jobs at once.`,
		bench.Options{Duration: 12 * time.Second}, func(ctx context.Context, options bench.Options) (*bench.LogsResult, error) {
			return bench.Logs(ctx, options, logs)
		})
	flags := cmd.Flags()
	flags.IntVar(&logs.Streams, "streams", 1000, "jobs that write at the same time")
	flags.IntVar(&logs.LinesPerMinute, "lines-per-minute", 1_000_000, "lines of all these jobs together")
	flags.IntVar(&logs.IdleLines, "idle-lines", 150, "lines that are timed one by one")
	flags.IntVar(&logs.LongLines, "long-lines", 1_000_000, "lines of the long log")
	flags.DurationVar(&logs.Throughput, "throughput", 4*time.Second, "for how long one job writes as fast as it can")
	return cmd
}

// newLines is the program of jobs of bench logs.
func newLines() *cobra.Command {
	var pause time.Duration
	cmd := &cobra.Command{
		Use: "lines N", Short: "Write lines with the time, for the jobs of logs", Hidden: true, Args: exactly(1, "a number of lines"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil {
				return usageError{fmt.Errorf("%q is not a number of lines", args[0])}
			}
			return fakerunner.WriteLines(cmd.OutOrStdout(), n, pause, nil)
		},
	}
	cmd.Flags().DurationVar(&pause, "pause", 0, "time between two lines")
	return cmd
}

func newBenchRecovery() *cobra.Command {
	var kills int
	var seed uint64
	cmd := benchmark("recovery", "Kill the server under load, again and again, and count what is lost",
		`Recovery kills the server with SIGKILL while jobs are submitted and run, starts it again, and at the end counts
acknowledged jobs that are lost and jobs that were started twice. The jobs are processes that may start once.`,
		bench.Options{}, func(ctx context.Context, options bench.Options) (*bench.RecoveryResult, error) {
			return bench.Recovery(ctx, options, kills, seed)
		})
	cmd.Flags().IntVar(&kills, "kills", 20, "how often the server is killed")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "decides when")
	return cmd
}

// benchmark makes a command that runs a measurement in a world of its own.
func benchmark[R any](name, short, long string, defaults bench.Options, run func(context.Context, bench.Options) (R, error)) *cobra.Command {
	options := defaults
	cmd := &cobra.Command{
		Use: name, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			var err error
			if options.Program, err = os.Executable(); err != nil {
				return err
			}
			options.Progress = cmd.ErrOrStderr()
			tuneMemory(agentGCPercent)
			result, err := run(ctx, options)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&options.Store, "store", "pebble", "pebble, or the URL of a PostgreSQL database that the run may fill")
	flags.StringVar(&options.Dir, "dir", os.TempDir(), "folder for the data of the run, on the disk to measure")
	flags.IntVar(&options.Jobs, "jobs", defaults.Jobs, "how many jobs")
	flags.DurationVar(&options.Duration, "duration", defaults.Duration, "for how long, instead of --jobs")
	flags.IntVar(&options.Agents, "agents", max(defaults.Agents, 1), "how many agents")
	return cmd
}
