package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newExplain(g *global) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "explain ID|last | -f FILE",
		Short: "Say why a job waits, or would",
		Long: `Explain says in one sentence why a job waits, then what each worker lacks, how many jobs are more urgent, which limit binds, when
the job may start, and what would help. With -f it says so of a spec, and submits nothing.`,
		Example: "hodei explain job_01...\nhodei explain last\nhodei explain -f job.yaml",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			res, err := explain(cmd, args, c, file)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), res, func(w *tabwriter.Writer) { explanation(w, res) })
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML or JSON file with the spec of a job; - for standard input")
	return cmd
}

func explain(cmd *cobra.Command, args []string, c *hodei.Client, file string) (*hodeiv1.ExplainJobResponse, error) {
	if file == "" && len(args) != 1 || file != "" && len(args) > 0 {
		return nil, usageError{errors.New("expected the id of a job, last, or -f with a file")}
	}
	if file == "" {
		id, err := jobNamed(cmd.Context(), c, args[0])
		if err != nil {
			return nil, err
		}
		return c.Explain(cmd.Context(), id)
	}
	specs, err := readSpecs(cmd.InOrStdin(), file)
	if err != nil {
		return nil, err
	}
	if len(specs) > 1 {
		return nil, usageError{fmt.Errorf("%s has %d specs; explain takes one", file, len(specs))}
	}
	return c.ExplainSpec(cmd.Context(), specs[0])
}

// jobNamed returns the id that was given, or that of the newest job for "last": of the context's namespace, or of all.
func jobNamed(ctx context.Context, c *hodei.Client, name string) (string, error) {
	if name != "last" {
		return name, nil
	}
	filter := &hodeiv1.JobFilter{Namespace: cmp.Or(c.Config().Namespace, "*")}
	for job, err := range c.List(ctx, filter, 1) {
		return job.GetId(), err
	}
	return "", errors.New("there is no job yet; `hodei submit` makes one")
}

func explanation(w *tabwriter.Writer, e *hodeiv1.ExplainJobResponse) {
	fmt.Fprintln(w, e.GetText())
	if len(e.GetFilters()) > 0 {
		fmt.Fprintln(w, "\nFILTER\tWORKERS\tWHY")
		for _, f := range e.GetFilters() {
			fmt.Fprintf(w, "%s\t%d\t%s\n", f.GetFilter(), f.GetWorkers(), f.GetText())
		}
	}
	fmt.Fprintln(w)
	line := func(name, value string) { fmt.Fprintf(w, "%s:\t%s\n", name, value) }
	line("State", short(e.GetState(), "JOB_STATE_"))
	if e.GetWorkers() > 0 {
		line("Workers", fmt.Sprintf("%d of %d can take it now", e.GetFitting(), e.GetWorkers()))
	}
	if e.GetAhead() > 0 {
		line("Ahead", fmt.Sprintf("%d more urgent in its queue", e.GetAhead()))
	}
	if e.GetLimit() != "" {
		line("Limit", e.GetLimit())
	}
	if e.GetEarliest() != nil {
		at := e.GetEarliest().AsTime()
		line("Earliest", fmt.Sprintf("%s, in %s", at.Local().Format(time.DateTime), rounded(time.Until(at))))
	}
	if e.GetAdvice() != "" {
		line("Advice", e.GetAdvice())
	}
	if p := e.GetPrediction(); p != nil {
		usual, most := p.GetMedian().GetRan().AsDuration(), p.GetMost().GetRan().AsDuration()
		line("Takes", fmt.Sprintf("%s usually, at most %s in 9 of 10, of the last %d runs", rounded(usual), rounded(most), p.GetRuns()))
	}
	if e.GetSizing() != "" {
		line("Sizing", e.GetSizing())
	}
}
