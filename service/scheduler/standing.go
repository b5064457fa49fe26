package scheduler

import (
	"cmp"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// Standing is what a queue or a namespace has and what it should have, with all below it.
type Standing struct {
	Waiting, Running int
	Held             job.Resources
	Share            float64 // the largest part that it holds of what all workers have, of any one kind
	Due              float64 // the part that its weight gives it, among those that hold something or wait for it
}

// Queues calls visit for every queue that was set or that jobs have named, of one namespace or of all (empty), in order.
func (s *Scheduler) Queues(namespace string, visit func(job.Queue, Standing)) {
	waiting, due := s.waits(), s.due()
	keys := make([]queueKey, 0, len(s.queues))
	for key := range s.queues {
		if namespace == "" || namespace == key.namespace {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, func(a, b queueKey) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	for _, key := range keys {
		n := s.queues[key]
		visit(n.queue, s.standing(n, waiting, due))
	}
}

// Namespaces calls visit for every namespace that was set or that jobs have named, in order.
func (s *Scheduler) Namespaces(visit func(job.Namespace, Standing)) {
	waiting, due := s.waits(), s.due()
	names := make([]string, 0, len(s.namespaces))
	for name := range s.namespaces {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		n := s.namespaces[name]
		visit(job.Namespace{Name: name, Weight: int32(n.weight), Limits: n.limits}, s.standing(n, waiting, due))
	}
}

func (s *Scheduler) standing(n *node, waiting map[*node]int, due func(*node) float64) Standing {
	return Standing{
		Waiting: waiting[n], Running: int(n.used.jobs), Held: s.names.resources(&n.used), Share: n.used.share(&s.whole), Due: due(n),
	}
}

// waits counts the waiting jobs of every node that has some, with those below it.
func (s *Scheduler) waits() map[*node]int {
	waiting := make(map[*node]int)
	for _, busy := range s.busy {
		for n := busy; n != nil; n = n.parent {
			waiting[n] += busy.waiting
		}
	}
	return waiting
}

// due returns a function that says which part of all a node is to have.
func (s *Scheduler) due() func(*node) float64 {
	waiting := s.waits()
	active := func(n *node) bool { return waiting[n] > 0 || n.used.jobs > 0 }
	weights := make(map[*node]float64) // of the active children
	for _, nodes := range [...]func(func(*node)){s.eachNamespace, s.eachQueue} {
		nodes(func(n *node) {
			if active(n) {
				weights[n.parent] += n.weight
			}
		})
	}
	var part func(*node) float64
	part = func(n *node) float64 {
		if n.parent == nil {
			return 1
		}
		if !active(n) {
			return 0
		}
		return part(n.parent) * n.weight / weights[n.parent]
	}
	return part
}

func (s *Scheduler) eachNamespace(visit func(*node)) {
	for _, n := range s.namespaces {
		visit(n)
	}
}

func (s *Scheduler) eachQueue(visit func(*node)) {
	for _, n := range s.queues {
		visit(n)
	}
}
