package simulator

import (
	"fmt"
	"math"

	"github.com/hodei-jobs/hodei/service/job"
)

// Cluster is workers that are all alike.
type Cluster struct {
	Workers   int
	MilliCPU  int32 // of each
	MemoryMiB int32 // of each; 0: memory is no matter, whatever jobs ask for
	Slots     int32 // how many jobs each runs at the same time; 0: any number
}

// maxWorkers bounds a cluster.
const maxWorkers = 1_000_000

func (c *Cluster) validate() error {
	if c.Workers < 1 || c.Workers > maxWorkers || c.MilliCPU < 1 || c.MemoryMiB < 0 || c.Slots < 0 {
		return fmt.Errorf("a cluster needs 1 to %d workers with a CPU, and memory and slots that are not negative; this one is %+v", maxWorkers, *c)
	}
	return nil
}

// slots returns how many jobs a worker runs at the same time.
func (c *Cluster) slots() int32 {
	if c.Slots == 0 {
		return math.MaxInt32
	}
	return c.Slots
}

// fits reports whether an empty worker can take a job.
func (c *Cluster) fits(j *Job) bool {
	return j.MilliCPU <= c.MilliCPU && (c.MemoryMiB == 0 || j.MemoryMiB <= c.MemoryMiB)
}

// worker returns a worker as the scheduler sees it.
func (c *Cluster) worker(n int) *job.Worker {
	name := fmt.Sprintf("worker-%06d", n)
	return &job.Worker{
		ID: job.WorkerID(name), Name: name, Connected: true, Slots: c.slots(),
		Capacity: job.Resources{MilliCPU: c.MilliCPU, MemoryMiB: c.MemoryMiB},
	}
}

// room is what a worker has free, in the simulator's own books.
type room struct {
	milliCPU, memoryMiB int64
	slots               int64
}

// rooms returns the books of an empty cluster.
func (c *Cluster) rooms() []room {
	list := make([]room, c.Workers)
	for i := range list {
		list[i] = room{int64(c.MilliCPU), int64(c.MemoryMiB), int64(c.slots())}
	}
	return list
}

func (r *room) take(j *Job) {
	r.milliCPU -= int64(j.MilliCPU)
	r.memoryMiB -= int64(j.MemoryMiB)
	r.slots--
}

func (r *room) give(j *Job) {
	r.milliCPU += int64(j.MilliCPU)
	r.memoryMiB += int64(j.MemoryMiB)
	r.slots++
}

// covers reports whether a job has room.
func (r *room) covers(j *Job) bool {
	return r.milliCPU >= int64(j.MilliCPU) && r.memoryMiB >= int64(j.MemoryMiB) && r.slots >= 1
}

// tighter reports whether less is left here than elsewhere, of CPUs before memory.
func (r *room) tighter(other *room) bool {
	if r.milliCPU != other.milliCPU {
		return r.milliCPU < other.milliCPU
	}
	return r.memoryMiB < other.memoryMiB
}
