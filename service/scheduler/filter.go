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
	name    string
	kind    filterKind
	check   func(*shape, *cell) bool
	explain func(sh *shape, refused []*cell) string // about the workers that it refused, at least one
}

// filterKind says what a filter looks at, and so when its answer may change.
type filterKind uint8

const (
	ofFacts filterKind = iota // what the worker is
	ofState                   // whether it takes jobs at all; the shape is not looked at
	ofRoom                    // what it has free, and what else runs
)

var filters = [...]filter{
	{scopeFilter, ofFacts, servesQueue, explainQueue},
	{"constraints", ofFacts, meetsConstraints, explainConstraints},
	{"capabilities", ofFacts, isCapable, explainCapabilities},
	{"taints", ofFacts, toleratesTaints, explainTaints},
	{"size", ofFacts, largeEnough, explainSize},
	{"connection", ofState, connected, explainConnection},
	{"drain", ofState, accepting, explainDrain},
	{"health", ofState, trusted, explainTrust},
	{"trial", ofRoom, mayTry, explainTry},
	{"slots", ofRoom, hasSlot, explainSlots},
	{"room", ofRoom, hasRoom, explainRoom},
	{"apart", ofRoom, standsApart, explainApart},
}

// checks are the filters by their kinds: some are asked very often, and the others not at all then.
var checks = func() (by [ofRoom + 1][]func(*shape, *cell) bool) {
	for i := range filters {
		by[filters[i].kind] = append(by[filters[i].kind], filters[i].check)
	}
	return by
}()

// passes reports whether all filters of a kind let a worker take a job.
func passes(kind filterKind, sh *shape, c *cell) bool {
	for _, check := range checks[kind] {
		if !check(sh, c) {
			return false
		}
	}
	return true
}

func isUsable(c *cell) bool { return passes(ofState, nil, c) }

func meetsConstraints(sh *shape, c *cell) bool {
	for i := range sh.constraints {
		if !sh.constraints[i].Holds(c.worker.Labels) {
			return false
		}
	}
	return true
}

func explainConstraints(sh *shape, refused []*cell) string {
	var missing []string
	for i := range sh.constraints {
		for _, c := range refused {
			if !sh.constraints[i].Holds(c.worker.Labels) {
				missing = append(missing, sh.constraints[i].String())
				break
			}
		}
	}
	return fmt.Sprintf("%s without label %s", count(refused), strings.Join(missing, " and "))
}

func isCapable(sh *shape, c *cell) bool {
	for _, name := range sh.requires {
		if !slices.Contains(c.worker.Capabilities, name) {
			return false
		}
	}
	return true
}

func explainCapabilities(sh *shape, refused []*cell) string {
	var missing []string
	for _, name := range sh.requires {
		if slices.ContainsFunc(refused, func(c *cell) bool { return !slices.Contains(c.worker.Capabilities, name) }) {
			missing = append(missing, name)
		}
	}
	return fmt.Sprintf("%s without the capability %s", count(refused), strings.Join(missing, " and "))
}

func toleratesTaints(sh *shape, c *cell) bool {
	for _, taint := range c.worker.Taints {
		if !slices.Contains(sh.tolerations, taint) {
			return false
		}
	}
	return true
}

func explainTaints(sh *shape, refused []*cell) string {
	var all []string
	for _, c := range refused {
		for _, taint := range c.worker.Taints {
			if !slices.Contains(sh.tolerations, taint) {
				all = append(all, taint)
			}
		}
	}
	slices.Sort(all)
	return fmt.Sprintf("%s only for jobs that tolerate %s", count(refused), strings.Join(slices.Compact(all), " and "))
}

func largeEnough(sh *shape, c *cell) bool {
	return c.capacity.covers(&amount{cpu: sh.ask.cpu, memory: sh.ask.memory, extras: sh.ask.extras})
}

func explainSize(sh *shape, refused []*cell) string {
	return fmt.Sprintf("%s too small for %s", count(refused), describe(sh.resources))
}

func connected(_ *shape, c *cell) bool { return c.worker.Connected && !c.worker.Lost }

func explainConnection(_ *shape, refused []*cell) string { return count(refused) + " not connected" }

func accepting(_ *shape, c *cell) bool { return !c.worker.Draining }

func explainDrain(_ *shape, refused []*cell) string { return count(refused) + " draining" }

func hasSlot(_ *shape, c *cell) bool { return c.free.jobs > 0 }

func explainSlots(_ *shape, refused []*cell) string { return count(refused) + " with all slots taken" }

func hasRoom(sh *shape, c *cell) bool { return c.free.covers(&sh.ask) }

func explainRoom(sh *shape, refused []*cell) string {
	var cpu, memory int64
	for _, c := range refused {
		cpu, memory = max(cpu, c.free.cpu), max(memory, c.free.memory)
	}
	return fmt.Sprintf("%s busy: the job needs %s, at most %s and %d MiB are free",
		count(refused), describe(sh.resources), cpus(cpu), memory)
}

// standsApart reports whether no job of the same name runs at the same value of the label that they are to be apart by.
func standsApart(sh *shape, c *cell) bool {
	return sh.apart == nil || sh.apart.running[c.worker.Labels[sh.apart.label]] == 0
}

func explainApart(sh *shape, refused []*cell) string {
	return fmt.Sprintf("%s where another job of this name runs at the same %s", count(refused), sh.apart.label)
}

func count(refused []*cell) string {
	if len(refused) == 1 {
		return fmt.Sprintf("1 worker (%s)", refused[0].worker.Name)
	}
	return fmt.Sprintf("%d workers", len(refused))
}

func cpus(milli int64) string {
	if milli == 1000 {
		return "1 CPU"
	}
	return fmt.Sprintf("%g CPUs", float64(milli)/1000)
}

// describe writes resources for people.
func describe(r job.Resources) string {
	var parts []string
	if r.MilliCPU > 0 {
		parts = append(parts, cpus(int64(r.MilliCPU)))
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
