package simulator

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// discipline decides which waiting job starts where. Jobs are named by their place in the workload.
type discipline interface {
	// add lets a job wait. again: it has run before.
	add(n int, again bool)
	// end says that a job runs no more.
	end(n int)
	// place starts jobs; they run as far as it is concerned when it returns.
	place(now time.Duration) decision
	// promised calls visit with every job whose start is promised, and the moment.
	promised(visit func(n int, at time.Duration))
}

// decision is what a discipline decided at one moment.
type decision struct {
	starts  []start
	leaving []int         // jobs that must make room
	again   bool          // ask again at once
	wake    time.Duration // when to ask again although nothing happened; 0: no need to
}

type start struct{ job, worker int }

// firstCome is strict first come, first served: while the first job that waits has no room nobody else starts. It takes the fullest
// worker with room, and knows neither namespaces nor priorities.
type firstCome struct {
	jobs  []Job
	rooms []room
	where []int // on which worker a job runs
	queue []int
}

func newFirstCome(c *Cluster, jobs []Job) *firstCome {
	return &firstCome{jobs: jobs, rooms: c.rooms(), where: make([]int, len(jobs))}
}

func (f *firstCome) add(n int, _ bool) { f.queue = append(f.queue, n) }

func (f *firstCome) end(n int) { f.rooms[f.where[n]].give(&f.jobs[n]) }

func (f *firstCome) place(time.Duration) decision {
	var d decision
	for len(f.queue) > 0 {
		n, best := f.queue[0], -1
		for i := range f.rooms {
			if r := &f.rooms[i]; r.covers(&f.jobs[n]) && (best < 0 || r.tighter(&f.rooms[best])) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		f.rooms[best].take(&f.jobs[n])
		f.where[n] = best
		f.queue = f.queue[1:]
		d.starts = append(d.starts, start{n, best})
	}
	return d
}

func (f *firstCome) promised(func(int, time.Duration)) {}

// epoch is when workloads begin in the time of the Scheduler.
var epoch = time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)

// scheduled is the product's own Scheduler.
type scheduled struct {
	scheduler *scheduler.Scheduler
	ids       []job.ID
	specs     []*job.Spec
	again     []bool
	places    []*scheduler.Running
	workers   map[job.WorkerID]int
	names     []job.WorkerID
}

func newScheduled(c *Cluster, jobs []Job, p *Policy) *scheduled {
	d := &scheduled{
		scheduler: p.NewScheduler(), ids: make([]job.ID, len(jobs)), specs: specsOf(jobs), again: make([]bool, len(jobs)),
		places: make([]*scheduler.Running, len(jobs)), workers: make(map[job.WorkerID]int, c.Workers),
	}
	for i := range c.Workers {
		w := c.worker(i)
		d.workers[w.ID] = i
		d.names = append(d.names, w.ID)
		d.scheduler.SetWorker(w)
	}
	for n := range jobs {
		d.ids[n] = job.NewID(epoch.Add(jobs[n].Submit), 0, uint64(n))
	}
	return d
}

// numberOf returns which job of the workload an id is of.
func numberOf(id job.ID) int { return int(binary.BigEndian.Uint64(id[8:])) }

// specsOf makes specs. Jobs that ask for the same share one, which saves memory.
func specsOf(jobs []Job) []*job.Spec {
	type ask struct {
		milliCPU, memoryMiB, priority int32
		limit                         time.Duration
		namespace, queue              string
	}
	known := make(map[ask]*job.Spec)
	specs := make([]*job.Spec, len(jobs))
	for i := range jobs {
		j := &jobs[i]
		a := ask{j.MilliCPU, j.MemoryMiB, j.Priority, j.Limit, j.Namespace, j.Queue}
		if known[a] == nil {
			known[a] = &job.Spec{
				Namespace: j.Namespace, Queue: j.Queue, Priority: j.Priority, Timeout: j.Limit, MaxAttempts: job.MaxAttempts,
				Resources: job.Resources{MilliCPU: j.MilliCPU, MemoryMiB: j.MemoryMiB},
			}
		}
		specs[i] = known[a]
	}
	return specs
}

func (d *scheduled) add(n int, again bool) {
	d.again[n] = again
	d.scheduler.Add(d.ids[n], d.specs[n], again)
}

func (d *scheduled) end(n int) {
	d.scheduler.End(d.places[n])
	d.places[n] = nil
}

func (d *scheduled) place(now time.Duration) decision {
	plan := d.scheduler.Place(epoch.Add(now))
	out := decision{again: plan.More, starts: make([]start, len(plan.Placements))}
	for i, p := range plan.Placements {
		n, worker := numberOf(p.Job), -1
		if w, ok := d.workers[p.Worker]; ok {
			worker = w
		}
		if n < len(d.places) {
			d.places[n] = p.Place
		}
		out.starts[i] = start{n, worker}
	}
	for _, p := range plan.Preemptions {
		out.leaving = append(out.leaving, numberOf(p.Victim))
	}
	if !plan.Wake.IsZero() {
		out.wake = plan.Wake.Sub(epoch)
	}
	return out
}

func (d *scheduled) promised(visit func(int, time.Duration)) {
	for _, id := range d.names {
		if held, at, ok := d.scheduler.ReservedFor(id); ok {
			visit(numberOf(held), at.Sub(epoch))
		}
	}
}

// isEmpty returns what is wrong when all jobs have ended and the Scheduler still thinks that somebody holds or waits for something.
func (d *scheduled) isEmpty() error {
	for i, id := range d.names {
		if held, n := d.scheduler.Held(id); n != 0 || held.MilliCPU != 0 || held.MemoryMiB != 0 {
			return fmt.Errorf("all jobs have ended, and worker %d still holds %d jobs with %+v", i, n, held)
		}
	}
	if n := d.scheduler.Len(); n != 0 {
		return fmt.Errorf("all jobs have ended, and %d still wait", n)
	}
	return nil
}
