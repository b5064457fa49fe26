package scheduler

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// cell is a worker as the scheduler sees it.
type cell struct {
	free     amount
	usable   bool   // takes jobs: every state filter lets it pass
	index    int    // among the cells
	changed  uint64 // where in the log its last change is
	facts    uint64 // the same of the last change of what it is, and not of what it has free
	capacity amount
	present  amount  // what it adds to the whole: its capacity while it is connected
	excess   float64 // measured load that reservations do not explain, as a part of the capacity
	price    float64
	tie      uint64 // which of two that are alike comes first, whatever the order in which they came

	worker   job.Worker // as it was told last
	running  []*Running
	sorted   []*Running // see byEnd
	sortedAt uint64
	reserved *reservation // of the job that is to start here next; nil: none
	load     load
	health   health
}

// Running is a job that holds a place on a worker.
type Running struct {
	job     job.ID
	line    *line
	cell    *cell
	place   int   // among those of its worker
	began   int64 // nanoseconds since 1970
	until   int64 // when it is expected to have ended
	leaving bool  // it was asked to make room
}

// Job returns whose place it is.
func (r *Running) Job() job.ID { return r.job }

// SetWorker takes in a worker, or what has changed about it. What its jobs hold is kept.
func (s *Scheduler) SetWorker(w *job.Worker) {
	c := s.cell(w.ID)
	if w.Connected && w.Session != c.worker.Session {
		s.connectedNow(c, w.ConnectedAt)
	}
	held := c.capacity.clone()
	held.sub(&c.free)
	before := c.worker.Queues
	c.worker = *w
	c.worker.Jobs = nil
	c.capacity = s.names.amount(w.Capacity, w.Slots)
	c.free = c.capacity.clone()
	c.free.sub(&held)
	c.price = price(w.Labels)
	s.whole.sub(&c.present)
	c.present = amount{}
	if w.Connected && !w.Lost {
		c.present = c.capacity
	}
	s.whole.add(&c.present)
	s.measured(c)
	c.usable = isUsable(c)
	s.note(c)
	c.facts = c.changed
	s.unreserve(c.reserved) // it may be no place any more for whom it was kept
	s.bind(before, w.Queues)
}

// SetLoad takes in what was measured on a worker's machine, and reports whether it can be true. What cannot is left out, and counted.
func (s *Scheduler) SetLoad(id job.WorkerID, used job.Resources) bool {
	c := s.cells.byID[id]
	if c == nil {
		return true
	}
	if !c.load.see(used, &c.capacity) {
		s.nonsense++
		return false
	}
	before := c.excess
	if s.measured(c); c.excess != before {
		s.note(c)
	}
	return true
}

// TakeNonsense returns how many measurements were left out since the last call, because they cannot be true.
func (s *Scheduler) TakeNonsense() int {
	n := s.nonsense
	s.nonsense = 0
	return n
}

// RemoveWorker forgets a worker that has no jobs.
func (s *Scheduler) RemoveWorker(id job.WorkerID) {
	c := s.cells.byID[id]
	if c == nil || len(c.running) > 0 {
		return
	}
	s.whole.sub(&c.present)
	c.usable = false
	s.note(c)
	s.unreserve(c.reserved)
	before := c.health.doubtful()
	c.health = health{}
	s.countFailing(before, &c.health)
	s.out = slices.DeleteFunc(s.out, func(other *cell) bool { return other == c })
	s.bind(c.worker.Queues, nil)
	delete(s.cells.byID, id)
	s.cells.all[c.index] = nil
	s.cells.holes = append(s.cells.holes, c.index)
}

// Held returns what the jobs of a worker hold, and how many they are.
func (s *Scheduler) Held(id job.WorkerID) (job.Resources, int32) {
	c := s.cells.byID[id]
	if c == nil {
		return job.Resources{}, 0
	}
	held := c.capacity.clone()
	held.sub(&c.free)
	return s.names.resources(&held), int32(held.jobs)
}

// cells are all workers.
type cells struct {
	all   []*cell // with holes
	holes []int
	byID  map[job.WorkerID]*cell
}

