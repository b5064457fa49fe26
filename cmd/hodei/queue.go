package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newQueue(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "queue", Short: "Say how queues share the workers, and see how they stand",
		Long: `Jobs wait in queues, which share the workers by weight. A queue is there as soon as a job names it; until somebody sets it, it has
the default settings.`,
	}
	var namespace string
	cmd.PersistentFlags().StringVar(&namespace, "namespace", "", "namespace of the queue (default: default)")
	cmd.AddCommand(
		newQueueList(g, &namespace), newQueueGet(g, &namespace), newQueueSet(g, &namespace),
		newQueuePause(g, &namespace, "pause", "Let no job of a queue start; those that run go on", true),
		newQueuePause(g, &namespace, "resume", "Let the jobs of a queue start again", false),
		&cobra.Command{
			Use: "rm NAME", Aliases: []string{"delete"}, Short: "Give a queue the default settings back; its jobs stay",
			Args: exactly(1, "the name of a queue"),
			RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
				return c.DeleteQueue(cmd.Context(), namespace, args[0])
			}),
		},
	)
	return cmd
}

func newQueueList(g *global, namespace *string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: `List the queues of a namespace, or with --namespace "*" of all`, Args: cobra.NoArgs,
		Long: `List shows the queues that were set, or that have jobs. SHARE is the part of all workers that a queue holds, the largest of any
one resource; DUE is the part that its weight gives it among those that hold something or wait for it.`,
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			queues, err := c.Queues(cmd.Context(), *namespace)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), &hodeiv1.ListQueuesResponse{Queues: queues}, func(w *tabwriter.Writer) {
				fmt.Fprintln(w, "NAMESPACE\tNAME\tPARENT\tSTARTS\tBAND\tWEIGHT\tWAITING\tRUNNING\tSHARE\tDUE")
				for _, q := range queues {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", q.GetNamespace(), q.GetName(), orDash(q.GetParent()), starts(q),
						q.GetBand(), q.GetWeight(), q.GetWaiting(), q.GetRunning(), percent(q.GetShare()), percent(q.GetDue()))
				}
			})
		}),
	}
}

func starts(q *hodeiv1.Queue) string {
	if q.GetPaused() {
		return "paused"
	}
	return "yes"
}

func percent(part float64) string { return fmt.Sprintf("%.0f%%", part*100) }

func newQueueGet(g *global, namespace *string) *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Short: "Show a queue with all of its settings", Args: exactly(1, "the name of a queue"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			q, err := c.Queue(cmd.Context(), *namespace, args[0])
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), q, func(w *tabwriter.Writer) { queueDetails(w, q) })
		}),
	}
}

func newQueuePause(g *global, namespace *string, name, what string, paused bool) *cobra.Command {
	return &cobra.Command{
		Use: name + " NAME", Short: what, Args: exactly(1, "the name of a queue"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			q, err := c.PauseQueue(cmd.Context(), *namespace, args[0], paused)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), q, func(w *tabwriter.Writer) { fmt.Fprintf(w, "%s\tstarts: %s\n", q.GetName(), starts(q)) })
		}),
	}
}

// queueFlags are the settings that a command changes.
type queueFlags struct {
	weight, band                                int32
	parent                                      string
	limits                                      limitFlags
	ageing                                      time.Duration
	loadWeight, affinityWeight, priceWeight     int32
	spread, preempts, preemptible, awaitWorkers bool
}

