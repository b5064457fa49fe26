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
	// changed returns what was changed, by name, and whether anything was.
	changed() (targets []string, ok bool)
}

func (r *recorded) apply(s *state, now time.Time) {
	r.command.apply(s, now)
	entry := *r.entry
	if o, ok := r.command.(outcome); ok {
		targets, ok := o.changed()
		if !ok {
			return
		}
		entry.Targets = append(slices.Clone(entry.Targets), targets...)
		if len(targets) > maxTargets {
			entry.Targets = []string{targets[0], targets[len(targets)-1]}
			entry.Details = maps.Clone(entry.Details)
			if entry.Details == nil {
				entry.Details = make(map[string]string)
			}
			entry.Details["first and last of"] = strconv.Itoa(len(targets))
		}
	}
	s.entries = append(s.entries, entry)
}

// maxTargets bounds the targets that a record names: of more, which are new jobs, the first and the last say which they are.
const maxTargets = 16

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

func (c *submit) changed() ([]string, bool) {
	if c.made == 0 {
		return nil, false
	}
	targets := make([]string, 0, min(len(c.results), maxTargets+1))
	for i := range c.results {
		if r := &c.results[i]; r.Err == nil {
			targets = append(targets, r.Job.ID.String())
		}
	}
	return targets, true
}

func (c *cancel) changed() ([]string, bool) { return []string{c.id.String()}, c.err == nil }

func (c *change) changed() ([]string, bool) { return nil, c.err == nil }

func (c *drain) changed() ([]string, bool) { return []string{string(c.result.ID)}, c.err == nil }
