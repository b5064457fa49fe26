package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hodei-jobs/hodei/service"
)

func newServer() *cobra.Command {
	var config service.Config
	var format, level string
	var reserveMiB int64
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a server",
		Long: `Server keeps jobs, gives them to workers and serves the API. The first start makes a certificate authority and an
administrator's certificate in DATA-DIR/tls; SIGTERM or Ctrl-C stops it in good order, and running jobs go on.`,
		Example: `hodei server --data-dir /var/lib/hodei --listen 0.0.0.0:7443 --host hodei.example.com
hodei --url https://hodei.example.com:7443 --ca ca.pem --cert admin.pem --key admin-key.pem token create`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if config.Logger, err = newLogger(format, level); err != nil {
				return err
			}
			config.Version = version
			config.DiskReserve = reserveMiB << 20
			config.SecretsKey = os.Getenv("HODEI_SECRETS_KEY") // no flag: it would be seen in the list of processes
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			tuneServerMemory()
			s, err := service.New(ctx, config)
			if err != nil {
				return err
			}
			return s.Run(ctx)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config.DataDir, "data-dir", defaultDataDir("server"), "folder for everything")
	flags.StringVar(&config.Listen, "listen", service.DefaultListen, "address of the API; port 0 for any")
	flags.StringVar(&config.OpsListen, "ops-listen", service.DefaultOpsListen, "address of metrics and health, for a trusted network only; - for none")
	flags.StringSliceVar(&config.Hosts, "host", nil, "further names or addresses of the server, for its certificate")
	flags.StringSliceVar(&config.CORSOrigins, "cors-origin", nil, "origin of pages that may call the API from a browser, https://HOST; may be repeated")
	flags.DurationVar(&config.Lease, "lease", 0, "how long a worker may be silent before its jobs count as lost (default 15s)")
	flags.StringVar(&config.Store, "store", service.EmbeddedStore, "where jobs are kept: pebble, in the data folder, or postgres://...")
	flags.DurationVar(&config.KeepEnded, "keep-ended", 0, "how long jobs and their logs are kept after their end (default 720h)")
	flags.IntVar(&config.Reservations, "reservations", 0,
		"promise so many jobs that find no room a start that others must not delay (default 1, at most 32)")
	flags.IntVar(&config.SampleAbove, "sample-above", 0,
		"with more workers than this a good one is enough for a job, and need not be the best (default 4096)")
	flags.IntVar(&config.MaxUnfinishedJobs, "max-unfinished-jobs", 0, "refuse submits beyond this many (default 1000000)")
	flags.Int64Var(&reserveMiB, "disk-reserve", 0,
		"MiB to keep free on the disk: below, new jobs and output wait (default 256, or a tenth of a small disk; -1 for none)")
	flags.DurationVar(&config.AgentCertificateLife, "agent-certificate-life", 0,
		"how long agents' certificates live; they renew themselves (default 24h)")
	flags.StringVar(&config.SecretsKeyFile, "secrets-key-file", "",
		"file with the key that encrypts secrets (default: DATA-DIR/secrets.key, made at the first start); or the key itself in HODEI_SECRETS_KEY")
	addLimitFlags(flags, &config.Limits)
	addAccessFlags(flags, &config)
	addLogFlags(cmd, &format, &level)
	return cmd
}

func addLogFlags(cmd *cobra.Command, format, level *string) {
	cmd.Flags().StringVar(format, "log-format", "text", "text or json")
	cmd.Flags().StringVar(level, "log-level", "info", "debug, info, warn or error")
}

func newLogger(format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level %q is not debug, info, warn or error", level)}
	}
	options := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format %q is not text or json", format)}
}

// defaultDataDir is where a part of Hodei keeps its data when nothing else is said.
func defaultDataDir(part string) string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "hodei", part)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join("hodei-data", part)
	}
	return filepath.Join(home, ".local", "share", "hodei", part)
}
