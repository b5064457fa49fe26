package scheduler

import "github.com/hodei-jobs/hodei/service/job"

// scorer is one reason to prefer a worker. What it returns, from 0 to 1 (or from -1), times its weight is added up, and the worker
// with the highest sum wins.
type scorer struct {
	name   string
	weight func(*shape, *job.Scoring) float64 // 0: it is not asked
	score  func(*shape, *cell) float64
}

var scorers = [...]scorer{
	{"packing", packingWeight, packing},
	{"slots", slotWeight, freeSlots},
	{"scarce", scarceWeight, scarce},
	{"load", func(_ *shape, q *job.Scoring) float64 { return -float64(q.Load) }, func(_ *shape, c *cell) float64 { return c.excess }},
	{"price", func(_ *shape, q *job.Scoring) float64 { return -float64(q.Price) }, relativePrice},
	{"affinity", affinityWeight, affinity},
	{"spread", spreadWeight, spreading},
}

// weighed is a scorer with its weight.
type weighed struct {
	weight float64
	score  func(*shape, *cell) float64
}

func scorersFor(sh *shape, q *job.Scoring) []weighed {
	var list []weighed
	for i := range scorers {
		if w := scorers[i].weight(sh, q); w != 0 {
			list = append(list, weighed{w, scorers[i].score})
		}
	}
	return list
}

func (sh *shape) score(c *cell) float64 {
	sum := 0.0
	for i := range sh.scorers {
		sum += sh.scorers[i].weight * sh.scorers[i].score(sh, c)
	}
	return sum
}

// packingWeight is 100: the weights of the others are in parts of it.
func packingWeight(_ *shape, q *job.Scoring) float64 {
	if q.Spread {
		return -100
	}
	return 100
}

// packing is 1 when the job takes what is left of the worker: so large jobs find whole workers free.
func packing(sh *shape, c *cell) float64 {
	return 1 - (part(c.free.cpu-sh.ask.cpu, c.capacity.cpu)+part(c.free.memory-sh.ask.memory, c.capacity.memory))/2
}

// slotWeight is little: free slots decide between workers that are packed about alike, and spread jobs that ask for nothing else.
func slotWeight(*shape, *job.Scoring) float64 { return 10 }

func freeSlots(_ *shape, c *cell) float64 { return part(c.free.jobs, c.capacity.jobs) }

// scarceWeight: a worker with a GPU is for jobs that need one, as long as there are others.
func scarceWeight(*shape, *job.Scoring) float64 { return -60 }

// scarce is 1 for a worker that has extras of which the job needs none.
func scarce(sh *shape, c *cell) float64 {
	for i, n := range c.capacity.extras {
		if n > 0 && (i >= len(sh.ask.extras) || sh.ask.extras[i] == 0) {
			return 1
		}
	}
	return 0
}

// relativePrice is what a worker costs beside one that costs 1.
func relativePrice(_ *shape, c *cell) float64 { return c.price / (1 + c.price) }

func affinityWeight(sh *shape, q *job.Scoring) float64 {
	if len(sh.affinities) == 0 {
		return 0
	}
	return float64(q.Affinity) / 100
}

// affinity is the sum of the weights of what the job likes about the worker.
func affinity(sh *shape, c *cell) float64 {
	sum := 0.0
	for i := range sh.affinities {
		if a := &sh.affinities[i]; a.Constraint.Holds(c.worker.Labels) {
			sum += float64(a.Weight)
		}
	}
	return sum
}

// spreadWeight is more than all else by default: who asks for it means it.
func spreadWeight(sh *shape, _ *job.Scoring) float64 {
	if sh.spread == nil {
		return 0
	}
	return -1000
}

// spreading is how many jobs of this name run at the worker's value of the label.
func spreading(sh *shape, c *cell) float64 {
	return float64(sh.spread.running[c.worker.Labels[sh.spread.label]])
}
