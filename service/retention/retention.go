// Package retention forgets the logs of ended jobs as the policies of their namespaces say. The jobs stay, and readers of such a log
// are told when and why it was removed.
package retention

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Store is what retention needs of a store.
type Store interface {
	store.Committer
	store.Records
	store.Jobs
}

// Logs is what retention needs of the log keeper.
type Logs interface {
	State(ctx context.Context, ref store.LogRef) (store.LogState, error)
	Close(ctx context.Context, ref store.LogRef, why string) error
	Remove(ctx context.Context, refs []store.LogRef, why string) error
}

// Policy says how long the logs of a namespace are kept.
type Policy struct {
	Namespace string        `json:"-"`
	MaxAge    time.Duration `json:"max_age,omitempty"`   // from the end of the job; 0: for as long as the job
	MaxBytes  uint64        `json:"max_bytes,omitempty"` // of all logs together, as they were written; 0: any number
}

// recordKind is the kind of the records of policies; their keys are namespaces.
const recordKind = "log-retention"

const (
	pageSize = 500 // jobs that are looked at at once
	// enough is after how many logs in a row that were removed before a sweep stops, because older ones were too; every fullSweep it
	// goes on to the oldest.
	enough    = 1000
	fullSweep = 24 * time.Hour
	// patience is how long after the end of its job the rest of a log may come from its agent.
	patience = 24 * time.Hour
)

// Keeper applies policies. The methods may be called at once.
type Keeper struct {
	store  Store
	logs   Logs
	now    func() time.Time
	logger *slog.Logger

	mu   sync.Mutex
	full time.Time // when a sweep went on to the oldest log
}

// New makes a Keeper.
func New(db Store, keeper Logs, now func() time.Time, logger *slog.Logger) *Keeper {
	return &Keeper{store: db, logs: keeper, now: now, logger: logger}
}

// Set gives a namespace a policy; one without limits takes it away.
func (k *Keeper) Set(ctx context.Context, p Policy) error {
	if err := job.CheckNamespace(p.Namespace); err != nil {
		return err
	}
	if p.MaxAge < 0 {
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "max_age: %v; it must not be negative", p.MaxAge)
	}
	record := store.Record{Kind: recordKind, Key: p.Namespace}
	if p.MaxAge > 0 || p.MaxBytes > 0 {
		var err error
		if record.Value, err = json.Marshal(p); err != nil {
			return err
		}
	}
	k.mu.Lock()
	k.full = time.Time{} // a policy may reach what was left before
	k.mu.Unlock()
	return k.store.Commit(ctx, &store.Batch{Records: []store.Record{record}})
}

// List returns the policies by namespace.
func (k *Keeper) List(ctx context.Context) ([]Policy, error) {
	records, err := k.store.ListRecords(ctx, recordKind)
	if err != nil {
		return nil, err
	}
	var all []Policy
	for _, r := range records {
		p := Policy{Namespace: r.Key}
		if err := json.Unmarshal(r.Value, &p); err != nil {
			k.logger.Error("a retention policy is damaged; set it again", "namespace", r.Key, "error", err)
			continue
		}
		all = append(all, p)
	}
	return all, nil
}

// Sweep removes the logs that the policies do not keep, and returns how many.
func (k *Keeper) Sweep(ctx context.Context) (removed int, err error) {
	policies, err := k.List(ctx)
	if err != nil || len(policies) == 0 {
		return 0, err
	}
	now := k.now()
	k.mu.Lock()
	full := now.Sub(k.full) >= fullSweep
	if full {
		k.full = now
	}
	k.mu.Unlock()
	for _, p := range policies {
		s := sweep{keeper: k, policy: p, now: now, full: full}
		if err := s.run(ctx); err != nil {
			return removed, fmt.Errorf("applying the retention of namespace %s: %w", p.Namespace, err)
		}
		removed += s.removed
	}
	return removed, nil
}

// sweep goes through the ended jobs of a namespace, from the newest to the oldest.
type sweep struct {
	keeper  *Keeper
	policy  Policy
	now     time.Time
	full    bool
	bytes   uint64 // of the logs so far
	gone    int    // logs in a row that were removed before
	removed int
}

func (s *sweep) run(ctx context.Context) error {
	filter := store.Filter{Namespace: s.policy.Namespace, States: job.TerminalStates()}
	for before := (job.ID{}); ; {
		jobs, err := s.keeper.store.ListJobs(ctx, filter, before, pageSize)
		if err != nil || len(jobs) == 0 {
			return err
		}
		for i := range jobs {
			if err := s.job(ctx, &jobs[i]); err != nil {
				return err
			}
		}
		if !s.full && s.gone >= enough {
			return nil
		}
		before = jobs[len(jobs)-1].ID
	}
}

func (s *sweep) job(ctx context.Context, j *job.Job) error {
	for attempt := j.Attempt; attempt > 0; attempt-- {
		ref := store.LogRef{Job: j.ID, Attempt: attempt}
		state, err := s.keeper.logs.State(ctx, ref)
		if err != nil {
			return err
		}
		if state.Bytes == 0 {
			if state.End != nil && state.End.Removed != "" {
				s.gone++
			}
			continue
		}
		s.gone = 0
		s.bytes += state.Bytes
		why := s.why(j)
		if why == "" || state.End == nil && s.now.Sub(j.Ended) < patience {
			continue
		}
		if state.End == nil {
			if err := s.keeper.logs.Close(ctx, ref, "its worker did not send the rest"); err != nil {
				return err
			}
		}
		if err := s.keeper.logs.Remove(ctx, []store.LogRef{ref}, why); err != nil {
			return err
		}
		s.removed++
	}
	return nil
}

// why says why a log is removed, empty when it is kept.
func (s *sweep) why(j *job.Job) string {
	p := &s.policy
	var over string
	switch {
	case p.MaxAge > 0 && s.now.Sub(j.Ended) > p.MaxAge:
		over = fmt.Sprintf("it was older than %v", p.MaxAge)
	case p.MaxBytes > 0 && s.bytes > p.MaxBytes:
		over = fmt.Sprintf("it and newer logs had more than %d bytes", p.MaxBytes)
	default:
		return ""
	}
	return fmt.Sprintf("removed on %s by the retention of namespace %s: %s", s.now.UTC().Format(time.RFC3339), p.Namespace, over)
}
