package orchestrator

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// The record that holds the last term, big-endian.
const (
	serverRecord = "server"
	termKey      = "term"
)

// recoverState rebuilds the state from the store and begins a new term, so that no epoch is ever given out twice.
func recoverState(ctx context.Context, config Config) (*state, error) {
	s := newState(config)
	term, err := nextTerm(ctx, config.Store)
	if err != nil {
		return nil, err
	}
	s.epoch = term << 32
	quarantined, err := config.Store.Unfinished(ctx, func(j job.Job) error {
		s.restore(j, config)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the unfinished jobs: %w", err)
	}
	if err := s.restoreDrains(ctx, config.Store); err != nil {
		return nil, err
	}
	config.Logger.Info("jobs recovered", "unfinished", len(s.jobs), "quarantined", quarantined, "term", term)
	s.unsettled = true
	return s, nil
}

func nextTerm(ctx context.Context, db Store) (uint64, error) {
	var term uint64
	value, err := db.Record(ctx, serverRecord, termKey)
	switch {
	case err == nil && len(value) == 8:
		term = binary.BigEndian.Uint64(value)
	case err == nil:
		return 0, fmt.Errorf("the record of the server's term has %d bytes instead of 8: the data folder is damaged; restore a backup", len(value))
	case job.CodeOf(err) != job.CodeNotFound:
		return 0, fmt.Errorf("reading the server's term: %w", err)
	}
	term++
	record := store.Record{Kind: serverRecord, Key: termKey, Value: binary.BigEndian.AppendUint64(nil, term)}
	if err := db.Commit(ctx, &store.Batch{Records: []store.Record{record}}); err != nil {
		return 0, fmt.Errorf("writing the server's term: %w", err)
	}
	return term, nil
}

// restore takes an unfinished job in. A worker that has jobs is known from them and gets a full lease to come back.
func (s *state) restore(j job.Job, config Config) {
	s.jobs[j.ID] = &j
	s.counts[j.State]++
	if j.State == job.Delayed {
		s.delayed.push(j.NextAttempt, j.ID)
	}
	if !j.State.OnWorker() {
		return
	}
	w := s.workers[j.Worker]
	if w == nil {
		w = &job.Worker{ID: j.Worker, Name: string(j.Worker), LastHeartbeat: config.Clock()}
		s.workers[j.Worker] = w
	}
	w.Take(j.ID, j.Spec.Resources)
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
