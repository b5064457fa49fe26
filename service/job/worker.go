package job

import "time"

// WorkerState is where a worker stands.
type WorkerState uint8

// The states of a worker.
const (
	WorkerReady        WorkerState = iota + 1 // connected, takes jobs
	WorkerDraining                            // takes no new jobs; those that it has go on
	WorkerDisconnected                        // its lease has not run out
	WorkerLost                                // did not come back in time
	WorkerSuspended                           // out of use for a while, because jobs failed there
)

// Worker is a machine with an agent, as the scheduler sees it. It has one owner, who changes it in place and hands out copies.
type Worker struct {
	ID            WorkerID
	Name          string
	Labels        map[string]string
	Taints        []string // it takes only jobs that tolerate all of them
	Capabilities  []string // what its agent can do that not all can
	Queues        []string // "namespace/queue" or "namespace/*": whose jobs alone it gets; empty: all
	Capacity      Resources
	Slots         int32 // how many attempts it runs at the same time
	AgentVersion  string
	BootID        string // of the agent's present life
	Session       uint64 // of its present or last connection, as the server counts them
	Dial          uint64 // the same as the agent counts them, which begins with the milliseconds since 1970 when it starts
	Connected     bool
	Draining      bool // on an operator's or the agent's wish
	Lost          bool
	ConnectedAt   time.Time
	LastHeartbeat time.Time
	Used          Resources // measured on the machine, not what is reserved
	Suspended     string    // why it is out of use, or gets one job at a time; like what follows only in copies that are handed out
	SuspendedTo   time.Time // when it is tried again; zero: it is not out of use
	Reserved      Resources // by the jobs that hold a place here; like Jobs only in copies that are handed out
	Jobs          []ID
}

// State returns where the worker stands.
func (w *Worker) State() WorkerState {
	switch {
	case w.Lost:
		return WorkerLost
	case !w.Connected:
		return WorkerDisconnected
	case w.Draining:
		return WorkerDraining
	case !w.SuspendedTo.IsZero():
		return WorkerSuspended
	default:
		return WorkerReady
	}
}
