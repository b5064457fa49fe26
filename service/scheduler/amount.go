package scheduler

import (
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// amount is what a job asks for, what a worker has free, or what the jobs of a queue hold: job.Resources and a number of jobs, laid
// out so that it can be compared and added quickly.
type amount struct {
	cpu, memory int64 // thousandths of a CPU, mebibytes
	jobs        int64
	extras      []int64 // by the number of their name, see names; what is beyond the end is 0
}

// names numbers the names of extras.
type names struct{ list []string }

func (n *names) number(name string) int {
	if i := slices.Index(n.list, name); i >= 0 {
		return i
	}
	n.list = append(n.list, name)
	return len(n.list) - 1
}

// amount translates resources; jobs is how many they are for.
func (n *names) amount(r job.Resources, jobs int32) amount {
	a := amount{cpu: int64(r.MilliCPU), memory: int64(r.MemoryMiB), jobs: int64(jobs)}
	for name, count := range r.Extras {
		i := n.number(name)
		a.extras = grow(a.extras, i+1)
		a.extras[i] = int64(count)
	}
	return a
}

// resources translates back; the number of jobs is left out.
func (n *names) resources(a *amount) job.Resources {
	r := job.Resources{MilliCPU: int32(a.cpu), MemoryMiB: int32(a.memory)}
	for i, count := range a.extras {
		if count == 0 {
			continue
		}
		if r.Extras == nil {
			r.Extras = make(map[string]int32)
		}
		r.Extras[n.list[i]] = int32(count)
	}
	return r
}

func grow(list []int64, n int) []int64 {
	for len(list) < n {
		list = append(list, 0)
	}
	return list
}

// covers reports whether there is at least as much of everything as need asks for.
func (a *amount) covers(need *amount) bool {
	if a.cpu < need.cpu || a.memory < need.memory || a.jobs < need.jobs {
		return false
	}
	for i, n := range need.extras {
		if n > 0 && (i >= len(a.extras) || a.extras[i] < n) {
			return false
		}
	}
	return true
}

func (a *amount) add(b *amount) {
	a.cpu += b.cpu
	a.memory += b.memory
	a.jobs += b.jobs
	if len(b.extras) > 0 {
		a.extras = grow(a.extras, len(b.extras))
		for i, n := range b.extras {
			a.extras[i] += n
		}
	}
}

func (a *amount) sub(b *amount) {
	a.cpu -= b.cpu
	a.memory -= b.memory
	a.jobs -= b.jobs
	if len(b.extras) > 0 {
		a.extras = grow(a.extras, len(b.extras))
		for i, n := range b.extras {
			a.extras[i] -= n
		}
	}
}

// raise makes the amount at least as large as another one, of every kind.
func (a *amount) raise(b *amount) {
	a.cpu, a.memory, a.jobs = max(a.cpu, b.cpu), max(a.memory, b.memory), max(a.jobs, b.jobs)
	a.extras = grow(a.extras, len(b.extras))
	for i, n := range b.extras {
		a.extras[i] = max(a.extras[i], n)
	}
}

func (a *amount) clone() amount {
	b := *a
	b.extras = slices.Clone(a.extras)
	return b
}

// share is the largest part that an amount is of the whole, of any one kind.
func (a *amount) share(whole *amount) float64 {
	s := max(part(a.cpu, whole.cpu), part(a.memory, whole.memory), part(a.jobs, whole.jobs))
	for i, n := range a.extras {
		if n > 0 && i < len(whole.extras) {
			s = max(s, part(n, whole.extras[i]))
		}
	}
	return s
}

func part(n, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(n) / float64(whole)
}
