package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newNamespace(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "namespace", Short: "Say how namespaces share the workers, and see how they stand",
		Long: "Namespaces share the workers by weight, and their queues share what each has. One is there as soon as a job names it.",
	}
	cmd.AddCommand(
		newNamespaceList(g), newNamespaceSet(g),
		&cobra.Command{
			Use: "rm NAME", Aliases: []string{"delete"}, Short: "Give a namespace the default settings back; its queues and jobs stay",
			Args: exactly(1, "the name of a namespace"),
			RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
				return c.DeleteNamespace(cmd.Context(), args[0])
			}),
		},
	)
	return cmd
}

func newNamespaceList(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the namespaces", Args: cobra.NoArgs,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			namespaces, err := c.Namespaces(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &hodeiv1.ListNamespacesResponse{Namespaces: namespaces}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAME\tWEIGHT\tDEFAULT QUEUE\tWAITING\tRUNNING\tSHARE\tDUE")
				for _, n := range namespaces {
					fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%d\t%s\t%s\n", n.GetName(), n.GetWeight(), defaultQueue(n), n.GetWaiting(), n.GetRunning(),
						percent(n.GetShare()), percent(n.GetDue()))
				}
			})
		}),
	}
}

func newNamespaceSet(g *global) *cobra.Command {
	var weight int32
	var queue string
	var limits limitFlags
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change settings of a namespace", Args: exactly(1, "the name of a namespace"),
		Long:    "Set changes the settings whose flags are given, and leaves the others as they are.",
		Example: "hodei namespace set research --weight 3 --max-cpu 64 --default-queue batch",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			n, err := namespaceNamed(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("weight") {
				n.Weight = &weight
			}
			if cmd.Flags().Changed("default-queue") {
				n.DefaultQueue = queue
			}
			if n.Limits, err = limits.change(cmd.Flags(), n.GetLimits()); err != nil {
				return err
			}
			if n, err = c.SetNamespace(cmd.Context(), n); err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), n, func(w *tabwriter.Writer) { namespaceDetails(w, n) })
		}),
	}
	cmd.Flags().Int32Var(&weight, "weight", 0, "how large its part of the workers is, beside those of the other namespaces (default 1)")
	cmd.Flags().StringVar(&queue, "default-queue", "", "queue of its jobs that name none; empty: default")
	limits.add(cmd.Flags())
	return cmd
}

// namespaceNamed returns a namespace as it is, or one that nobody has set.
func namespaceNamed(ctx context.Context, c *hodei.Client, name string) (*hodeiv1.Namespace, error) {
	all, err := c.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(n *hodeiv1.Namespace) bool { return n.GetName() == name }); i >= 0 {
		return all[i], nil
	}
	return &hodeiv1.Namespace{Name: name}, nil
}

// defaultQueue is where the jobs of a namespace wait that name no queue.
func defaultQueue(n *hodeiv1.Namespace) string { return cmp.Or(n.GetDefaultQueue(), "default") }

func namespaceDetails(w *tabwriter.Writer, n *hodeiv1.Namespace) {
	line := func(name, value string) { fmt.Fprintf(w, "%s:\t%s\n", name, value) }
	line("Name", n.GetName())
	line("Weight", fmt.Sprint(n.GetWeight()))
	limitDetails(line, n.GetLimits())
	line("Default queue", defaultQueue(n))
	line("Jobs", fmt.Sprintf("%d waiting, %d running", n.GetWaiting(), n.GetRunning()))
	line("Share", fmt.Sprintf("%s, due %s", percent(n.GetShare()), percent(n.GetDue())))
}

// limitFlags are the limits that queues and namespaces have.
type limitFlags struct {
	running, startsPerMinute int32
	cpu                      float64
	memory                   string
}

func (f *limitFlags) add(flags *pflag.FlagSet) {
	flags.Int32Var(&f.running, "max-running", 0, "at most so many of its jobs run at the same time; 0: any number")
	flags.Float64Var(&f.cpu, "max-cpu", 0, "at most so many CPUs are reserved by its jobs; 0: any number")
	flags.StringVar(&f.memory, "max-memory", "", "at most so much memory is reserved by its jobs, for example 64Gi; 0: any amount")
	flags.Int32Var(&f.startsPerMinute, "starts-per-minute", 0, "at most so many of its jobs start within a minute; 0: any number")
}

// change returns the limits with those that were given.
func (f *limitFlags) change(flags *pflag.FlagSet, l *hodeiv1.Limits) (*hodeiv1.Limits, error) {
	if l == nil {
		l = new(hodeiv1.Limits)
	}
	if flags.Changed("max-running") {
		l.Running = f.running
	}
	if flags.Changed("starts-per-minute") {
		l.StartsPerMinute = f.startsPerMinute
	}
	if flags.Changed("max-cpu") {
		if milli := math.Round(f.cpu * 1000); milli >= 0 && milli <= math.MaxInt32 {
			l.MilliCpu = int32(milli)
		} else {
			return nil, usageError{fmt.Errorf("--max-cpu %g is not a number of CPUs", f.cpu)}
		}
	}
	if flags.Changed("max-memory") {
		var err error
		if l.MemoryMib, err = hodei.ParseMemoryMiB(f.memory); err != nil {
			return nil, usageError{fmt.Errorf("--max-memory: %w", err)}
		}
	}
	return l, nil
}

// limitDetails writes the limits that bound something.
func limitDetails(line func(name, value string), l *hodeiv1.Limits) {
	if n := l.GetRunning(); n > 0 {
		line("Running at most", fmt.Sprint(n))
	}
	if n := l.GetMilliCpu(); n > 0 {
		line("CPUs at most", fmt.Sprintf("%g", cpus(n)))
	}
	if n := l.GetMemoryMib(); n > 0 {
		line("Memory at most", fmt.Sprintf("%d MiB", n))
	}
	if n := l.GetStartsPerMinute(); n > 0 {
		line("Starts a minute at most", fmt.Sprint(n))
	}
}
