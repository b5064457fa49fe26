package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func newSubmit(g *global) *cobra.Command {
	var f jobFlags
	var file string
	cmd := &cobra.Command{
		Use:   "submit [flags] (-f FILE | -- COMMAND [ARGUMENT...])",
		Short: "Submit jobs and print their ids, without waiting",
		Example: `hodei submit -- make test
hodei submit -f job.yaml
cat job.json | hodei submit -f -
hodei submit -o json -- true      # {"id":"job_..."}`,
		RunE: g.withClient(func(cmd *cobra.Command, args []string, c *hodei.Client) error {
			if file == "" {
				spec, err := f.spec(args)
				if err != nil {
					return err
				}
				return submit(cmd, g, c, spec)
			}
			if len(args) > 0 {
				return usageError{errors.New("give either -f or a command, not both")}
			}
			specs, err := readSpecs(cmd.InOrStdin(), file)
			if err != nil {
				return err
			}
			if len(specs) == 1 {
				return submit(cmd, g, c, specs[0])
			}
			return submitAll(cmd, g, c, specs)
		}),
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML or JSON file with the jobs' specs; - for standard input")
	return cmd
}

func readSpecs(stdin io.Reader, file string) ([]*hodeiv1.JobSpec, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the spec: %w", err)
		}
		defer f.Close() //nolint:errcheck // only read
		in = f
	}
	// One byte more than the limit is enough to see that there are too many.
	data, err := io.ReadAll(io.LimitReader(in, hodei.MaxSpecBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the spec: %w", err)
	}
	if len(data) > hodei.MaxSpecBytes {
		return nil, fmt.Errorf("%s is larger than the limit of %d bytes; put large data into files that the job reads", file, hodei.MaxSpecBytes)
	}
	specs, err := hodei.ParseSpecs(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return specs, nil
}

func submit(cmd *cobra.Command, g *global, c *hodei.Client, spec *hodeiv1.JobSpec) error {
	job, err := c.Submit(cmd.Context(), spec)
	if err != nil {
		return err
	}
	return g.print(cmd.OutOrStdout(), map[string]string{"id": job.GetId()}, func(w *tabwriter.Writer) { fmt.Fprintln(w, job.GetId()) })
}

// submitAll prints a line for each job, and fails when one was refused.
func submitAll(cmd *cobra.Command, g *global, c *hodei.Client, specs []*hodeiv1.JobSpec) error {
	results, err := c.SubmitBatch(cmd.Context(), specs)
	if err != nil {
		return err
	}
	refused := 0
	for i, r := range results {
		if r.GetProblem() != nil {
			refused++
			fmt.Fprintf(os.Stderr, "hodei: job %d was refused: %s\n", i+1, r.GetProblem().GetMessage())
			continue
		}
		if g.output == "json" {
			if err := json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"id": r.GetJobId()}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(cmd.OutOrStdout(), r.GetJobId())
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d jobs were refused", refused, len(results))
	}
	return nil
}
