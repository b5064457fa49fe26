package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newWorker(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "worker", Short: "Look at the machines that run jobs, and drain them"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "list", Aliases: []string{"ls"}, Short: "List workers", Args: cobra.NoArgs,
			RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
				workers, err := c.Workers(cmd.Context())
				if err != nil {
					return err
				}
				plain, err := plainList(workers)
				if err != nil {
					return err
				}
				return g.print(cmd.OutOrStdout(), plain, func(w *tabwriter.Writer) { workerTable(w, workers) })
			}),
		},
		&cobra.Command{
			Use: "get ID|NAME", Short: "Show one worker", Args: exactly(1, "the id or name of a worker"),
			RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
				worker, err := c.Worker(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return g.print(cmd.OutOrStdout(), worker, func(w *tabwriter.Writer) { workerDetails(w, worker) })
			}),
		},
		newWorkerDrain(g),
	)
	return cmd
}

func newWorkerDrain(g *global) *cobra.Command {
	var resume bool
	cmd := &cobra.Command{
		Use: "drain ID|NAME", Short: "Give a worker no new jobs; those that it has go on", Args: exactly(1, "the id or name of a worker"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			worker, err := c.Drain(cmd.Context(), args[0], resume)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), worker, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "%s\t%s\n", worker.GetName(), short(worker.GetState(), "WORKER_STATE_"))
			})
		}),
	}
	cmd.Flags().BoolVar(&resume, "resume", false, "give it jobs again, also when it was suspended")
	return cmd
}

func workerTable(w *tabwriter.Writer, workers []*hodeiv1.Worker) {
	fmt.Fprintln(w, "NAME\tSTATE\tJOBS\tCPU USED\tCPU RESERVED\tMEMORY USED\tMEMORY RESERVED\tTAINTS\tQUEUES\tHEARTBEAT\tID")
	for _, x := range workers {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.GetName(), short(x.GetState(), "WORKER_STATE_"), len(x.GetJobIds()),
			share(x.GetUsedMilliCpu(), x.GetCapacity().GetMilliCpu()), share(x.GetReserved().GetMilliCpu(), x.GetCapacity().GetMilliCpu()),
			share(x.GetUsedMemoryMib(), x.GetCapacity().GetMemoryMib()), share(x.GetReserved().GetMemoryMib(), x.GetCapacity().GetMemoryMib()),
			orDash(strings.Join(x.GetTaints(), ",")), served(x, ","), age(x.GetHeartbeatTime()), x.GetId())
	}
}

// served is whose jobs a worker gets.
func served(x *hodeiv1.Worker, separator string) string {
	switch {
	case !x.GetBound():
		return "all"
	case len(x.GetQueues()) == 0:
		return "of others"
	}
	return strings.Join(x.GetQueues(), separator)
}

func share(part, whole int32) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", int64(part)*100/int64(whole))
}

func workerDetails(w *tabwriter.Writer, x *hodeiv1.Worker) {
	line := func(name, value string) { fmt.Fprintf(w, "%s:\t%s\n", name, value) }
	line("Id", x.GetId())
	line("Name", x.GetName())
	line("State", short(x.GetState(), "WORKER_STATE_"))
	if reason := x.GetSuspendReason(); reason != "" {
		line("Suspended", reason)
	}
	line("Agent", x.GetAgentVersion())
	has, reserved := x.GetCapacity(), x.GetReserved()
	line("CPU", fmt.Sprintf("%g, %g reserved, %g in use", cpus(has.GetMilliCpu()), cpus(reserved.GetMilliCpu()), cpus(x.GetUsedMilliCpu())))
	line("Memory", fmt.Sprintf("%d MiB, %d reserved, %d in use", has.GetMemoryMib(), reserved.GetMemoryMib(), x.GetUsedMemoryMib()))
	for _, name := range slices.Sorted(maps.Keys(has.GetExtras())) {
		line("Extra", fmt.Sprintf("%d %s, %d reserved", has.GetExtras()[name], name, reserved.GetExtras()[name]))
	}
	line("Connected", age(x.GetConnectTime())+" ago")
	line("Heartbeat", age(x.GetHeartbeatTime())+" ago")
	for _, name := range slices.Sorted(maps.Keys(x.GetLabels())) {
		line("Label", name+"="+x.GetLabels()[name])
	}
	line("Capabilities", orDash(strings.Join(x.GetCapabilities(), " ")))
	line("Taints", orDash(strings.Join(x.GetTaints(), " ")))
	line("Queues", served(x, " "))
	line("Jobs", orDash(strings.Join(x.GetJobIds(), " ")))
}

func cpus(milli int32) float64 { return float64(milli) / 1000 }
