package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Record adds an entry to the audit trail by itself, for what was denied and for alarms; it is durable when Record returns.
func (o *Orchestrator) Record(ctx context.Context, e chain.Entry) error {
	return o.change(chain.NewContext(ctx, &e), func(*state) error { return nil })
}

// Commit writes records for other use cases, which have no jobs, logs and requests to write: there is one writer.
func (o *Orchestrator) Commit(ctx context.Context, batch *store.Batch) error {
	if len(batch.Accepted)+len(batch.Changed)+len(batch.Ends)+len(batch.Requests) > 0 {
		return errors.New("only the reactor writes jobs, logs and requests")
	}
	return o.change(ctx, func(s *state) error {
		s.records = append(s.records, batch.Records...)
		return nil
	})
}

// recorded is a command that leaves a record in the audit trail.
type recorded struct {
	command
	entry *chain.Entry
}

// outcome is what a command says of itself for the trail, after it was applied.
type outcome interface {
	// describe adds what was changed to an entry, and reports whether anything was.
	describe(*chain.Entry) bool
}

func (r *recorded) apply(s *state, now time.Time) {
	r.command.apply(s, now)
	entry := *r.entry
	entry.Targets = slices.Clip(entry.Targets)
	if o, ok := r.command.(outcome); ok && !o.describe(&entry) {
		return
	}
	s.entries = append(s.entries, entry)
}

// withEntry has a command recorded, if the context of its caller wants it. A command that fails, or changes nothing, leaves no record.
func withEntry(ctx context.Context, c command) command {
	if e := chain.Take(ctx); e != nil {
		return &recorded{c, e}
	}
	return c
}

// auditRecords turns what is to be recorded into records. They follow each other in the order of the commands.
func (s *state) auditRecords() []store.Record {
	if len(s.entries) == 0 {
		return nil
	}
	records := make([]store.Record, 0, len(s.entries))
	for i := range s.entries {
		seq, line := s.trail.Append(s.entries[i], s.now)
		records = append(records, store.Record{Kind: chain.Kind, Key: chain.Key(seq), Value: line})
	}
	return records
}

// restoreTrail finds the end of the audit trail, so that it goes on there.
func (s *state) restoreTrail(ctx context.Context, db Store) error {
	last, err := db.PageRecords(ctx, chain.Kind, store.RecordPage{Limit: 1, Descending: true})
	if err != nil {
		return fmt.Errorf("reading the end of the audit trail: %w", err)
	}
	if len(last) == 0 {
		return nil
	}
	if s.trail, err = chain.Resume(last[0].Value); err != nil { // the server starts, and whoever verifies the trail finds it
		s.logger.Error("the last record of the audit trail is damaged; the trail goes on behind it", "record", last[0].Key, "error", err)
		seq, _ := strconv.ParseUint(last[0].Key, 10, 64)
		s.trail = chain.After(seq, last[0].Value)
	}
	return nil
}

// maxTargets bounds the new jobs that a record names. Of more, the first and the last say which they are.
const maxTargets = 16

func (c *submit) describe(e *chain.Entry) bool {
	if c.made == 0 {
		return false
	}
	var targets []string
	var last job.ID
	n := 0
	for i := range c.results {
		if r := &c.results[i]; r.Err == nil {
			last = r.Job.ID
			if n++; n <= maxTargets {
				targets = append(targets, last.String())
			}
		}
	}
	if n > maxTargets {
		targets = []string{targets[0], last.String()}
		e.Details = maps.Clone(e.Details)
		if e.Details == nil {
			e.Details = make(map[string]string)
		}
		e.Details["first and last of"] = strconv.Itoa(n)
	}
	e.Targets = append(e.Targets, targets...)
	return true
}

func (c *cancel) describe(e *chain.Entry) bool {
	e.Targets = append(e.Targets, c.id.String())
	return c.err == nil
}

func (c *change) describe(*chain.Entry) bool { return c.err == nil }

func (c *drain) describe(e *chain.Entry) bool {
	e.Targets = append(e.Targets, string(c.result.ID))
	return c.err == nil
}
