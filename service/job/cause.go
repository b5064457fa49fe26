package job

import "time"

// CauseKind is the kind of an end.
type CauseKind uint8

// The kinds, in the order of the API.
const (
	CauseExitCode CauseKind = iota + 1
	CauseSignal
	CauseOutOfMemory
	CauseTimeout
	CauseCanceled
	CausePreempted
	CauseWorkerLost
	CauseDependencyFailed
	CauseInvalid
	CauseAgentError
)

var causeNames = [...]string{
	"unspecified", "exit_code", "signal", "out_of_memory", "timeout", "canceled", "preempted",
	"worker_lost", "dependency_failed", "invalid", "agent_error",
}

// String returns the kind in lower case, as metrics have it.
func (k CauseKind) String() string {
	if int(k) < len(causeNames) {
		return causeNames[k]
	}
	return "unknown"
}

// Cause says why a job or a step ended, with the evidence.
type Cause struct {
	Kind     CauseKind
	ExitCode int32
	Signal   string
	Step     string // the step that decided a job's end
	Message  string
	Actor    string // who asked, for a cancel
}

// state returns the terminal state of a job that ended for this cause.
func (c Cause) state() State {
	switch c.Kind {
	case CauseExitCode:
		if c.ExitCode == 0 {
			return Succeeded
		}
		return Failed
	case CauseCanceled:
		return Canceled
	case CauseTimeout:
		return TimedOut
	case CauseWorkerLost:
		return Lost
	default:
		return Failed
	}
}

// StepState returns the terminal state of a step that ended for this cause.
func (c Cause) StepState() StepState {
	switch c.state() {
	case Succeeded:
		return StepSucceeded
	case Canceled:
		return StepCanceled
	case TimedOut:
		return StepTimedOut
	default:
		return StepFailed
	}
}

// Usage is what a step's processes used.
type Usage struct {
	UserCPU   time.Duration
	SystemCPU time.Duration
	MaxRSSKiB int32
}

// StepStatus is what became of one step in one attempt.
type StepStatus struct {
	State   StepState
	Cause   Cause
	Started time.Time
	Ended   time.Time
	Usage   Usage
	// CancelRequested is set while somebody wants this step, and not the whole job, to end.
	CancelRequested bool
}
