package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// Class is what the scheduler knows of a job. All jobs of a class ask for the same with the same urgency, so that one
// decision is good for all of them.
type Class struct {
	Priority, MilliCPU, MemoryMiB int32
	Rest                          string // extras and constraints; empty for most
}

// ClassOf returns the class of the jobs of a spec.
func ClassOf(spec *job.Spec) Class {
	c := Class{Priority: spec.Priority, MilliCPU: spec.Resources.MilliCPU, MemoryMiB: spec.Resources.MemoryMiB}
	if len(spec.Resources.Extras)+len(spec.Constraints) == 0 {
		return c
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(spec.Resources.Extras)) {
		fmt.Fprintf(&b, "/%s=%d", name, spec.Resources.Extras[name])
	}
	for i := range spec.Constraints {
		c := &spec.Constraints[i]
		fmt.Fprintf(&b, "/%q %d %q", c.Label, c.Operator, c.Values)
	}
	c.Rest = b.String()
	return c
}

// Backlog holds the jobs that wait for a worker, by class and age. It has one owner.
type Backlog struct {
	classes map[Class]*class
	size    int
}

// class is a class with the jobs of it that wait.
type class struct {
	key     Class
	spec    *job.Spec // what its jobs ask for; of any of them
	waiting waiting
}

// NewBacklog makes an empty backlog.
func NewBacklog() *Backlog { return &Backlog{classes: make(map[Class]*class)} }

// Len returns how many jobs wait.
func (b *Backlog) Len() int { return b.size }

// Add takes a job in. Adding it again changes nothing.
func (b *Backlog) Add(id job.ID, spec *job.Spec) {
	key := ClassOf(spec)
	c := b.classes[key]
	if c == nil {
		c = &class{key: key, spec: asks(spec)}
		b.classes[key] = c
	}
	before := c.waiting.size
	c.waiting.add(id)
	b.size += c.waiting.size - before
}

// asks keeps of a spec what filters and scorers look at, so that a class does not keep a script in memory.
func asks(spec *job.Spec) *job.Spec {
	return &job.Spec{Resources: spec.Resources, Constraints: spec.Constraints, Priority: spec.Priority}
}

// Remove takes a job out.
func (b *Backlog) Remove(id job.ID, spec *job.Spec) {
	if c := b.classes[ClassOf(spec)]; c != nil && c.waiting.remove(id) {
		b.taken(c)
	}
}

func (b *Backlog) taken(c *class) {
	b.size--
	if c.waiting.size == 0 {
		delete(b.classes, c.key)
	}
}

// urgency orders classes by priority, then by the age of their oldest job.
func urgency(a, b *class) bool {
	if a.key.Priority != b.key.Priority {
		return a.key.Priority > b.key.Priority
	}
	return a.waiting.first().Compare(b.waiting.first()) < 0
}
