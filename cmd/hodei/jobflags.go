package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/durationpb"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// jobFlags describe a job of one command.
type jobFlags struct {
	name, namespace, queue, workingDir, envFile, memory string
	labels, env, secrets, secretFiles                   []string
	cpu                                                 float64
	timeout                                             time.Duration
	maxAttempts, priority                               int32
	tty                                                 bool
	place                                               placeFlags
}

func (f *jobFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the first argument belongs to the job
	flags.StringVar(&f.name, "name", "", "a name for people")
	flags.StringVar(&f.namespace, "namespace", "", "namespace of the job")
	flags.StringVar(&f.queue, "queue", "", "queue of the job")
	flags.StringArrayVar(&f.labels, "label", nil, "label of the job, KEY=VALUE; may be repeated")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "variable for the job, NAME=VALUE, or NAME to pass it on; may be repeated")
	flags.StringVar(&f.envFile, "env-file", "", "file with lines NAME=VALUE")
	flags.StringArrayVar(&f.secrets, "secret", nil,
		"secret of the namespace for the job, NAME, or VARIABLE=NAME for another variable; may be repeated")
	flags.StringArrayVar(&f.secretFiles, "secret-file", nil, "the same as a file, whose path is in the variable; may be repeated")
	flags.BoolVarP(&f.tty, "tty", "t", false, "run on a terminal, of the size of this one if there is one")
	flags.StringVarP(&f.workingDir, "working-dir", "w", "", "folder on the worker to start in (default: one made for the job)")
	flags.Float64Var(&f.cpu, "cpu", 0, "CPUs to reserve")
	flags.StringVar(&f.memory, "memory", "", "memory to reserve and to limit the job to, for example 512Mi")
	flags.DurationVar(&f.timeout, "timeout", 0, "end the job after this time (default 24h)")
	flags.Int32Var(&f.maxAttempts, "max-attempts", 0, "how often to start the job in all (default 1)")
	flags.Int32Var(&f.priority, "priority", 0, "jobs with a higher priority start first")
	f.place.add(flags)
}

// spec makes the spec of a job that runs argv.
func (f *jobFlags) spec(argv []string) (*hodeiv1.JobSpec, error) {
	if len(argv) == 0 {
		return nil, usageError{fmt.Errorf("no command was given; write it after --, for example: hodei run -- echo hello")}
	}
	spec := &hodeiv1.JobSpec{
		Name: f.name, Namespace: f.namespace, Queue: f.queue, Priority: f.priority, MaxAttempts: f.maxAttempts,
		Resources: &hodeiv1.Resources{MilliCpu: int32(math.Round(f.cpu * 1000))},
		Steps: []*hodeiv1.Step{{
			Action: &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: argv}}, WorkingDir: f.workingDir,
		}},
	}
	if f.timeout != 0 {
		spec.Timeout = durationpb.New(f.timeout)
	}
	var err error
	if f.memory != "" {
		if spec.Resources.MemoryMib, err = hodei.ParseMemoryMiB(f.memory); err != nil {
			return nil, usageError{err}
		}
	}
	if spec.Labels, err = pairs("--label", f.labels); err != nil {
		return nil, err
	}
	if spec.Env, err = f.environment(); err != nil {
		return nil, err
	}
	spec.Steps[0].Secrets = append(secretRefs(f.secrets, false), secretRefs(f.secretFiles, true)...)
	if f.tty {
		spec.Steps[0].Terminal = &hodeiv1.Terminal{}
		if columns, rows, err := term.GetSize(int(os.Stdout.Fd())); err == nil {
			spec.Steps[0].Terminal = &hodeiv1.Terminal{Columns: int32(columns), Rows: int32(rows)}
		}
	}
	return spec, f.place.apply(spec)
}

// secretRefs reads NAME and VARIABLE=NAME.
func secretRefs(list []string, file bool) []*hodeiv1.SecretRef {
	var refs []*hodeiv1.SecretRef
	for _, item := range list {
		variable, name, renamed := strings.Cut(item, "=")
		if !renamed {
			variable, name = "", item
		}
		refs = append(refs, &hodeiv1.SecretRef{Name: name, Env: variable, File: file})
	}
	return refs
}

func pairs(flag string, list []string) (map[string]string, error) {
	out := make(map[string]string, len(list))
	for _, item := range list {
		key, value, ok := strings.Cut(item, "=")
		if !ok || key == "" {
			return nil, usageError{fmt.Errorf("%s %q is not KEY=VALUE", flag, item)}
		}
		out[key] = value
	}
	return out, nil
}

func (f *jobFlags) environment() (map[string]string, error) {
	env := make(map[string]string)
	if f.envFile != "" {
		file, err := os.Open(f.envFile)
		if err != nil {
			return nil, fmt.Errorf("reading --env-file: %w", err)
		}
		defer file.Close() //nolint:errcheck // only read
		lines := bufio.NewScanner(file)
		for n := 1; lines.Scan(); n++ {
			line := strings.TrimSpace(lines.Text())
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			name, value, ok := strings.Cut(line, "=")
			if !ok {
				return nil, usageError{fmt.Errorf("%s line %d: %q is not NAME=VALUE", f.envFile, n, line)}
			}
			env[name] = value
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("reading --env-file: %w", err)
		}
	}
	for _, item := range f.env {
		name, value, ok := strings.Cut(item, "=")
		if !ok {
			if value, ok = os.LookupEnv(name); !ok {
				continue
			}
		}
		env[name] = value
	}
	return env, nil
}
