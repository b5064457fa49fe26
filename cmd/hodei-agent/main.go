// Command hodei-agent runs jobs on this machine for a Hodei server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/hodei-jobs/hodei/agent"
)

// version is set by the linker.
var version = "dev" //nolint:gochecknoglobals // the linker needs a variable

const usage = `hodei-agent runs jobs on this machine for a Hodei server.

Usage:
  hodei-agent --server https://HOST:7443 --ca-pin sha256:... --token-file FILE   the first time; ` + "`hodei token create`" + ` prints it
  hodei-agent --server https://HOST:7443                                         afterwards
  hodei-agent mask add [--name NAME] < FILE                                      inside a job: mask a further secret in its output
  hodei-agent progress FRACTION [MESSAGE]                                        inside a job: say how far it is, from 0 to 1

Every flag can be set by a variable: HODEI_AGENT_ and its name, for example HODEI_AGENT_STATE_DIR.

Signals: the first SIGTERM or Ctrl-C takes no new jobs and waits for those that run, the second ends them.

Flags:
`

// gcPercent lets the heap grow further than usual before it is collected: it is small, and short jobs make much garbage.
const gcPercent = 400

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hodei-agent:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "mask" {
		return maskAdd(args[1:])
	}
	if len(args) > 0 && args[0] == "progress" {
		return progress(args[1:])
	}
	config := agent.Config{Version: version, Labels: map[string]string{}}
	flags := flag.NewFlagSet("hodei-agent", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	flags.StringVar(&config.ServerURL, "server", "", "address of the server's API")
	flags.StringVar(&config.StateDir, "state-dir", defaultStateDir(), "folder for the agent's identity and what waits to be sent")
	flags.StringVar(&config.Token, "token", "", "enrolment token, for the first start; seen in the list of processes, so better --token-file")
	tokenFile := flags.String("token-file", "", "file with the enrolment token; - for the standard input")
	flags.StringVar(&config.CAPin, "ca-pin", "", "hash of the server's CA, for the first start")
	flags.StringVar(&config.Name, "name", "", "name of the worker (default: the host's name)")
	flags.Func("label", "label for constraints, KEY=VALUE; may be repeated", func(s string) error {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return fmt.Errorf("%q is not KEY=VALUE", s)
		}
		config.Labels[key] = value
		return nil
	})
	flags.Func("taint", "take only jobs that tolerate it, NAME; may be repeated", func(s string) error {
		config.Taints = append(config.Taints, strings.Split(s, ",")...)
		return nil
	})
	flags.StringVar(&config.RunAs, "run-as", "", "run jobs as another user: a name, a UID, or a range of UIDs, one for each job: 200000-200063")
	extras := map[string]int32{}
	flags.Func("extra", "named extra for jobs, for example gpu=2; may be repeated", func(s string) error { return readExtras(extras, s) })
	cpus := flags.Float64("cpus", 0, "CPUs for jobs (default: all)")
	memory := flags.Int("memory-mib", 0, "memory for jobs in MiB (default: all)")
	spool := flags.Int64("spool-limit-mib", 0, "output of a job that may wait on the disk in MiB; then the job waits (default: 1024)")
	slots := flags.Int("slots", 0, "jobs at the same time (default: 4 for each CPU, at least 32)")
	format := flags.String("log-format", "text", "text or json")
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := parse(flags, args); err != nil {
		if err == flag.ErrHelp { //nolint:errorlint // returned as it is
			return nil
		}
		return err
	}
	if *showVersion {
		fmt.Println("hodei-agent", version, runtime.GOOS+"/"+runtime.GOARCH)
		return nil
	}
	config.Capacity = agent.Capacity{MilliCPU: int32(*cpus * 1000), MemoryMiB: int32(*memory), Extras: extras, Slots: int32(*slots)}
	config.SpoolLimitBytes = *spool << 20
	if *tokenFile != "" {
		var err error
		if config.Token, err = agent.ReadToken(*tokenFile, os.Stdin); err != nil {
			return err
		}
	}
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if *format == "json" {
		config.Logger = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	}
	return serve(config)
}

// readExtras reads NAME=NUMBER, several with commas between them.
func readExtras(extras map[string]int32, text string) error {
	for item := range strings.SplitSeq(text, ",") {
		name, amount, _ := strings.Cut(item, "=")
		n, err := strconv.ParseInt(amount, 10, 32)
		if err != nil {
			return fmt.Errorf("%q is not NAME=NUMBER", item)
		}
		extras[name] = int32(n)
	}
	return nil
}

// maskAdd has what it reads masked in the output of the job that calls it.
func maskAdd(args []string) error {
	flags := flag.NewFlagSet("hodei-agent mask add", flag.ContinueOnError)
	name := flags.String("name", "", "name under which replacements are counted (default: added)")
	if len(args) == 0 || args[0] != "add" {
		return errors.New("expected: hodei-agent mask add [--name NAME], with the secret on the standard input")
	}
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("give the secret on the standard input; arguments can be seen in the list of processes")
	}
	warnings, err := agent.AddMask(context.Background(), *name, os.Stdin)
	for _, warning := range warnings {
		fmt.Fprintln(os.Stderr, "hodei-agent:", warning)
	}
	return err
}

// progress says how far the job that calls it is.
func progress(args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return errors.New("expected: hodei-agent progress FRACTION [MESSAGE]")
	}
	fraction, err := strconv.ParseFloat(args[0], 64)
	if err != nil {
		return fmt.Errorf("%q is not a fraction like 0.25", args[0])
	}
	message := ""
	if len(args) == 2 {
		message = args[1]
	}
	return agent.SetProgress(context.Background(), fraction, message)
}

// parse reads the flags, and for those that are not given their variables.
func parse(flags *flag.FlagSet, args []string) error {
	var problem error
	flags.VisitAll(func(f *flag.Flag) {
		name := "HODEI_AGENT_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if value, ok := os.LookupEnv(name); ok {
			if err := f.Value.Set(value); err != nil {
				problem = fmt.Errorf("%s: %w", name, err)
			}
		}
	})
	if problem != nil {
		return problem
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; see --help", flags.Arg(0))
	}
	return nil
}

func defaultStateDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "hodei-agent")
	}
	if os.Geteuid() == 0 {
		return "/var/lib/hodei-agent"
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "hodei-agent")
	}
	return "hodei-agent-state"
}

func serve(config agent.Config) error {
	drain := make(chan struct{})
	config.Drain = drain
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		close(drain)
		<-signals
		stop()
	}()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	return agent.Run(ctx, config)
}