// cell returns the cell of a worker, and makes it when it is new.
func (s *Scheduler) cell(id job.WorkerID) *cell {
	if c := s.cells.byID[id]; c != nil {
		return c
	}
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(id)) // never fails
	c := &cell{tie: hash.Sum64(), worker: job.Worker{ID: id}}
	if n := len(s.cells.holes); n > 0 {
		c.index = s.cells.holes[n-1]
		s.cells.holes = s.cells.holes[:n-1]
		s.cells.all[c.index] = c
	} else {
		c.index = len(s.cells.all)
		s.cells.all = append(s.cells.all, c)
	}
	s.cells.byID[id] = c
	return c
}

// take gives a place to a job.
func (s *Scheduler) take(c *cell, r *Running, need *amount) {
	r.cell, r.place = c, len(c.running)
	c.running = append(c.running, r)
	c.free.sub(need)
	s.measured(c)
	s.note(c)
}

// give takes the place back.
func (s *Scheduler) give(r *Running, need *amount) {
	c := r.cell
	c.running = swapOut(c.running, r.place, func(moved *Running, at int) { moved.place = at })
	c.free.add(need)
	s.measured(c)
	s.note(c)
}

// measured computes how much of the load is unexplained.
func (s *Scheduler) measured(c *cell) {
	if !c.load.known {
		return
	}
	cpu := part(int64(c.load.cpu)-(c.capacity.cpu-c.free.cpu), c.capacity.cpu)
	memory := part(int64(c.load.memory)-(c.capacity.memory-c.free.memory), c.capacity.memory)
	c.excess = math.Floor(min(max(cpu, memory, 0), 1)/loadStep) * loadStep
}

// price reads the label with what a worker costs; 0 when it has none, or nonsense.
func price(labels map[string]string) float64 {
	p, err := strconv.ParseFloat(labels[job.PriceLabel], 64)
	if err != nil || math.IsNaN(p) || math.IsInf(p, 0) || p < 0 {
		return 0
	}
	return p
}

// load is the measured load of a machine, smoothed: a peak of a few seconds turns nothing away.
type load struct {
	cpu, memory float64 // thousandths of a CPU, mebibytes
	known       bool
}

const (
	loadWeight = 0.4  // of the newest measurement
	loadStep   = 0.05 // smaller differences change no order, so that an idle machine's noise is none
	mostCPU    = 1 << 20
	mostOver   = 16 // a machine has not so many times more than its agent offers
)

// see takes in a measurement, and reports whether it can be true.
func (l *load) see(used job.Resources, capacity *amount) bool {
	cpu, memory := int64(used.MilliCPU), int64(used.MemoryMiB)
	if cpu < 0 || memory < 0 || cpu > max(mostOver*capacity.cpu, mostCPU) || memory > max(mostOver*capacity.memory, mostMemory) {
		return false
	}
	weight := loadWeight
	if !l.known {
		weight = 1
	}
	l.cpu += weight * (float64(cpu) - l.cpu)
	l.memory += weight * (float64(memory) - l.memory)
	l.known = true
	return true
}

const mostMemory = 1 << 26

// note writes into the log of changes that a cell is not as it was.
func (s *Scheduler) note(c *cell) {
	c.changed = s.changes.end
	s.changes.ring[s.changes.end%changesKept] = c
	s.changes.end++
}

// changes is the log of changes of cells, the latest of them. Shapes look there for what they have to look at again.
type changes struct {
	ring [changesKept]*cell
	end  uint64 // of the whole log; begins at 1
}

const changesKept = 8192

// byEnd returns the jobs of a cell in the order in which they are expected to end. The next change of the cell makes it stale.
func (c *cell) byEnd() []*Running {
	if c.sortedAt != c.changed {
		c.sorted = append(c.sorted[:0], c.running...)
		slices.SortFunc(c.sorted, func(a, b *Running) int { return cmp.Compare(a.until, b.until) })
		c.sortedAt = c.changed
	}
	return c.sorted
}

func nanos(t time.Time) int64 { return t.UnixNano() }
