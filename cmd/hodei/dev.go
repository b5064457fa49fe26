package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/hodei-jobs/hodei/agent"
	hodei "github.com/hodei-jobs/hodei/clients/go"
	"github.com/hodei-jobs/hodei/service"
)

// devContext is the context that `hodei dev` writes.
const devContext = "dev"

func newDev() *cobra.Command {
	var config service.Config
	var format, level string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a server and a worker on this machine, in one process",
		Long: `Dev is the shortest way to a working Hodei: a server with its embedded store, and an agent that runs jobs on this machine.
It writes the context "dev" and makes it the current one, so that other commands find it. What it stores stays for the next
time. Ctrl-C stops both, and all jobs.`,
		Example: "hodei dev &\nhodei run -- echo hello",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if config.Logger, err = newLogger(format, level); err != nil {
				return err
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return runLocal(ctx, config, func(s *service.Server) error {
				if err := writeDevContext(s); err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, `
Hodei runs at %s (metrics: %s/metrics). Try in another terminal:

  hodei run -- echo hello
  hodei run -- sh -c 'for i in 1 2 3; do echo $i; sleep 1; done'
  hodei job list

Ctrl-C stops everything.

`, s.URL(), s.OpsURL())
				<-ctx.Done()
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&config.DataDir, "data-dir", defaultDataDir("dev"), "folder for everything")
	cmd.Flags().StringVar(&config.Listen, "listen", service.DefaultListen, "address of the API; port 0 for any")
	cmd.Flags().StringVar(&config.OpsListen, "ops-listen", "127.0.0.1:0", "address of metrics and health; - for none")
	addLogFlags(cmd, &format, &level)
	cmd.Flags().Lookup("log-level").DefValue = "warn"
	level = "warn"
	return cmd
}

// runLocal runs a server and an agent until body returns or one of them fails.
func runLocal(ctx context.Context, config service.Config, body func(*service.Server) error) error {
	config.Version = version
	s, err := service.New(ctx, config)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
	agentCtx, stopAgent := context.WithCancel(ctx)
	defer stopAgent()
	group.Go(func() error { return s.Run(serverCtx) })
	group.Go(func() error {
		defer stopServer() // after the agent, so that its last reports arrive
		return runLocalAgent(agentCtx, s, config)
	})
	group.Go(func() error {
		defer stopAgent()
		return body(s)
	})
	return group.Wait()
}

func runLocalAgent(ctx context.Context, s *service.Server, config service.Config) error {
	agentConfig := agent.Config{
		ServerURL: s.URL(), StateDir: filepath.Join(config.DataDir, "agent"), Logger: config.Logger, Version: version,
	}
	// A token costs nothing, and the agent uses it only when it has no identity that is still good.
	var err error
	if agentConfig.Token, agentConfig.CAPin, err = s.CreateAgentToken(ctx, time.Minute); err != nil {
		return err
	}
	return agent.Run(ctx, agentConfig)
}

func writeDevContext(s *service.Server) error {
	file, err := hodei.LoadConfigFile()
	if err != nil {
		return err
	}
	config, err := localConfig(s)
	if err != nil {
		return err
	}
	if file.Current != "" && file.Current != devContext {
		fmt.Fprintf(os.Stderr, "hodei: the current context was %q; go back to it with `hodei context use %s`\n", file.Current, file.Current)
	}
	file.Contexts[devContext] = config
	file.Current = devContext
	return file.Save()
}

// localConfig is how to reach a server of this process as its administrator.
func localConfig(s *service.Server) (hodei.Config, error) {
	files := s.AdminCredentials()
	config := hodei.Config{URL: s.URL(), CA: files.CA, Cert: files.Certificate, Key: files.Key}
	var problems []error
	for _, path := range []*string{&config.CA, &config.Cert, &config.Key} {
		absolute, err := filepath.Abs(*path)
		*path = absolute
		problems = append(problems, err)
	}
	return config, errors.Join(problems...)
}
