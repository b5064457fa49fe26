// Package runner is the port between the agent and what runs a step.
package runner

import (
	"fmt"
	"io"
	"time"
)

// Runner starts steps. Its methods may be called from several goroutines at once.
type Runner interface {
	// Start starts a step, and keeps no hold of the command. An error is a *StartError; then nothing runs.
	Start(*Command) (Process, error)
	// Recover ends what a former life of the agent has left behind.
	Recover() error
}

// Command is a step to run.
type Command struct {
	ID   string   // unique among the agent's steps, and safe as a file name
	Argv []string // the program and its arguments
	Env  []string // the whole environment, KEY=VALUE; its PATH finds the program
	Dir  string   // where it starts
	User *User    // nil: the agent's own
	// Prepare, when it is not nil, fills in what is costly to make: ID, Env, Dir, Stdout and Stderr. A runner that starts
	// nothing need not call it.
	Prepare          func(*Command) error
	Stdout, Stderr   io.Writer
	Terminal         *Terminal     // nil: none; standard input is empty, and the outputs are pipes
	Grace            time.Duration // between SIGTERM and SIGKILL
	MemoryLimitBytes int64         // 0: none
}

// User is the user that a step runs as. None of its processes has a privilege or can get one. All that the step is given to use
// becomes the user's: its outputs, its terminal.
type User struct {
	UID, GID uint32
	Groups   []uint32 // the supplementary ones
}

// Terminal is the pseudo-terminal of a step. It is the controlling terminal of the step's processes and their standard input,
// output and error. All that they write goes to Command.Stdout as a terminal has it, with "\r\n" for "\n"; Command.Stderr is not
// used. Nobody types: whoever reads is given the end of file, again and again, and a program that takes single keys gets a
// control-D now and then. What kind of terminal it is, TERM in Command.Env says.
type Terminal struct {
	Columns, Rows int // from 1 to 65535
}

// Process is a running step: its first process and everything that came of it.
type Process interface {
	// Wait returns when nothing of the step runs any more and all its output was written. It must be called once.
	Wait() Result
	// Stop ends the step: SIGTERM to all its processes and SIGKILL after the grace, or SIGKILL at once with force. It does
	// not wait, and may be called more than once and at any time.
	Stop(force bool)
	// Has reports whether a running process of the machine belongs to the step.
	Has(pid int) bool
}

// Result is how a step ended.
type Result struct {
	ExitCode  int
	Signal    string // "SIGKILL"; empty when the process exited by itself
	OOMKilled bool
	Usage     Usage
}

// Usage is what the step's processes used.
type Usage struct {
	UserCPU, SystemCPU time.Duration
	MaxRSSKiB          int64
}

// Exit codes of steps that could not be started, as shells have them.
const (
	ExitFailure       = 125 // of the agent or the machine
	ExitNotExecutable = 126
	ExitNotFound      = 127
)

// StartError says why a step could not be started.
type StartError struct {
	ExitCode int    // ExitFailure, ExitNotExecutable or ExitNotFound
	Invalid  bool   // the command is at fault, not the machine
	Message  string // what is wrong and what to do
}

// Error returns the message.
func (e *StartError) Error() string { return e.Message }

// Invalid makes the StartError of a command that is at fault.
func Invalid(exitCode int, format string, args ...any) *StartError {
	return &StartError{ExitCode: exitCode, Invalid: true, Message: fmt.Sprintf(format, args...)}
}
