package job

import (
	"slices"
	"strings"
	"time"
)

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
	Jobs          []HeldJob // in no order
}

// HeldJob is a job that holds a place on a worker.
type HeldJob struct {
	ID        ID
	Namespace string
}

// AnyQueue stands for all queues of a namespace among the Queues of a Worker.
const AnyQueue = "*"

// Serves reports whether the worker may get jobs of a queue. What serves a queue does not serve the queues under it.
func (w *Worker) Serves(namespace, queue string) bool {
	return len(w.Queues) == 0 || slices.ContainsFunc(w.Queues, func(scope string) bool {
		of, name, _ := strings.Cut(scope, "/")
		return of == namespace && (name == queue || name == AnyQueue)
	})
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
