package orchestrator

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
	"github.com/hodei-jobs/hodei/service/store"
)

// state is all that the reactor knows: the unfinished jobs and the workers. Only the reactor touches it.
type state struct {
	jobs    map[job.ID]*job.Job
	workers map[job.WorkerID]*job.Worker
	delayed timers
	counts  map[job.State]int

	drained map[job.WorkerID]bool // by an operator; kept over restarts

	newJobID      func() job.ID
	stored        func(id job.ID) (job.Job, error)       // a job that may have ended
	requests      func(id string) (store.Request, error) // what the store remembers
	lease         time.Duration
	maxUnfinished int
	epoch         uint64 // the last one that was given out; its upper half is the term

	// What the batch under way does. Emptied by collect and publish.
	changed    map[job.ID]bool // value: whether the job is new
	newRequest map[string]store.Request
	records    []store.Record
	ended      []job.Job
	orders     []order
	events     []job.Job
	submitted  int
	stale      int
	unsettled  bool // something changed that may let a waiting job start
}

// order is a message to a worker that goes out after the commit.
type order struct {
	job    job.Job
	assign bool
	step   int // for a cancel; -1: the whole attempt
}

func newState(config Config) *state {
	return &state{
		jobs: make(map[job.ID]*job.Job), workers: make(map[job.WorkerID]*job.Worker), counts: make(map[job.State]int),
		drained: make(map[job.WorkerID]bool),
		changed: make(map[job.ID]bool), newRequest: make(map[string]store.Request),
		newJobID: config.NewJobID, lease: config.Lease, maxUnfinished: config.MaxUnfinished,
		stored:   func(id job.ID) (job.Job, error) { return config.Store.Job(context.Background(), id) },
		requests: func(id string) (store.Request, error) { return config.Store.Request(context.Background(), id) },
	}
}

// add takes a new job in.
func (s *state) add(j job.Job) {
	s.jobs[j.ID] = &j
	s.changed[j.ID] = true
	s.counts[j.State]++
	s.submitted++
	s.entered(&j)
}

// put replaces a job by what a transition made of it, and keeps places, timers and counts in step.
func (s *state) put(j job.Job) {
	before := s.jobs[j.ID]
	if before.Revision == j.Revision {
		return
	}
	s.counts[before.State]--
	if before.State.OnWorker() && !j.State.OnWorker() {
		s.release(before)
	}
	isNew := s.changed[j.ID]
	if !j.State.Terminal() {
		s.jobs[j.ID] = &j
		s.changed[j.ID] = isNew
		s.counts[j.State]++
	} else {
		// A job that is accepted and ends in the same batch is still written as a new one.
		delete(s.jobs, j.ID)
		if !isNew {
			delete(s.changed, j.ID)
			s.ended = append(s.ended, j)
		} else {
			s.jobs[j.ID] = &j // collect takes it out
		}
	}
	if before.State != j.State {
		s.entered(&j)
	}
}

// entered does what a job's arrival in its state calls for.
func (s *state) entered(j *job.Job) {
	switch j.State {
	case job.Queued:
		s.unsettled = true
	case job.Delayed:
		s.delayed.push(j.NextAttempt, j.ID)
	}
}

func (s *state) release(j *job.Job) {
	if w := s.workers[j.Worker]; w != nil {
		w.Give(j.ID, j.Spec.Resources)
		s.unsettled = true
	}
}

// tick does what the passing of time calls for.
func (s *state) tick(now time.Time) {
	for _, id := range s.delayed.due(now) {
		j := s.jobs[id]
		if j == nil || j.State != job.Delayed || j.NextAttempt.After(now) {
			continue // canceled, or delayed anew
		}
		if ready, err := j.Ready(); err == nil {
			s.put(ready)
		}
	}
	s.checkLeases(now)
}

// nextTimer returns how long the reactor may sleep when no command comes.
func (s *state) nextTimer(now time.Time) time.Duration {
	wait := time.Hour
	if len(s.workers) > 0 {
		wait = leaseCheck
	}
	if at, ok := s.delayed.next(); ok {
		wait = min(wait, max(at.Sub(now), 0))
	}
	return wait
}

// place asks the scheduler, when something changed that it should look at, and assigns what it decided.
func (s *state) place(now time.Time) (rejections []scheduler.Rejection, scheduled int) {
	if !s.unsettled {
		return nil, 0
	}
	s.unsettled = false
	view := scheduler.View{Workers: slices.Collect(maps.Values(s.workers))}
	if s.counts[job.Queued] > 0 {
		for _, j := range s.jobs {
			if j.State == job.Queued {
				view.Queued = append(view.Queued, j)
			}
		}
	}
	plan := scheduler.Place(view)
	for _, p := range plan.Placements {
		s.epoch++
		assigned, err := s.jobs[p.Job].Assign(p.Worker, s.epoch)
		if err != nil {
			continue // the view is made of this state, so this cannot be; the job just stays queued
		}
		s.workers[p.Worker].Take(p.Job, assigned.Spec.Resources)
		s.put(assigned)
		s.orders = append(s.orders, order{job: assigned, assign: true})
	}
	if plan.Rejections == nil {
		plan.Rejections = []scheduler.Rejection{}
	}
	return plan.Rejections, len(plan.Placements)
}

// collect turns what changed into one batch for the store, and into events.
func (s *state) collect() *store.Batch {
	batch := &store.Batch{Changed: s.ended, Records: s.records}
	for id, isNew := range s.changed {
		j := *s.jobs[id]
		if isNew {
			batch.Accepted = append(batch.Accepted, j)
		} else {
			batch.Changed = append(batch.Changed, j)
		}
		if j.State.Terminal() {
			delete(s.jobs, id)
		}
	}
	for _, r := range s.newRequest {
		batch.Requests = append(batch.Requests, r)
	}
	s.events = append(append(s.events, batch.Accepted...), batch.Changed...)
	clear(s.changed)
	clear(s.newRequest)
	s.ended, s.records = nil, nil
	return batch
}
