package scheduler

import "github.com/hodei-jobs/hodei/service/job"

// gate limits how many jobs of a namespace with the same concurrency key run at the same time.
type gate struct {
	key     gateKey
	running []*Running
	lines   []*line // that have it, with and without jobs
}

type gateKey struct{ namespace, key string }

func (s *Scheduler) gate(namespace string, c *job.Concurrency) *gate {
	if c == nil {
		return nil
	}
	key := gateKey{namespace, c.Key}
	g := s.gates[key]
	if g == nil {
		g = &gate{key: key}
		s.gates[key] = g
	}
	return g
}

// open reports whether another job of a line may pass.
func (g *gate) open(l *line) bool { return len(g.running) < int(l.spec.Placement.Concurrency.Limit) }

// supersede adds to a list the jobs that a new one of a line replaces.
func (g *gate) supersede(list []job.ID, l *line, id job.ID) []job.ID {
	policy := l.spec.Placement.Concurrency.Policy
	if policy == job.ConcurrencyQueue {
		return list
	}
	for _, other := range g.lines {
		for _, chunk := range other.waiting.chunks {
			for _, waits := range chunk {
				if waits.Compare(id) < 0 {
					list = append(list, waits)
				}
			}
		}
	}
	if policy == job.ConcurrencyCancelRunning {
		for _, r := range g.running {
			if r.job.Compare(id) < 0 {
				list = append(list, r.job)
			}
		}
	}
	return list
}

// pass counts a job that has begun.
func (g *gate) pass(r *Running) {
	if g != nil {
		g.running = append(g.running, r)
	}
}

// passed takes it back; others may start then.
func (s *Scheduler) passed(g *gate, r *Running) {
	if g == nil {
		return
	}
	for i := range g.running {
		if g.running[i] == r {
			g.running = swapOut(g.running, i, func(*Running, int) {})
			break
		}
	}
	for _, l := range g.lines {
		s.reopen(l)
	}
}
