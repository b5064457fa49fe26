package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	"github.com/hodei-jobs/hodei/cmd/hodei/bench"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newBench(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure Hodei beside what the machine can do"}
	var count int
	latency := &cobra.Command{
		Use:   "latency",
		Short: "Time from submit to the first byte of a job's output",
		Long: `Latency runs "echo" again and again on the current server, one job after the other, and measures from the call of submit to
the arrival of the first byte of output in this client. In turn with it, it starts "echo" on this machine without Hodei and
measures to the first byte as well; overhead is the difference of the medians. The last line of stdout is a JSON object.`,
		Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			if count < 1 {
				return usageError{errors.New("--count must be at least 1")}
			}
			return benchLatency(ctx, cmd.OutOrStdout(), c, count)
		}),
	}
	latency.Flags().IntVar(&count, "count", 200, "how many jobs")
	cmd.AddCommand(latency, newBenchJobs(), newBenchStore())
	return cmd
}

func newBenchJobs() *cobra.Command {
	return benchmark("jobs", "Jobs a second from submit to finished and durable",
		`Jobs starts a server and agents of its own that run no processes, and streams jobs through them in batches, with mTLS and
durable commits. The last line of stdout is a JSON object.`, bench.Options{Jobs: 1_000_000}, bench.Jobs)
}

func newBenchStore() *cobra.Command {
	return benchmark("store", "Jobs a second that the store alone takes",
		`Store makes the commits of a busy server without the server: each accepts and assigns a batch of jobs and ends another
one, durably. The last line of stdout is a JSON object.`, bench.Options{Jobs: 1_000_000}, bench.Store)
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
	flags.DurationVar(&options.Duration, "duration", 0, "for how long, instead of --jobs")
	flags.IntVar(&options.Agents, "agents", max(defaults.Agents, 1), "how many agents")
	return cmd
}

// quantiles are in milliseconds.
type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

type latencyResult struct {
	Count           int       `json:"count"`
	SubmitMillis    quantiles `json:"submit_ms"`
	FirstByteMillis quantiles `json:"first_byte_ms"`
	SpawnMillis     quantiles `json:"spawn_ms"`
	OverheadMillis  float64   `json:"overhead_p50_ms"`
}

// warmUp is how many rounds are not counted: the first ones open connections and fill caches.
const warmUp = 5

func benchLatency(ctx context.Context, w io.Writer, c *hodei.Client, count int) error {
	var submits, firsts, spawns []time.Duration
	for i := range count + warmUp {
		submitted, first, err := timeJob(ctx, c)
		if err != nil {
			return err
		}
		spawn, err := timeSpawn(ctx)
		if err != nil {
			return err
		}
		if i < warmUp {
			continue
		}
		submits, firsts, spawns = append(submits, submitted), append(firsts, first), append(spawns, spawn)
		if (i+1)%50 == 0 {
			fmt.Fprintf(os.Stderr, "hodei: %d of %d\n", i+1-warmUp, count)
		}
	}
	r := latencyResult{Count: count, SubmitMillis: quantilesOf(submits), FirstByteMillis: quantilesOf(firsts), SpawnMillis: quantilesOf(spawns)}
	r.OverheadMillis = r.FirstByteMillis.P50 - r.SpawnMillis.P50
	return json.NewEncoder(w).Encode(r)
}

// timeJob returns when submit answered and when the first byte came, both from the call of submit.
func timeJob(ctx context.Context, c *hodei.Client) (submitted, first time.Duration, err error) {
	start := time.Now()
	job, err := c.Submit(ctx, &hodeiv1.JobSpec{Steps: []*hodeiv1.Step{{
		Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: []string{"echo", "hello"}}},
	}}})
	if err != nil {
		return 0, 0, err
	}
	submitted = time.Since(start)
	var output bytes.Buffer
	_, err = c.Logs(ctx, job.GetId(), hodei.LogOptions{Attempt: 1, Follow: true}, func(chunk *hodeiv1.LogChunk) error {
		if first == 0 {
			first = time.Since(start)
		}
		output.Write(chunk.GetData())
		return nil
	})
	if err == nil && output.String() != "hello\n" {
		err = fmt.Errorf("job %s wrote %q instead of hello", job.GetId(), &output)
	}
	return submitted, first, err
}

func timeSpawn(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, "echo", "hello")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		return 0, errors.Join(err, cmd.Wait())
	}
	return time.Since(start), cmd.Wait()
}

func quantilesOf(d []time.Duration) quantiles {
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[min(int(q*float64(len(d))), len(d)-1)].Microseconds()) / 1000
	}
	return quantiles{P50: at(0.50), P99: at(0.99)}
}
