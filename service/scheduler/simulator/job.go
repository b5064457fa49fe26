// Package simulator runs workloads through the scheduler in virtual time: recorded ones, and ones that a model makes. It drives the
// real Scheduler, keeps books of its own to see that no worker gets more than it has, and measures what users and operators get:
// utilisation, waits, slowdowns, and the parts of namespaces. Beside it runs strict first come, first served, as the baseline.
package simulator

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Job is one job of a workload. Times are from the beginning of the workload.
type Job struct {
	Number    int // names the job in errors
	Submit    time.Duration
	Runtime   time.Duration // how long it runs if nobody stops it; only the simulator knows
	Limit     time.Duration // how long it may run, which is what the scheduler knows; at least Runtime
	MilliCPU  int32
	MemoryMiB int32
	Namespace string
	Queue     string
	Priority  int32
	Class     string // under which it is reported; empty: by its size
}

// Bounds of a workload. They keep sums of times far from the end of what a Duration can hold.
const (
	MaxJobs   = 5_000_000
	maxSubmit = 50 * 365 * 24 * time.Hour
	maxCPUs   = 2_000_000
)

// validate returns what is wrong with a job.
func (j *Job) validate() error {
	switch {
	case j.Submit < 0 || j.Submit > maxSubmit:
		return fmt.Errorf("it is submitted at %v; that must be from 0 to %v", j.Submit, maxSubmit)
	case j.Runtime < 0 || j.Runtime > job.MaxTimeout:
		return fmt.Errorf("it runs for %v; that must be from 0 to %v", j.Runtime, job.MaxTimeout)
	case j.Limit < j.Runtime || j.Limit > job.MaxTimeout:
		return fmt.Errorf("its limit is %v; that must be from its runtime, %v, to %v", j.Limit, j.Runtime, job.MaxTimeout)
	case j.MilliCPU < 0 || j.MemoryMiB < 0:
		return fmt.Errorf("it asks for %d thousandths of a CPU and %d MiB; neither may be negative", j.MilliCPU, j.MemoryMiB)
	case j.Priority < -job.MaxPriority || j.Priority > job.MaxPriority:
		return fmt.Errorf("its priority is %d; that must be from -%d to %d", j.Priority, job.MaxPriority, job.MaxPriority)
	}
	return nil
}

// sortJobs puts jobs in the order of their submission; those of one moment keep theirs.
func sortJobs(jobs []Job) {
	slices.SortStableFunc(jobs, func(a, b Job) int { return cmp.Compare(a.Submit, b.Submit) })
}

// Cap lets no job ask for more than a worker has, so that jobs of one large machine can run on many small ones.
func Cap(jobs []Job, milliCPU int32) {
	for i := range jobs {
		jobs[i].MilliCPU = min(jobs[i].MilliCPU, milliCPU)
	}
}

// Spread deals jobs out to the queues of a policy, each as likely as the next. Without queues nothing changes.
func Spread(jobs []Job, p *Policy, seed uint64) {
	if len(p.Queues) == 0 {
		return
	}
	random := stream(seed, queueStream)
	for i := range jobs {
		q := &p.Queues[random.IntN(len(p.Queues))]
		jobs[i].Namespace, jobs[i].Queue = q.Namespace, q.Name
	}
}

// Streams of chance. Each kind of draw has its own, so that a change to one leaves the others as they were.
const (
	arrivalStream = iota + 1
	sizeStream
	runtimeStream
	limitStream
	queueStream
)

func stream(seed, kind uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, kind)) //nolint:gosec // the same workload for the same seed is what it is for
}
