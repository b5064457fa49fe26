package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newJob(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "job", Short: "Look at jobs"}
	cmd.AddCommand(newJobList(g), newJobGet(g), newJobRelease(g))
	return cmd
}

func newJobList(g *global) *cobra.Command {
	filter := &hodeiv1.JobFilter{}
	var states, labels []string
	var limit int32
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List jobs, the newest first", Args: cobra.NoArgs,
		Example: "hodei job list --state running,queued\nhodei job list --label team=web -o json",
		RunE: g.withClient(func(cmd *cobra.Command, _ []string, c *hodei.Client) error {
			for _, s := range states {
				value, ok := hodeiv1.JobState_value["JOB_STATE_"+strings.ToUpper(s)]
				if !ok {
					return usageError{fmt.Errorf("--state %q is not known; use queued, running, succeeded, failed or another one", s)}
				}
				filter.States = append(filter.States, hodeiv1.JobState(value))
			}
			var err error
			if filter.Labels, err = pairs("--label", labels); err != nil {
				return err
			}
			var jobs []*hodeiv1.Job
			for job, err := range c.List(cmd.Context(), filter, min(limit, 1000)) {
				if err != nil {
					return err
				}
				if jobs = append(jobs, job); int32(len(jobs)) == limit {
					break
				}
			}
			plain, err := plainList(jobs)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), plain, func(w *tabwriter.Writer) { jobTable(w, jobs) })
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&filter.Namespace, "namespace", "", `namespace; "*" for all`)
	flags.StringVar(&filter.Queue, "queue", "", "queue")
	flags.StringVar(&filter.Name, "name", "", "name")
	flags.StringSliceVar(&states, "state", nil, "states, separated by commas")
	flags.StringArrayVar(&labels, "label", nil, "label, KEY=VALUE; may be repeated")
	flags.Int32VarP(&limit, "limit", "n", 50, "at most this many")
	return cmd
}

func jobTable(w *tabwriter.Writer, jobs []*hodeiv1.Job) {
	fmt.Fprintln(w, "ID\tNAME\tSTATE\tAGE\tTOOK\tWORKER\tCOMMAND")
	for _, j := range jobs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", j.GetId(), orDash(j.GetSpec().GetName()), short(j.GetState(), "JOB_STATE_"),
			age(j.GetCreateTime()), took(j), orDash(j.GetWorkerId()), firstCommand(j.GetSpec()))
	}
}

// took is how long the job ran.
func took(j *hodeiv1.Job) string {
	switch {
	case j.GetStartTime() == nil:
		return "-"
	case j.GetEndTime() == nil:
		return age(j.GetStartTime())
	}
	return rounded(j.GetEndTime().AsTime().Sub(j.GetStartTime().AsTime()))
}

// maxCommandWidth bounds a command in a table.
const maxCommandWidth = 40

func firstCommand(spec *hodeiv1.JobSpec) string {
	if len(spec.GetSteps()) == 0 {
		return "-"
	}
	step := spec.GetSteps()[0]
	text := strings.Join(step.GetCommand().GetArgv(), " ")
	if text == "" {
		text = step.GetScript().GetText()
	}
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > maxCommandWidth {
		text = string(runes[:maxCommandWidth-3]) + "..."
	}
	return text
}

func newJobGet(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Show one job", Args: exactly(1, "the id of a job"),
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			job, err := c.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), job, func(w *tabwriter.Writer) { jobDetails(w, job) })
		}),
	}
}

func newJobRelease(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "release ID", Short: "Let a held job start again", Args: exactly(1, "the id of a job"),
		Long: "A job that may be why several workers were lost, one after the other, is held. Release lets it start again.",
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			job, err := c.Release(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), job, func(w *tabwriter.Writer) {
				fmt.Fprintf(w, "%s\t%s\n", job.GetId(), short(job.GetState(), "JOB_STATE_"))
			})
		}),
	}
}

func jobDetails(w *tabwriter.Writer, j *hodeiv1.Job) {
	line := func(name, value string) { fmt.Fprintf(w, "%s:\t%s\n", name, value) }
	line("Id", j.GetId())
	line("Name", orDash(j.GetSpec().GetName()))
	line("State", short(j.GetState(), "JOB_STATE_"))
	if j.GetPendingReason() != "" {
		line("Waits because", j.GetPendingReason())
	}
	if j.GetHeld() != "" {
		line("Held because", j.GetHeld())
	}
	if j.GetCause() != nil {
		line("Cause", causeText(j.GetCause()))
	}
	if p := j.GetProgress(); p != nil {
		line("Progress", strings.TrimSpace(fmt.Sprintf("%.0f %% %s", 100*p.GetFraction(), p.GetMessage())))
	}
	line("Attempt", fmt.Sprintf("%d of %d", j.GetAttempt(), j.GetSpec().GetMaxAttempts()))
	if n := j.GetPreemptions(); n > 0 || j.GetPreempting() {
		line("Preempted", fmt.Sprintf("%d, not counted against the attempts", n))
	}
	line("Worker", orDash(j.GetWorkerId()))
	line("Submitted", age(j.GetCreateTime())+" ago")
	line("Took", took(j))
	fmt.Fprintln(w, "\nSTEP\tSTATE\tTOOK\tCPU\tMEMORY\tCAUSE")
	for _, s := range j.GetSteps() {
		duration := "-"
		if s.GetStartTime() != nil && s.GetEndTime() != nil {
			duration = rounded(s.GetEndTime().AsTime().Sub(s.GetStartTime().AsTime()))
		}
		cpu, memory := "-", "-"
		if u := s.GetUsage(); u != nil {
			cpu = rounded(u.GetUserCpu().AsDuration() + u.GetSystemCpu().AsDuration())
			if u.GetMaxRssKib() > 0 { // a small process may not be measurable
				memory = fmt.Sprintf("%.1f MiB", float64(u.GetMaxRssKib())/1024)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.GetName(), short(s.GetState(), "STEP_STATE_"), duration, cpu, memory, causeText(s.GetCause()))
	}
}

func causeText(c *hodeiv1.Cause) string {
	switch {
	case c == nil:
		return "-"
	case c.GetMessage() != "":
		return c.GetMessage()
	case c.GetKind() == hodeiv1.CauseKind_CAUSE_KIND_EXIT_CODE:
		return fmt.Sprintf("exit code %d", c.GetExitCode())
	case c.GetActor() != "":
		return short(c.GetKind(), "CAUSE_KIND_") + " by " + c.GetActor()
	}
	return short(c.GetKind(), "CAUSE_KIND_")
}
