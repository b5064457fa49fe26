//go:build !linux

// Package procrunner runs steps as processes of the machine. It needs Linux to find all of a step's processes again.
package procrunner

import (
	"log/slog"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// Options tune a Runner.
type Options struct {
	Logger    *slog.Logger
	Instance  string
	NoCgroups bool
	Owns      func(uid uint32) bool
}

// Runner refuses to run anything, because on this system it could not promise to end what it started.
type Runner struct{}

// New makes a Runner.
func New(Options) *Runner { return &Runner{} }

// Mode says how processes are found.
func (*Runner) Mode() string { return "none" }

// Recover implements runner.Runner.
func (*Runner) Recover() error { return nil }

// Start implements runner.Runner.
func (*Runner) Start(*runner.Command) (runner.Process, error) {
	return nil, &runner.StartError{ExitCode: runner.ExitFailure, Message: "this system cannot run steps; use a Linux machine as a worker"}
}
