package job

import (
	"cmp"
	"slices"
	"time"
)

// Limits bound what the running jobs of a queue or of a namespace hold together. 0: any amount.
type Limits struct {
	Running         int32 // jobs
	MilliCPU        int32 // thousandths of a CPU
	MemoryMiB       int32
	StartsPerMinute int32
}

// Queue is where the jobs of a namespace wait: it says which part of the workers they get, and when. A job may name a queue that
// nobody has made; it has the settings of DefaultQueueSettings.
type Queue struct {
	Namespace, Name string
	Parent          string        // a queue of the namespace, whose part this one gets a part of; empty: none
	Weight          int32         // how large its part is, beside those of its neighbours
	Band            int32         // a queue with a higher band goes before its neighbours, whatever their parts
	Limits          Limits        // with those of its children
	Paused          bool          // none of its jobs, and of its children's, starts
	Ageing          time.Duration // for so long a job waits until it is as urgent as a newer one whose priority is higher by 1
	Scoring         Scoring
	Preempts        bool // its jobs may take the place of less urgent ones
	Preemptible     bool // its jobs may lose their place to more urgent ones
	AwaitsWorkers   bool // it takes jobs that are too large for every worker there is
}

// Scoring says how a worker is chosen among those that can take a job. A weight of 100 is as much as the whole difference between
// a worker that is packed best and one that is packed worst.
type Scoring struct {
	Spread   bool  // the emptiest worker rather than the fullest one
	Load     int32 // against load that is measured on the machine and not explained by what is reserved
	Affinity int32 // for what jobs like
	Price    int32 // against a high number in the worker's label PriceLabel
}

// PriceLabel is the worker's label that says what it costs, for example per hour; a number.
const PriceLabel = "price"

// Defaults of a Queue.
const (
	DefaultWeight = 1
	DefaultAgeing = time.Hour
)

// DefaultScoring is how workers are chosen unless a queue says otherwise.
var DefaultScoring = Scoring{Load: 200, Affinity: 100, Price: 0}

// Limits of the settings.
const (
	maxWeight = 1_000_000
	maxBand   = 1000
	maxAgeing = 365 * 24 * time.Hour
)

// DefaultQueueSettings returns a queue as it is until somebody changes it.
func DefaultQueueSettings(namespace, name string) Queue {
	return Queue{Namespace: namespace, Name: name, Weight: DefaultWeight, Ageing: DefaultAgeing, Scoring: DefaultScoring}
}

// Validate returns what is wrong with the settings, a *Error with CodeInvalid, or nil. Whether its parent is there is not looked at.
func (q *Queue) Validate() error {
	switch {
	case !isDNSLabel(q.Namespace):
		return invalid("namespace: %q; "+dnsLabel, q.Namespace)
	case !isDNSLabel(q.Name):
		return invalid("name: %q; "+dnsLabel, q.Name)
	case q.Parent != "" && !isDNSLabel(q.Parent):
		return invalid("parent: %q; "+dnsLabel, q.Parent)
	case q.Parent == q.Name:
		return invalid("parent: queue %q cannot be its own parent", q.Name)
	case q.Band < -maxBand || q.Band > maxBand:
		return invalid("band: %d; it must be from -%d to %d", q.Band, maxBand, maxBand)
	case q.Ageing < 0 || q.Ageing > maxAgeing:
		return invalid("ageing: %v; it must not be negative, and at most %v", q.Ageing, maxAgeing)
	}
	s := &q.Scoring
	if slices.ContainsFunc([]int32{s.Load, s.Affinity, s.Price}, func(w int32) bool { return w < 0 || w > 10_000 }) {
		return invalid("scoring: weights must be from 0 to 10000")
	}
	return cmp.Or(validateWeight(q.Weight), q.Limits.validate())
}

// Namespace is a tenant: its queues get a part of the workers together.
type Namespace struct {
	Name         string
	Weight       int32 // how large its part is, beside those of the other namespaces
	Limits       Limits
	DefaultQueue string `json:",omitempty"` // where its jobs wait that name no queue; empty: in DefaultQueue
}

// DefaultNamespaceSettings returns a namespace as it is until somebody changes it.
func DefaultNamespaceSettings(name string) Namespace {
	return Namespace{Name: name, Weight: DefaultWeight}
}

// Validate returns what is wrong with the settings, a *Error with CodeInvalid, or nil.
func (n *Namespace) Validate() error {
	if n.DefaultQueue != "" && !isDNSLabel(n.DefaultQueue) {
		return invalid("default queue: %q; "+dnsLabel, n.DefaultQueue)
	}
	return cmp.Or(CheckNamespace(n.Name), validateWeight(n.Weight), n.Limits.validate())
}

func validateWeight(weight int32) error {
	if weight < 1 || weight > maxWeight {
		return invalid("weight: %d; it must be from 1 to %d; to let nothing start, pause the queue", weight, maxWeight)
	}
	return nil
}

func (l *Limits) validate() error {
	if l.Running < 0 || l.MilliCPU < 0 || l.MemoryMiB < 0 || l.StartsPerMinute < 0 {
		return invalid("limits: none may be negative; 0 means any amount")
	}
	return nil
}

// CheckParents returns what is wrong with the parents of the queues of a namespace, a *Error with CodeInvalid, or nil: one is not
// there, or a queue would be among its own children.
func CheckParents(queues []Queue) error {
	parents := make(map[string]string, len(queues))
	for i := range queues {
		parents[queues[i].Name] = queues[i].Parent
	}
	for i := range queues {
		name := queues[i].Name
		for at, steps := queues[i].Parent, 0; at != ""; at, steps = parents[at], steps+1 {
			if _, ok := parents[at]; !ok {
				return invalid("parent: queue %q is to be under %q, which is not there; make that one first", name, at)
			}
			if at == name || steps > len(queues) {
				return invalid("parent: queue %q would be under itself; choose another parent", name)
			}
		}
	}
	return nil
}
