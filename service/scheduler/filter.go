package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// filter is one reason for which a worker may not take a job. Filters run in order and the first that says no counts, so
// those that no waiting will change come first: the explanation names the most lasting obstacle.
type filter struct {
	check   func(*job.Spec, *candidate) bool
	explain func(spec *job.Spec, refused []*candidate) string // about the workers that it refused, at least one
}

var filters = [...]filter{
	{meetsConstraints, explainConstraints},
	{largeEnough, explainSize},
	{connected, explainConnection},
	{accepting, explainDrain},
	{hasSlot, explainSlots},
	{hasRoom, explainRoom},
}

func meetsConstraints(spec *job.Spec, c *candidate) bool {
	for i := range spec.Constraints {
		if !spec.Constraints[i].Holds(c.worker.Labels) {
			return false
		}
	}
	return true
}

func explainConstraints(spec *job.Spec, refused []*candidate) string {
	var missing []string
	for i := range spec.Constraints {
		for _, c := range refused {
			if !spec.Constraints[i].Holds(c.worker.Labels) {
				missing = append(missing, describe(&spec.Constraints[i]))
				break
			}
		}
	}
	return fmt.Sprintf("%s without label %s", count(refused), strings.Join(missing, " and "))
}

func describe(c *job.Constraint) string {
	values := strings.Join(c.Values, "|")
	switch c.Operator {
	case job.OperatorIn:
		return c.Label + "=" + values
	case job.OperatorNotIn:
		return c.Label + "!=" + values
	case job.OperatorNotExists:
		return "!" + c.Label
	default:
		return c.Label
	}
}

func largeEnough(spec *job.Spec, c *candidate) bool { return c.worker.Capacity.Covers(spec.Resources) }

func explainSize(spec *job.Spec, refused []*candidate) string {
	return fmt.Sprintf("%s too small for %s", count(refused), amount(spec.Resources))
}

func connected(_ *job.Spec, c *candidate) bool { return c.worker.Connected && !c.worker.Lost }

func explainConnection(_ *job.Spec, refused []*candidate) string {
	return count(refused) + " not connected"
}

func accepting(_ *job.Spec, c *candidate) bool { return !c.worker.Draining }

func explainDrain(_ *job.Spec, refused []*candidate) string { return count(refused) + " draining" }

func hasSlot(_ *job.Spec, c *candidate) bool { return c.slots > 0 }

func explainSlots(_ *job.Spec, refused []*candidate) string {
	return count(refused) + " with all slots taken"
}

func hasRoom(spec *job.Spec, c *candidate) bool { return c.free.Covers(spec.Resources) }

func explainRoom(spec *job.Spec, refused []*candidate) string {
	largest := refused[0].free
	for _, c := range refused[1:] {
		largest.MilliCPU = max(largest.MilliCPU, c.free.MilliCPU)
		largest.MemoryMiB = max(largest.MemoryMiB, c.free.MemoryMiB)
	}
	return fmt.Sprintf("%s busy: the job needs %s, at most %g CPUs and %d MiB are free",
		count(refused), amount(spec.Resources), float64(largest.MilliCPU)/1000, largest.MemoryMiB)
}

func count(refused []*candidate) string {
	if len(refused) == 1 {
		return fmt.Sprintf("1 worker (%s)", refused[0].worker.Name)
	}
	return fmt.Sprintf("%d workers", len(refused))
}

// amount writes resources for people.
func amount(r job.Resources) string {
	var parts []string
	if r.MilliCPU > 0 {
		parts = append(parts, fmt.Sprintf("%g CPUs", float64(r.MilliCPU)/1000))
	}
	if r.MemoryMiB > 0 {
		parts = append(parts, fmt.Sprintf("%d MiB of memory", r.MemoryMiB))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Extras)) {
		parts = append(parts, fmt.Sprintf("%d %s", r.Extras[name], name))
	}
	if len(parts) == 0 {
		return "a slot"
	}
	return strings.Join(parts, ", ")
}
