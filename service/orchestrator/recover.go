package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// recoverState rebuilds the state from the store and begins a new term, so that no epoch is ever given out twice.
func recoverState(ctx context.Context, config Config) (*state, error) {
	s := newState(config)
	var err error
	if s.term, err = config.Store.Lead(ctx); err != nil {
		return nil, fmt.Errorf("taking the lead of the store: %w", err)
	}
	s.epoch = s.term << 32
	if err := s.restoreDrains(ctx, config.Store); err != nil {
		return nil, err
	}
	if err := s.restoreWorkers(ctx, config.Store, config.Clock()); err != nil {
		return nil, err
	}
	if err := s.restoreTrail(ctx, config.Store); err != nil {
		return nil, err
	}
	if err := s.restoreSettings(ctx, config.Store); err != nil {
		return nil, err
	}
	quarantined, err := config.Store.Unfinished(ctx, func(j job.Job) error {
		s.restore(j, config.Clock())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the unfinished jobs: %w", err)
	}
	if s.newest, err = config.Store.Newest(ctx); err != nil {
		return nil, fmt.Errorf("reading the newest job: %w", err)
	}
	if err := s.restoreHistory(ctx, config.Store); err != nil {
		return nil, err
	}
	config.Logger.Info("jobs recovered", "unfinished", s.unfinished(), "quarantined", quarantined, "term", s.term)
	s.unsettled = true
	return s, nil
}

// restore takes an unfinished job in. A worker that has jobs is known from them and gets a full lease to come back.
func (s *state) restore(j job.Job, now time.Time) {
	s.counts[j.State]++
	switch {
	case j.State == job.Queued:
		s.sched.Add(j.ID, j.Spec, j.Attempt > 0)
	case j.State == job.Delayed:
		s.delayed.push(j.NextAttempt, j.ID)
	case j.State.OnWorker():
		w := s.workers[j.Worker]
		if w == nil {
			w = &worker{Worker: job.Worker{ID: j.Worker, Name: string(j.Worker), LastHeartbeat: now}}
			s.workers[j.Worker] = w
			s.sched.SetWorker(&w.Worker)
		}
		e := s.bring(j)
		e.place = s.sched.Begin(j.ID, j.Spec, j.Attempt > 1, j.Worker, cmp.Or(j.Started, now))
		w.join(e)
	}
}

// historyJobs is at how many jobs a new life of the server looks to learn how long jobs run.
const historyJobs = 1000

// restoreHistory learns from those of the newest jobs that have succeeded. It does not look for more of them: behind a million that
// wait, that would take long.
func (s *state) restoreHistory(ctx context.Context, db Store) error {
	jobs, err := db.ListJobs(ctx, store.Filter{}, job.ID{}, historyJobs)
	if err != nil {
		return fmt.Errorf("reading the latest jobs: %w", err)
	}
	for i := range slices.Backward(jobs) {
		if j := &jobs[i]; j.State == job.Succeeded {
			s.sched.Learn(j.Spec, usageOf(j))
		}
	}
	return nil
}

func (s *state) restoreDrains(ctx context.Context, db Store) error {
	records, err := db.ListRecords(ctx, drainRecord)
	if err != nil {
		return fmt.Errorf("reading which workers drain: %w", err)
	}
	for _, r := range records {
		s.drained[job.WorkerID(r.Key)] = true
	}
	return nil
}
