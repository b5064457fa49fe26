package scheduler

import (
	"container/list"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Usage is what one run of a job took.
type Usage struct {
	Ran       time.Duration
	MilliCPU  int32 // thousandths of a CPU, on average
	MemoryMiB int32 // at most
}

// Prediction is what the latest runs of a family, the jobs of a namespace with the same name, have taken.
type Prediction struct {
	Runs        int // as many as are remembered
	Median      Usage
	Most        Usage // what nine of ten did not exceed
	longestEver time.Duration
}

// history remembers the latest runs of the families that were seen last. It is small, and it follows what changes.
type history struct {
	families map[familyName]*list.Element
	latest   list.List // the family that was seen last first
}

type familyName struct{ namespace, name string }

// runs is the latest runs of a family, in a circle.
type runs struct {
	family familyName
	list   [runsKept]Usage
	count  int
}

const (
	runsKept     = 32
	familiesKept = 10_000
	runsNeeded   = 3 // before they say something about the next one
)

// Learn takes in a run of a job that succeeded. Jobs without a name have nothing in common, and are left out.
func (s *Scheduler) Learn(spec *job.Spec, u Usage) {
	if spec.Name == "" || u.Ran <= 0 {
		return
	}
	h, key := &s.history, familyName{spec.Namespace, spec.Name}
	e := h.families[key]
	if e == nil {
		e = h.latest.PushFront(&runs{family: key})
		h.families[key] = e
		if h.latest.Len() > familiesKept {
			if oldest, ok := h.latest.Remove(h.latest.Back()).(*runs); ok {
				delete(h.families, oldest.family)
			}
		}
	}
	h.latest.MoveToFront(e)
	if r, ok := e.Value.(*runs); ok {
		r.list[r.count%runsKept] = u
		r.count++
	}
}

// Predict says what the jobs of a spec's name have taken; false when too few have run.
func (s *Scheduler) Predict(spec *job.Spec) (Prediction, bool) {
	e := s.history.families[familyName{spec.Namespace, spec.Name}]
	if e == nil {
		return Prediction{}, false
	}
	r, ok := e.Value.(*runs)
	if !ok || r.count < runsNeeded {
		return Prediction{}, false
	}
	n := min(r.count, runsKept)
	quantile := func(value func(*Usage) int64, q float64) int64 {
		values := make([]int64, n)
		for i := range values {
			values[i] = value(&r.list[i])
		}
		slices.Sort(values)
		return values[int(q*float64(n-1)+0.5)]
	}
	usage := func(q float64) Usage {
		return Usage{
			Ran:       time.Duration(quantile(func(u *Usage) int64 { return int64(u.Ran) }, q)),
			MilliCPU:  int32(quantile(func(u *Usage) int64 { return int64(u.MilliCPU) }, q)),
			MemoryMiB: int32(quantile(func(u *Usage) int64 { return int64(u.MemoryMiB) }, q)),
		}
	}
	return Prediction{Runs: n, Median: usage(0.5), Most: usage(0.9), longestEver: usage(1).Ran}, true
}

// expected is how long a job runs at most, as far as anybody knows: its time limit, or half as long again as the longest of the
// latest runs of its family.
func (s *Scheduler) expected(spec *job.Spec) time.Duration {
	e := s.history.families[familyName{spec.Namespace, spec.Name}]
	if e == nil {
		return spec.Timeout
	}
	r, ok := e.Value.(*runs)
	if !ok || r.count < runsNeeded {
		return spec.Timeout
	}
	longest := time.Duration(0)
	for i := range min(r.count, runsKept) {
		longest = max(longest, r.list[i].Ran)
	}
	return min(longest+longest/2, spec.Timeout)
}

// sizing says what would be better to ask for, when it is less than half or more than what the family takes.
func sizing(spec *job.Spec, p *Prediction) string {
	ask, most := spec.Resources, p.Most
	var parts []string
	if ask.MilliCPU > 0 && most.MilliCPU > 0 && (2*most.MilliCPU < ask.MilliCPU || most.MilliCPU > ask.MilliCPU) {
		parts = append(parts, fmt.Sprintf("%s of %s", cpus(int64(most.MilliCPU)), cpus(int64(ask.MilliCPU))))
	}
	if ask.MemoryMiB > 0 && most.MemoryMiB > 0 && (2*most.MemoryMiB < ask.MemoryMiB || 10*most.MemoryMiB > 9*ask.MemoryMiB) {
		parts = append(parts, fmt.Sprintf("%d MiB of %d MiB of memory", most.MemoryMiB, ask.MemoryMiB))
	}
	if len(parts) == 0 {
		return ""
	}
	return fmt.Sprintf("9 of 10 of the last %d runs of %q used at most %s; ask for about as much", p.Runs, spec.Name, strings.Join(parts, " and "))
}
