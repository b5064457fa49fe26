package main

import (
	"fmt"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

const exitCodesText = `hodei run and hodei wait exit with the job's code:
  0        every step ended with exit code 0
  1..      the exit code of the step that failed
  128+N    the step was ended by signal N
  124      the job's or a step's time limit was reached
  125      Hodei failed: no server, the worker was lost, a working directory that does not exist
  126      the command is not executable
  127      the command was not found
  130      the job was canceled
  141      nobody read the output any more, and the job was canceled

The other commands:
  0        done
  1        the request failed
  2        the command line makes no sense
  4        the server does not let you
  124      hodei wait: --timeout was reached
  130      left with Ctrl-C; the job goes on`

func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use: "exit-codes", Short: "What hodei's exit codes mean", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), exitCodesText)
			return err
		},
	}
}

// jobExit turns the end of a job into an exit code, and into a line for people where the output does not tell.
func jobExit(job *hodeiv1.Job, interrupted bool) error {
	cause := job.GetCause()
	message := ""
	if cause.GetMessage() != "" {
		message = fmt.Sprintf("job %s: %s", job.GetId(), cause.GetMessage())
	}
	switch cause.GetKind() {
	case hodeiv1.CauseKind_CAUSE_KIND_EXIT_CODE:
		if cause.GetExitCode() == 0 {
			return nil
		}
		return &exitError{int(cause.GetExitCode()), ""}
	case hodeiv1.CauseKind_CAUSE_KIND_SIGNAL, hodeiv1.CauseKind_CAUSE_KIND_OUT_OF_MEMORY:
		return &exitError{128 + int(signalNumber(cause.GetSignal())), message}
	case hodeiv1.CauseKind_CAUSE_KIND_TIMEOUT:
		return &exitError{exitTimeout, message}
	case hodeiv1.CauseKind_CAUSE_KIND_CANCELED:
		if interrupted {
			message = ""
		}
		return &exitError{exitInterrupted, message}
	case hodeiv1.CauseKind_CAUSE_KIND_INVALID:
		return &exitError{int(cause.GetExitCode()), message}
	}
	return &exitError{exitOwnFailure, message}
}

func signalNumber(name string) syscall.Signal {
	if n := unix.SignalNum(name); n != 0 {
		return n
	}
	return syscall.SIGKILL
}
