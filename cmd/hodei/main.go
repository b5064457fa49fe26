// Command hodei is Hodei Jobs: the command line, the server and the agent in one program.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

// version is set by the linker.
var version = "dev" //nolint:gochecknoglobals // the linker needs a variable

// Exit codes of the command line itself. `run` and `wait` exit with the job's own code.
const (
	exitFailure        = 1
	exitUsage          = 2
	exitAuthentication = 4
	exitTimeout        = 124
	exitOwnFailure     = 125 // of `run` and `wait`: Hodei failed, not the job
	exitInterrupted    = 130
)

func main() {
	os.Exit(execute(context.Background(), os.Args[1:]))
}

// exitError ends the program with a code. An empty message prints nothing.
type exitError struct {
	code    int
	message string
}

func (e *exitError) Error() string { return e.message }

// execute runs the command line and returns the exit code.
func execute(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := fang.Execute(ctx, root,
		fang.WithVersion(version),
		fang.WithoutManpage(),
		fang.WithErrorHandler(func(_ io.Writer, _ fang.Styles, err error) { printError(err) }),
	)
	return codeOf(err)
}

func printError(err error) {
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, "hodei:", text)
	}
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func codeOf(err error) int {
	var exit *exitError
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	case errors.Is(err, hodei.ErrUnauthenticated), errors.Is(err, hodei.ErrPermissionDenied):
		return exitAuthentication
	}
	return exitFailure
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "hodei",
		Short: "Run any command on a fleet of machines and see what happens while it happens",
		Long: `Hodei Jobs runs any command, script or pipeline on a fleet of machines and shows what happens while it happens.

Every flag can be set by a variable: HODEI_ and its name in capitals, HODEI_WORKING_DIR for --working-dir.`,
		Example: `hodei dev &                       # a server and a worker on this machine
hodei run -- echo hello           # run a command on a worker, with its output and exit code
hodei submit -- make test         # do not wait
hodei logs -f ID                  # follow from the first byte on`,
		SilenceUsage:  true,
		SilenceErrors: true,
		// Variables stand in for flags that are not given.
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return bindEnvironment(cmd) },
	}
	g := &global{}
	flags := root.PersistentFlags()
	flags.StringVar(&g.config.Context, "context", "", "context to use (HODEI_CONTEXT)")
	flags.StringVar(&g.config.URL, "url", "", "address of the server (HODEI_URL)")
	flags.StringVar(&g.config.CA, "ca", "", "file with the server's CA (HODEI_CA)")
	flags.StringVar(&g.config.CAPin, "ca-pin", "", "hash of the server's CA, instead of --ca: sha256:... (HODEI_CA_PIN)")
	flags.StringVar(&g.config.Cert, "cert", "", "file with the client certificate (HODEI_CERT)")
	flags.StringVar(&g.config.Key, "key", "", "file with the client certificate's key (HODEI_KEY)")
	flags.StringVarP(&g.output, "output", "o", "table", "output format: table, json or yaml (HODEI_OUTPUT)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newRun(g), newSubmit(g), newLogs(g), newWait(g), newCancel(g), newExplain(g), newJob(g), newWorker(g),
		newQueue(g), newNamespace(g), withAPITokens(g, newToken(g)), newSecret(g), newAdmin(g),
		newLogin(g), newLogout(g), newAuth(g), newConfig(g), newContext(g),
		newServer(), newAgent(), newDev(), newDemo(), newBench(), newSched(), newVersion(g), newExitCodes(),
	)
	reflow(root)
	return root
}

// reflow makes each paragraph of the descriptions one line, which the help then breaks to the terminal's width.
func reflow(cmd *cobra.Command) {
	paragraphs := strings.Split(cmd.Long, "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = strings.Join(strings.Fields(p), " ")
	}
	cmd.Long = strings.Join(paragraphs, "\n\n")
	for _, child := range cmd.Commands() {
		reflow(child)
	}
}

// bindEnvironment sets every flag that was not given from HODEI_ and its name, if there is such a variable.
func bindEnvironment(cmd *cobra.Command) error {
	var problem error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "HODEI_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, ok := os.LookupEnv(name)
		if f.Changed || !ok || f.Name == "help" || f.Name == "version" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil && problem == nil {
			problem = usageError{fmt.Errorf("%s: %w", name, err)}
		}
	})
	return problem
}

// global is what all commands share.
type global struct {
	config hodei.Config
	output string
}

// client connects as the flags, the variables and the contexts say.
func (g *global) client(ctx context.Context) (*hodei.Client, error) {
	config, err := hodei.ResolveConfig(g.config)
	if err != nil {
		return nil, err
	}
	return hodei.New(ctx, hodei.WithConfig(config))
}

// withClient wraps the body of a command that talks to the server.
func (g *global) withClient(body func(cmd *cobra.Command, args []string, c *hodei.Client) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := g.client(cmd.Context())
		if err != nil {
			return err
		}
		defer c.Close()
		return body(cmd, args, c)
	}
}
