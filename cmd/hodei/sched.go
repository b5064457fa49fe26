package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/hodei-jobs/hodei/cmd/hodei/bench"
	"github.com/hodei-jobs/hodei/service/scheduler/simulator"
)

func newSched() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sched",
		Short: "Try out how jobs would be scheduled, in virtual time",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newSchedReplay())
	return cmd
}

// replayFlags say what is replayed, and on what.
type replayFlags struct {
	policy, format        string
	workers, cpus, memory int
	slots, lublin         int
	seed                  uint64
}

func newSchedReplay() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use:   "replay [FILE]",
		Short: "Run a recorded or a generated workload on a cluster that is not there, and compare policies",
		Long: `Replay lets the jobs of a workload pass through the scheduler in virtual time, with the policy of a file, and beside it
through strict first come, first served. It starts nothing and asks no server.

FILE is a workload in the Standard Workload Format of the Parallel Workloads Archive (.swf), or one JSON object a line (.jsonl) with
submit_seconds, runtime_seconds, limit_seconds, cpus, memory_mib, namespace, queue, priority and class; - is standard input. Instead of
a file, --lublin makes jobs as the model of Lublin and Feitelson has them. The model's processors are CPUs: all of the cluster, and no
job asks for more than one worker has. Generated jobs are spread over the queues of the policy.

The policy is a YAML file. Its settings have the names that they have elsewhere; what it does not name has the default:
namespaces: [{name: research, weight: 3, limits: {milli_cpu: 64000}}],
queues: [{namespace: research, name: night, band: -1, ageing: 5m, preemptible: true}], and the bounds of the scheduler,
scheduler: {reservations: 1}.`,
		Example: `hodei sched replay --lublin 10000                                  # one machine of 256 CPUs
hodei sched replay CTC-SP2.swf --workers 1 --cpu 338
hodei sched replay jobs.jsonl --policy policy.yaml --workers 20 --cpu 32 --memory 131072 -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 == (f.lublin > 0) {
				return usageError{errors.New("expected either the file of a workload or --lublin N")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			report, err := f.replay(ctx, cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			return outputOf(cmd).print(cmd.OutOrStdout(), report, report.table)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "YAML file with the settings of namespaces and queues; without one all have their defaults")
	flags.StringVar(&f.format, "format", "", "format of the workload: swf or jsonl; it is told from the file's name where that says it")
	flags.IntVar(&f.workers, "workers", 1, "how many workers the cluster has")
	flags.IntVar(&f.cpus, "cpu", 256, "CPUs of each worker")
	flags.IntVar(&f.memory, "memory", 0, "memory of each worker in MiB; 0: memory is no matter")
	flags.IntVar(&f.slots, "slots", 0, "how many jobs each worker runs at the same time; 0: any number")
	flags.IntVar(&f.lublin, "lublin", 0, "generate so many jobs instead of reading a file")
	flags.Uint64Var(&f.seed, "seed", 1, "decides which jobs are generated")
	return cmd
}

// outputOf returns how the command's result is to be written.
func outputOf(cmd *cobra.Command) *global {
	g := &global{output: "table"}
	if f := cmd.Flag("output"); f != nil {
		g.output = f.Value.String()
	}
	return g
}

// replayReport is what a replay prints.
type replayReport struct {
	Workers int               `json:"workers"`
	CPUs    int               `json:"cpus"` // of each
	Skipped int               `json:"skipped"`
	FCFS    *simulator.Result `json:"fcfs"`
	Hodei   *simulator.Result `json:"hodei"`
}

// check returns what is wrong with the numbers.
func (f *replayFlags) check() error {
	switch {
	case f.workers < 1:
		return fmt.Errorf("--workers %d; there must be at least one", f.workers)
	case f.cpus < 1 || f.cpus > math.MaxInt32/1000:
		return fmt.Errorf("--cpu %d; it must be from 1 to %d", f.cpus, math.MaxInt32/1000)
	case f.memory < 0 || f.memory > math.MaxInt32:
		return fmt.Errorf("--memory %d; it must be from 0 to %d", f.memory, math.MaxInt32)
	case f.slots < 0 || f.slots > math.MaxInt32:
		return fmt.Errorf("--slots %d; it must be from 0 to %d", f.slots, math.MaxInt32)
	case f.lublin < 0 || f.lublin > simulator.MaxJobs:
		return fmt.Errorf("--lublin %d; it must be from 1 to %d", f.lublin, simulator.MaxJobs)
	}
	return nil
}

func (f *replayFlags) replay(ctx context.Context, stdin io.Reader, args []string) (*replayReport, error) {
	if err := f.check(); err != nil {
		return nil, usageError{err}
	}
	policy, err := readPolicy(f.policy)
	if err != nil {
		return nil, err
	}
	r := &replayReport{Workers: f.workers, CPUs: f.cpus}
	setup := simulator.Setup{
		Cluster: simulator.Cluster{Workers: f.workers, MilliCPU: int32(1000 * f.cpus), MemoryMiB: int32(f.memory), Slots: int32(f.slots)},
		Policy:  policy, Promises: f.workers <= promiseWorkers,
	}
	if f.lublin > 0 {
		setup.Jobs = simulator.Lublin{Jobs: f.lublin, Processors: f.workers * f.cpus, Seed: f.seed}.Generate()
		simulator.Cap(setup.Jobs, setup.Cluster.MilliCPU)
		simulator.Spread(setup.Jobs, policy, f.seed)
	} else if setup.Jobs, r.Skipped, err = f.read(stdin, args[0]); err != nil {
		return nil, err
	}
	if r.Hodei, err = simulator.Run(ctx, setup); err != nil {
		return nil, err
	}
	setup.FirstCome = true
	r.FCFS, err = simulator.Run(ctx, setup)
	return r, err
}

// promiseWorkers is up to how many workers promises are looked at.
const promiseWorkers = 1000

// maxPolicyBytes bounds a policy file.
const maxPolicyBytes = 1 << 20

func readPolicy(file string) (*simulator.Policy, error) {
	policy := new(simulator.Policy)
	if file == "" {
		return policy, nil
	}
	in, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading the policy: %w", err)
	}
	defer in.Close() //nolint:errcheck // only read
	decoder := yaml.NewDecoder(io.LimitReader(in, maxPolicyBytes))
	decoder.KnownFields(true)
	if err := decoder.Decode(policy); err != nil && !errors.Is(err, io.EOF) { // an empty file changes nothing
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := policy.Complete(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return policy, nil
}

// read reads the workload.
func (f *replayFlags) read(stdin io.Reader, file string) (jobs []simulator.Job, skipped int, err error) {
	in := stdin
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, 0, fmt.Errorf("reading the workload: %w", err)
		}
		defer opened.Close() //nolint:errcheck // only read
		in = opened
	}
	switch format := cmp.Or(f.format, strings.TrimPrefix(filepath.Ext(file), ".")); format {
	case "swf":
		jobs, skipped, err = simulator.ReadSWF(in)
	case "jsonl":
		jobs, err = simulator.ReadLines(in)
	default:
		return nil, 0, usageError{fmt.Errorf("the format of %s is not known; use --format swf or --format jsonl", file)}
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", file, err)
	}
	return jobs, skipped, nil
}

// table draws the results side by side.
func (r *replayReport) table(w *tabwriter.Writer) {
	row := func(name string, value func(*simulator.Result) string) {
		fmt.Fprintf(w, "%s\t%s\t%s\n", name, value(r.FCFS), value(r.Hodei))
	}
	seconds := func(s float64) string { return rounded(time.Duration(s * float64(time.Second))) }
	percent := func(p float64) string { return fmt.Sprintf("%.1f%%", 100*p) }
	fmt.Fprintln(w, "\tFCFS\tHODEI")
	row("Jobs ended", func(r *simulator.Result) string { return fmt.Sprintf("%d of %d", r.Ended, r.Jobs) })
	row("Too large for a worker", func(r *simulator.Result) string { return fmt.Sprint(r.TooLarge) })
	row("Never started", func(r *simulator.Result) string { return fmt.Sprint(r.NeverStarted) })
	row("Utilisation", func(r *simulator.Result) string { return percent(r.Utilisation) })
	row("Makespan", func(r *simulator.Result) string { return seconds(r.Makespan) })
	distribution := func(name string, of func(*simulator.Result) simulator.Distribution, write func(float64) string) {
		row(name+", mean", func(r *simulator.Result) string { return write(of(r).Mean) })
		row(name+", p50", func(r *simulator.Result) string { return write(of(r).P50) })
		row(name+", p95", func(r *simulator.Result) string { return write(of(r).P95) })
	}
	distribution("Wait", func(r *simulator.Result) simulator.Distribution { return r.Wait }, seconds)
	for _, class := range r.Hodei.Classes {
		row(fmt.Sprintf("Wait of %d %s jobs, mean", class.Jobs, class.Class), func(r *simulator.Result) string {
			for _, own := range r.Classes {
				if own.Class == class.Class {
					return seconds(own.Wait.Mean)
				}
			}
			return "-"
		})
	}
	distribution("Bounded slowdown", func(r *simulator.Result) simulator.Distribution { return r.Slowdown },
		func(v float64) string { return fmt.Sprintf("%.1f", v) })
	row("Backfilled", func(r *simulator.Result) string { return percent(r.BackfilledShare) })
	row("Later than promised", func(r *simulator.Result) string {
		if r.Late == nil {
			return "-"
		}
		return fmt.Sprint(*r.Late)
	})
	row("Preempted", func(r *simulator.Result) string { return fmt.Sprint(r.Preempted) })
	r.fairness(w, percent)
	if r.Skipped > 0 {
		fmt.Fprintf(w, "Lines without a job\t%d\n", r.Skipped)
	}
}

// fairness draws what namespaces got while all of them had jobs waiting, beside what their weights say.
func (r *replayReport) fairness(w *tabwriter.Writer, percent func(float64) string) {
	parts := func(result *simulator.Result) map[string]simulator.NamespaceShare {
		list := make(map[string]simulator.NamespaceShare)
		if result.Fairness != nil {
			for _, n := range result.Fairness.Namespaces {
				list[n.Namespace] = n
			}
		}
		return list
	}
	if r.Hodei.Fairness == nil {
		return
	}
	fcfs := parts(r.FCFS)
	for _, n := range r.Hodei.Fairness.Namespaces {
		beside := "-"
		if other, ok := fcfs[n.Namespace]; ok {
			beside = percent(other.Share)
		}
		fmt.Fprintf(w, "Part of %s, due %s\t%s\t%s\n", n.Namespace, percent(n.Due), beside, percent(n.Share))
	}
}

func newBenchSched() *cobra.Command {
	options := bench.SchedOptions{}
	var profile string
	cmd := &cobra.Command{
		Use:   "sched",
		Short: "Placements a second of the scheduler alone, and how good they are",
		Long: `Sched measures the scheduler in this process, without a server: how many jobs a second it places on one core, in a cluster that is
