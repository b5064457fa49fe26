package job

// State is where a job stands.
type State uint8

// The states. Those from Succeeded on are terminal and never change.
const (
	Blocked   State = iota + 1 // waits for other jobs
	Delayed                    // waits for a time
	Queued                     // waits for a worker
	Assigned                   // has a worker, which has not started it
	Running                    // runs
	Canceling                  // is being stopped on request
	Succeeded                  // every step ended with exit code 0
	Failed                     // a step failed and no attempt is left
	Canceled                   // stopped on request
	TimedOut                   // stopped because its time was up
	Lost                       // its worker was lost
	Skipped                    // a job that it needs did not succeed
)

var stateNames = [...]string{
	"UNSPECIFIED", "BLOCKED", "DELAYED", "QUEUED", "ASSIGNED", "RUNNING", "CANCELING",
	"SUCCEEDED", "FAILED", "CANCELED", "TIMED_OUT", "LOST", "SKIPPED",
}

// String returns the state's name in capitals, as the API has it without its prefix.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "UNKNOWN"
}

// Valid reports whether s is one of the states.
func (s State) Valid() bool { return s >= Blocked && s <= Skipped }

// TerminalStates returns the states of jobs that have ended.
func TerminalStates() []State {
	var all []State
	for s := Succeeded; s.Valid(); s++ {
		all = append(all, s)
	}
	return all
}

// Terminal reports whether a job in this state has ended.
func (s State) Terminal() bool { return s >= Succeeded }

// OnWorker reports whether a job in this state holds a place on a worker.
func (s State) OnWorker() bool { return s == Assigned || s == Running || s == Canceling }

// Waiting reports whether a job in this state has not been given to a worker.
func (s State) Waiting() bool { return s == Blocked || s == Delayed || s == Queued }

// next is the law: which states may follow which. Every transition passes through it.
var next = [...][]State{
	Blocked:   {Queued, Delayed, Canceled, Skipped},
	Delayed:   {Queued, Canceled},
	Queued:    {Assigned, Canceled},
	Assigned:  {Running, Canceling, Delayed, Succeeded, Failed, Canceled, TimedOut, Lost},
	Running:   {Canceling, Delayed, Succeeded, Failed, Canceled, TimedOut, Lost},
	Canceling: {Succeeded, Failed, Canceled, TimedOut, Lost},
	Skipped:   nil,
}

// MayBecome reports whether a job in state s may go to state to.
func (s State) MayBecome(to State) bool {
	if !s.Valid() {
		return false
	}
	for _, n := range next[s] {
		if n == to {
			return true
		}
	}
	return false
}

// StepState is where a step stands.
type StepState uint8

// The states of a step. Those from StepSucceeded on are terminal.
const (
	StepPending StepState = iota + 1
	StepRunning
	StepSucceeded
	StepFailed
	StepCanceled
	StepTimedOut
	StepSkipped
)

var stepStateNames = [...]string{
	"UNSPECIFIED", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELED", "TIMED_OUT", "SKIPPED",
}

// String returns the state's name in capitals, as the API has it without its prefix.
func (s StepState) String() string {
	if int(s) < len(stepStateNames) {
		return stepStateNames[s]
	}
	return "UNKNOWN"
}

// Terminal reports whether a step in this state has ended.
func (s StepState) Terminal() bool { return s >= StepSucceeded }
