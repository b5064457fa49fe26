package simulator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// Mix makes jobs that are all submitted at once and ask for what containers in recorded clusters do: mostly little, in round amounts,
// and memory that goes with the CPUs but loosely.
func Mix(jobs int, seed uint64) []Job {
	sizes, runtimes := stream(seed, sizeStream), stream(seed, runtimeStream)
	list := make([]Job, jobs)
	for i := range list {
		cpu := mixCPUs[weighted(sizes, mixWeights[:])]
		ratio := memoryRatios[weighted(sizes, ratioWeights[:])]
		list[i] = Job{
			Number: i + 1, Runtime: runtimeOf(runtimes, 1), MilliCPU: cpu, MemoryMiB: max(cpu*ratio/1000, 64),
			Namespace: job.DefaultNamespace, Queue: job.DefaultQueue,
		}
	}
	Estimate(list, seed)
	return list
}

var (
	mixCPUs      = [...]int32{100, 250, 500, 1000, 2000, 4000, 8000, 16_000}
	mixWeights   = [...]int{15, 18, 20, 22, 13, 7, 4, 1}
	memoryRatios = [...]int32{512, 1024, 2048, 4096, 8192, 16_384} // MiB for each CPU
	ratioWeights = [...]int{8, 17, 28, 28, 14, 5}
)

// weighted draws an index, each as likely as its weight says.
func weighted(random *rand.Rand, weights []int) int {
	total := 0
	for _, w := range weights {
		total += w
	}
	draw := random.IntN(total)
	for i, w := range weights {
		if draw -= w; draw < 0 {
			return i
		}
	}
	return len(weights) - 1
}

// Packing is how many workers jobs need that all run at the same time.
type Packing struct {
	Jobs      int `json:"jobs"`
	Scheduler int `json:"scheduler_workers"` // that the Scheduler used, which sees the jobs in the order in which they came
	Reference int `json:"ffd_workers"`       // that first fit uses when the largest jobs go first
	Least     int `json:"least_workers"`     // what all ask for together, without any waste
	// Excess is how many more workers the Scheduler used than the reference, as a part of it.
	Excess float64 `json:"excess"`
}

// Pack places all jobs at once on as many empty workers as there are jobs at most, by the Scheduler and by first fit decreasing. The
// cluster's number of workers does not matter. Jobs that are too large for a worker are left out.
func Pack(c Cluster, jobs []Job) (*Packing, error) {
	if c.Workers = max(c.Workers, 1); c.MemoryMiB == 0 {
		return nil, fmt.Errorf("packing needs workers with memory")
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	fitting := slices.DeleteFunc(slices.Clone(jobs), func(j Job) bool { return !c.fits(&j) })
	p := &Packing{Jobs: len(fitting), Reference: firstFitDecreasing(&c, fitting), Least: leastWorkers(&c, fitting)}
	c.Workers = p.Reference + p.Reference/2 + 1
	d := newScheduled(&c, fitting, new(Policy))
	for n := range fitting {
		d.add(n, false)
	}
	used, rooms, placed := make(map[int]bool), c.rooms(), 0
	for more := true; more; {
		decided := d.place(0)
		for _, s := range decided.starts {
			if !rooms[s.worker].covers(&fitting[s.job]) {
				return nil, fmt.Errorf("job %d was given to a worker that has not enough free", fitting[s.job].Number)
			}
			rooms[s.worker].take(&fitting[s.job])
			used[s.worker] = true
			placed++
		}
		more = decided.again && len(decided.starts) > 0
	}
	if placed < len(fitting) {
		return nil, fmt.Errorf("%d of %d jobs found no room on %d workers", len(fitting)-placed, len(fitting), c.Workers)
	}
	if p.Scheduler = len(used); p.Reference > 0 {
		p.Excess = float64(p.Scheduler)/float64(p.Reference) - 1
	}
	return p, nil
}

// firstFitDecreasing returns how many workers are used when each job, the largest first, goes to the first that has room.
func firstFitDecreasing(c *Cluster, jobs []Job) int {
	size := func(j *Job) float64 {
		return max(float64(j.MilliCPU)/float64(c.MilliCPU), float64(j.MemoryMiB)/float64(c.MemoryMiB))
	}
	sorted := slices.Clone(jobs)
	slices.SortStableFunc(sorted, func(a, b Job) int { return cmp.Compare(size(&b), size(&a)) })
	var rooms []room
	for i := range sorted {
		at := slices.IndexFunc(rooms, func(r room) bool { return r.covers(&sorted[i]) })
		if at < 0 {
			at = len(rooms)
			rooms = append(rooms, room{int64(c.MilliCPU), int64(c.MemoryMiB), int64(c.slots())})
		}
		rooms[at].take(&sorted[i])
	}
	return len(rooms)
}

// leastWorkers returns how many workers have as much as all jobs ask for.
func leastWorkers(c *Cluster, jobs []Job) int {
	var cpu, memory int64
	for i := range jobs {
		cpu += int64(jobs[i].MilliCPU)
		memory += int64(jobs[i].MemoryMiB)
	}
	whole := func(sum, each int64) int { return int((sum + each - 1) / each) }
	return max(whole(cpu, int64(c.MilliCPU)), whole(memory, int64(c.MemoryMiB)), whole(int64(len(jobs)), int64(c.slots())))
}