kept about 90 percent full, in one ten times as large that is full and has a queue, and with quotas, weights and limits on starts; and in
virtual time, what a workload of the model of Lublin and Feitelson gets beside first come, first served, what namespaces get for their
weights, and how many workers many jobs need beside first fit decreasing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			if profile != "" {
				f, err := os.Create(profile)
				if err != nil {
					return fmt.Errorf("writing the profile: %w", err)
				}
				defer f.Close() //nolint:errcheck // a look inside, not a result
				if err := pprof.StartCPUProfile(f); err != nil {
					return err
				}
				defer pprof.StopCPUProfile()
			}
			options.Progress = cmd.ErrOrStderr()
			result, err := bench.Sched(ctx, options)
			if err != nil {
				return err
			}
			return outputOf(cmd).print(cmd.OutOrStdout(), result, func(w *tabwriter.Writer) { schedTable(w, result) })
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Workers, "workers", 1000, "how many workers; the large cluster has ten times as many")
	flags.IntVar(&options.Jobs, "jobs", 500_000, "how many jobs are placed while the clock runs")
	flags.Uint64Var(&options.Seed, "seed", 1, "decides what the jobs are")
	flags.StringVar(&profile, "profile", "", "write a CPU profile to this file")
	return cmd
}

func schedTable(w *tabwriter.Writer, r *bench.SchedResult) {
	speed := func(name string, s *bench.SchedSpeed) {
		fmt.Fprintf(w, "%s\t%.0f placements/s\tp50 %.2f ms, p99 %.2f ms a pass\t%d workers, %.0f%% full, %.0f jobs waiting\t%.2f cores\n",
			name, s.PlacementsPerSecond, s.PassMillis.P50, s.PassMillis.P99, s.Workers, 100*s.Full, s.Waiting, s.Cores)
	}
	speed("Speed", &r.Speed)
	speed("With policies", &r.PoliciesOn.SchedSpeed)
	fmt.Fprintf(w, "\t%.0f%% of the speed without\n", 100*r.PoliciesOn.Ratio)
	speed("Large cluster", &r.Large)
	fmt.Fprintf(w, "Model of Lublin\tutilisation %.1f%%\tfcfs %.1f%%\n", 100*r.Lublin.Own.Utilisation, 100*r.Lublin.FCFS.Utilisation)
	fmt.Fprintf(w, "\tmean wait %.0f s\tfcfs %.0f s\n", r.Lublin.Own.Wait.Mean, r.Lublin.FCFS.Wait.Mean)
	fmt.Fprintf(w, "Fairness\tat most %.1f%% off\tof %d namespaces\n", 100*r.Fairness.Deviation, r.Fairness.Namespaces)
	fmt.Fprintf(w, "Packing\t%d workers\tfirst fit decreasing %d\n", r.Packing.Scheduler, r.Packing.Reference)
}