func newQueueSet(g *global, namespace *string) *cobra.Command {
	var f queueFlags
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Change settings of a queue", Args: exactly(1, "the name of a queue"),
		Long: "Set changes the settings whose flags are given, and leaves the others as they are.",
		Example: `hodei queue set deploy --band 1 --preempts
hodei queue set nightly --weight 1 --max-running 20 --preemptible
hodei queue set nightly --max-running 0                # any number again`,
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			q, err := c.Queue(cmd.Context(), *namespace, args[0])
			if err != nil {
				return err
			}
			if err := f.change(cmd.Flags(), q); err != nil {
				return err
			}
			if q, err = c.SetQueue(cmd.Context(), q); err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), q, func(w *tabwriter.Writer) { queueDetails(w, q) })
		}),
	}
	flags := cmd.Flags()
	flags.Int32Var(&f.weight, "weight", 0, "how large its part of the workers is, beside those of its neighbours (default 1)")
	flags.Int32Var(&f.band, "band", 0, "queues with a higher band go first, whatever their parts")
	flags.StringVar(&f.parent, "parent", "", "queue whose part this one gets a part of")
	f.limits.add(flags)
	flags.DurationVar(&f.ageing, "ageing", 0, "so long a job waits to be as urgent as a newer one of a priority higher by 1; 0: never (default 1h)")
	flags.BoolVar(&f.spread, "spread", false, "choose the emptiest worker rather than the fullest one")
	flags.Int32Var(&f.loadWeight, "load-weight", 0, "how much measured load counts against a worker (default 200)")
	flags.Int32Var(&f.affinityWeight, "affinity-weight", 0, "how much counts what jobs prefer (default 100)")
	flags.Int32Var(&f.priceWeight, "price-weight", 0, "how much the number in a worker's label price counts against it")
	flags.BoolVar(&f.preempts, "preempts", false, "its jobs may take the place of less urgent ones")
	flags.BoolVar(&f.preemptible, "preemptible", false, "its jobs may lose their place to more urgent ones, if they may start again")
	flags.BoolVar(&f.awaitWorkers, "await-workers", false, "take jobs that are too large for every worker there is")
	return cmd
}

// change puts the settings that were given into a queue.
func (f *queueFlags) change(flags *pflag.FlagSet, q *hodeiv1.Queue) error {
	if q.Scoring == nil {
		q.Scoring = new(hodeiv1.Scoring)
	}
	set := map[string]func(){
		"weight":          func() { q.Weight = &f.weight },
		"band":            func() { q.Band = f.band },
		"parent":          func() { q.Parent = f.parent },
		"ageing":          func() { q.Ageing = durationpb.New(f.ageing) },
		"spread":          func() { q.Scoring.Spread = f.spread },
		"load-weight":     func() { q.Scoring.Load = &f.loadWeight },
		"affinity-weight": func() { q.Scoring.Affinity = &f.affinityWeight },
		"price-weight":    func() { q.Scoring.Price = &f.priceWeight },
		"preempts":        func() { q.Preempts = f.preempts },
		"preemptible":     func() { q.Preemptible = f.preemptible },
		"await-workers":   func() { q.AwaitWorkers = f.awaitWorkers },
	}
	for name, change := range set {
		if flags.Changed(name) {
			change()
		}
	}
	var err error
	q.Limits, err = f.limits.change(flags, q.GetLimits())
	return err
}

func queueDetails(w *tabwriter.Writer, q *hodeiv1.Queue) {
	line := func(name, value string) { fmt.Fprintf(w, "%s:\t%s\n", name, value) }
	line("Name", q.GetName())
	line("Namespace", q.GetNamespace())
	line("Parent", orDash(q.GetParent()))
	line("Starts", starts(q))
	line("Band", fmt.Sprint(q.GetBand()))
	line("Weight", fmt.Sprint(q.GetWeight()))
	limitDetails(line, q.GetLimits())
	line("Ageing", q.GetAgeing().AsDuration().String())
	s := q.GetScoring()
	line("Spread", fmt.Sprint(s.GetSpread()))
	line("Load, affinity, price", fmt.Sprintf("%d, %d, %d", s.GetLoad(), s.GetAffinity(), s.GetPrice()))
	line("Preempts, preemptible", fmt.Sprintf("%t, %t", q.GetPreempts(), q.GetPreemptible()))
	line("Awaits larger workers", fmt.Sprint(q.GetAwaitWorkers()))
	line("Jobs", fmt.Sprintf("%d waiting, %d running", q.GetWaiting(), q.GetRunning()))
	line("Share", fmt.Sprintf("%s, due %s", percent(q.GetShare()), percent(q.GetDue())))
}
