package simulator

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Result is what was measured. Times are in seconds.
type Result struct {
	Jobs         int `json:"jobs"`          // of the workload
	Ended        int `json:"ended"`         // did their work
	TooLarge     int `json:"too_large"`     // for every worker, so they were left out
	NeverStarted int `json:"never_started"` // because a limit keeps them for ever
	Placements   int `json:"placements"`
	Passes       int `json:"passes"`

	// Utilisation is the part of all CPUs that ran jobs, from the first submit to the last start. What comes after that has
	// nothing more to do with decisions.
	Utilisation float64       `json:"utilisation"`
	Makespan    float64       `json:"makespan_seconds"` // from the first submit to the last end
	Wait        Distribution  `json:"wait_seconds"`     // from submit to the start of the turn that did the work
	Slowdown    Distribution  `json:"bounded_slowdown"` // of the runtime by the wait; runtimes below 10 seconds count as 10
	Classes     []ClassResult `json:"classes"`

	// BackfilledShare is the part of placements that left a job waiting which was submitted earlier to the same queue.
	BackfilledShare float64 `json:"backfilled_share"`
	// Late is how many jobs started later than they were promised; nil: nobody looked.
	Late           *int      `json:"late,omitempty"`
	Preempted      int       `json:"preempted"`
	LostCPUSeconds float64   `json:"lost_cpu_seconds"` // of preempted jobs, which began again
	Fairness       *Fairness `json:"fairness,omitempty"`
}

// Distribution sums up many values.
type Distribution struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
}

// ClassResult is what jobs of a class got.
type ClassResult struct {
	Class string       `json:"class"`
	Jobs  int          `json:"jobs"`
	Wait  Distribution `json:"wait_seconds"`
}

// Fairness is what namespaces got beside each other while all of them had jobs waiting.
type Fairness struct {
	Seconds    float64          `json:"seconds"` // for how long all had
	Namespaces []NamespaceShare `json:"namespaces"`
	Jain       float64          `json:"jain_index"`        // of what they got for their weights: 1 is perfectly fair
	Deviation  float64          `json:"largest_deviation"` // of a share from that of the weight, as a part of it
}

// NamespaceShare is what one namespace got.
type NamespaceShare struct {
	Namespace  string  `json:"namespace"`
	Weight     float64 `json:"weight"`
	CPUSeconds float64 `json:"cpu_seconds"`
	Share      float64 `json:"share"`        // of what all got
	Due        float64 `json:"weight_share"` // of all weights
}

// shortest is the runtime below which a slowdown says little about what people feel.
const shortest = 10 * time.Second

func (l *ledger) result() *Result {
	r := &Result{
		Jobs: len(l.jobs), Ended: len(l.finished), TooLarge: l.tooLarge, NeverStarted: l.neverStarted, Placements: l.placements,
		Passes: l.passes, Makespan: max(l.last-l.first, 0).Seconds(), Preempted: l.preempted, LostCPUSeconds: l.lostWork / 1000,
		Fairness: l.fairness(),
	}
	if window := (l.lastStart - l.first).Seconds(); window > 0 {
		r.Utilisation = l.beforeLast / (l.capacity * window)
	}
	if l.placements > 0 {
		r.BackfilledShare = float64(l.backfilled) / float64(l.placements)
	}
	if l.promising {
		r.Late = &l.late
	}
	var waits, slowdowns []float64
	classes := make(map[string][]float64)
	for _, f := range l.finished {
		j := &l.jobs[f.job]
		waits = append(waits, f.wait.Seconds())
		slowdowns = append(slowdowns, max(1, (f.wait+j.Runtime).Seconds()/max(j.Runtime, shortest).Seconds()))
		classes[l.classOf(j)] = append(classes[l.classOf(j)], f.wait.Seconds())
	}
	r.Wait, r.Slowdown = distributionOf(waits), distributionOf(slowdowns)
	for class, list := range classes {
		r.Classes = append(r.Classes, ClassResult{class, len(list), distributionOf(list)})
	}
	slices.SortFunc(r.Classes, func(a, b ClassResult) int { return cmp.Compare(a.Class, b.Class) })
	return r
}

// distributionOf sorts the values.
func distributionOf(values []float64) Distribution {
	if len(values) == 0 {
		return Distribution{}
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	slices.Sort(values)
	return Distribution{Mean: sum / float64(len(values)), P50: quantile(values, 0.50), P95: quantile(values, 0.95)}
}

// quantile returns the smallest of sorted values that at least a part of them does not exceed.
func quantile(sorted []float64, part float64) float64 {
	return sorted[max(int(math.Ceil(part*float64(len(sorted))))-1, 0)]
}

// fairness is nil when there is nobody to be fair between, or never was a reason.
func (l *ledger) fairness() *Fairness {
	if len(l.tenants) < 2 || l.shared == 0 {
		return nil
	}
	f := &Fairness{Seconds: l.shared}
	var weights, received, sum, squares float64
	for _, t := range l.tenants {
		weights += t.weight
		received += t.received
		sum += t.received / t.weight
		squares += t.received / t.weight * t.received / t.weight
	}
	if received == 0 {
		return nil
	}
	f.Jain = sum * sum / (float64(len(l.tenants)) * squares)
	for _, t := range l.tenants {
		n := NamespaceShare{t.name, t.weight, t.received / 1000, t.received / received, t.weight / weights}
		f.Namespaces = append(f.Namespaces, n)
		f.Deviation = max(f.Deviation, math.Abs(n.Share/n.Due-1))
	}
	return f
}
