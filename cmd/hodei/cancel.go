package main

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

func newCancel(g *global) *cobra.Command {
	var options hodei.CancelOptions
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "Stop a job, or one of its steps",
		Long: `Cancel asks all processes of the job to end (SIGTERM) and kills those that are left after the step's grace period. With
--step only that step is stopped and the job goes on with the next one.`,
		Example: "hodei cancel job_01...\nhodei cancel --step test job_01...\nhodei cancel --force job_01...",
		Args:    exactly(1, "the id of a job"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			job, err := c.Cancel(cmd.Context(), args[0], options)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), job, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "%s\t%s\n", job.GetId(), short(job.GetState(), "JOB_STATE_"))
			})
		}),
	}
	cmd.Flags().StringVar(&options.Step, "step", "", "only this step")
	cmd.Flags().BoolVar(&options.Force, "force", false, "kill at once")
	cmd.Flags().StringVar(&options.Reason, "reason", "", "a word for the record")
	return cmd
}
