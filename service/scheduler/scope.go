package scheduler

import (
	"fmt"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// scope is what a queue is to workers that serve certain queues only: itself when one of them names it, job.AnyQueue of its namespace
// when they name only that, and else nothing. Queues of the same scope have the same workers, so that their jobs can be alike; as
// long as no worker is bound, those of all queues can.
type scope queueKey

// scopeOf returns the scope of a queue.
func (s *Scheduler) scopeOf(namespace, queue string) scope {
	if len(s.scopes) == 0 {
		return scope{}
	}
	for _, name := range [...]string{queue, job.AnyQueue} {
		if s.scopes[namespace+"/"+name] > 0 {
			return scope{namespace, name}
		}
	}
	return scope{}
}

// bind notes that a worker serves other queues than before. When queues are named that nobody has named until now, or are not any more,
// others have other scopes.
func (s *Scheduler) bind(before, now []string) {
	if slices.Equal(before, now) {
		return
	}
	changed := false
	for _, name := range now {
		s.scopes[name]++
		changed = changed || s.scopes[name] == 1
	}
	for _, name := range before {
		if s.scopes[name]--; s.scopes[name] == 0 {
			delete(s.scopes, name)
			changed = true
		}
	}
	if !changed {
		return
	}
	changed = false
	for key, n := range s.queues {
		before := n.scope
		n.scope = s.scopeOf(key.namespace, key.name)
		changed = changed || n.scope != before
	}
	if !changed {
		return // no job has named any of them
	}
	for _, l := range s.lines {
		if l.shape.scope != l.node.scope {
			s.reshape(l)
		}
	}
	s.tidyAt = 0
	s.tidy() // so that the shapes that were left do not add up
}

// scopeFilter names the filter of scopes, which is the first of all: nothing that happens to a worker changes whom it serves.
const scopeFilter = "queue"

func servesQueue(sh *shape, c *cell) bool { return c.worker.Serves(sh.scope.namespace, sh.scope.name) }

func explainQueue(_ *shape, refused []*cell) string {
	verb := "serve"
	if len(refused) == 1 {
		verb = "serves"
	}
	return fmt.Sprintf("%s %s other queues only", count(refused), verb)
}
