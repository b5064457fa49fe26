// Package hodeitest runs a whole Hodei inside a test: the server with its embedded store, and an agent that runs real processes.
package hodeitest

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/agent"
	"github.com/hodei-jobs/hodei/agent/runner/procrunner"
	hodei "github.com/hodei-jobs/hodei/clients/go"
	"github.com/hodei-jobs/hodei/service"
)

// Server is a server that lives as long as its test, with one worker.
type Server struct {
	// Config is how its administrator reaches it. The files are in a folder of the test.
	Config hodei.Config
	// Client is that administrator's.
	Client *hodei.Client
}

// NewServer starts a server and an agent, which end with the test. It listens on a free port of the loopback interface.
func NewServer(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	s, err := service.New(t.Context(), service.Config{DataDir: filepath.Join(dir, "server"), Listen: "127.0.0.1:0", OpsListen: "-"})
	if err != nil {
		t.Fatalf("starting a server: %v", err)
	}
	background := context.WithoutCancel(t.Context())
	stopServer := goUntilStopped(background, s.Run)
	t.Cleanup(func() { report(t, "the server", stopServer()) })

	secret, pin, err := s.CreateAgentToken(t.Context(), time.Minute)
	if err != nil {
		t.Fatalf("making a token for the agent: %v", err)
	}
	// Control groups are the machine's, and a test should leave no trace there.
	runner := procrunner.New(procrunner.Options{NoCgroups: true, Instance: "hodeitest"})
	config := agent.Config{ServerURL: s.URL(), StateDir: filepath.Join(dir, "agent"), Name: "hodeitest", Token: secret, CAPin: pin, Runner: runner}
	stopAgent := goUntilStopped(background, func(ctx context.Context) error { return agent.Run(ctx, config) })
	t.Cleanup(func() { report(t, "the agent", stopAgent()) })

	files := s.AdminCredentials()
	own := &Server{Config: hodei.Config{URL: s.URL(), CA: files.CA, Cert: files.Certificate, Key: files.Key}}
	if own.Client, err = hodei.New(background, hodei.WithConfig(own.Config)); err != nil {
		t.Fatalf("making a client: %v", err)
	}
	t.Cleanup(own.Client.Close)
	return own
}

// goUntilStopped runs something in the background. What it returns stops that and waits for its end.
func goUntilStopped(ctx context.Context, run func(context.Context) error) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

func report(t testing.TB, what string, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("%s ended with: %v", what, err)
	}
}
