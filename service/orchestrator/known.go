package orchestrator

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// workerRecord is the kind of the records that keep what is known of a worker over a restart of the server: without them it would
// take jobs for too large until the large workers are back.
const workerRecord = "worker"

// known is what is kept of a worker.
type known struct {
	Name     string
	Labels   map[string]string
	Taints   []string
	Can      []string
	Queues   []string `json:",omitempty"`
	Capacity job.Resources
	Slots    int32
}

// keepWorker writes what is known of a worker, if that is new.
func (s *state) keepWorker(w *worker) {
	value, err := json.Marshal(known{w.Name, w.Labels, w.Taints, w.Capabilities, w.Queues, w.Capacity, w.Slots})
	if err != nil || string(value) == w.kept {
		return // strings and numbers can always be written
	}
	w.kept = string(value)
	s.records = append(s.records, store.Record{Kind: workerRecord, Key: string(w.ID), Value: value})
}

// forgetWorker forgets one that has not been seen for long.
func (s *state) forgetWorker(id job.WorkerID) {
	delete(s.workers, id)
	s.sched.RemoveWorker(id)
	s.records = append(s.records, store.Record{Kind: workerRecord, Key: string(id)})
}

// restoreWorkers takes in the workers of the server's former life. Each gets a full lease to come back.
func (s *state) restoreWorkers(ctx context.Context, db Store, now time.Time) error {
	records, err := db.ListRecords(ctx, workerRecord)
	if err != nil {
		return fmt.Errorf("reading which workers there are: %w", err)
	}
	for _, r := range records {
		var k known
		if !s.readable(r, &k) {
			continue
		}
		w := &worker{kept: string(r.Value), Worker: job.Worker{
			ID: job.WorkerID(r.Key), Name: k.Name, Labels: k.Labels, Taints: k.Taints, Capabilities: k.Can, Queues: k.Queues, Capacity: k.Capacity,
			Slots: k.Slots, Draining: s.drained[job.WorkerID(r.Key)], LastHeartbeat: now,
		}}
		s.workers[w.ID] = w
		s.sched.SetWorker(&w.Worker)
	}
	return nil
}
