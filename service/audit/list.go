package audit

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store"
)

const (
	readPage = 500
	maxList  = 1000   // records that List returns at most
	maxScan  = 20_000 // records that it looks at
	// setBack is by how much the clock may have been set back without hiding records from a search by time.
	setBack = time.Hour
)

// Filter selects records; every set field must match.
type Filter struct {
	Actor     string
	Action    string // a prefix, such as "hodei.v1.JobService/"
	Namespace string
	Outcome   string
	Target    string    // one of the targets
	Since     time.Time // this or later
	Until     time.Time // before this
}

func (f *Filter) matches(r *chain.Record) bool {
	return (f.Actor == "" || f.Actor == r.Actor) && strings.HasPrefix(r.Action, f.Action) &&
		(f.Namespace == "" || f.Namespace == r.Namespace) && (f.Outcome == "" || f.Outcome == r.Outcome) &&
		(f.Target == "" || slices.Contains(r.Targets, f.Target)) &&
		(f.Since.IsZero() || !r.Time.Before(f.Since)) && (f.Until.IsZero() || r.Time.Before(f.Until))
}

// List returns records that match, at most limit (up to 1,000) of them, from the one behind number after on, or before it when the
// newest come first; 0: from the end. It looks at a bounded number of records, so that there may be fewer, even none, and more behind
// them: next is the number to go on after, 0 when all were looked at. Records that cannot be read are left out and logged.
func (k *Keeper) List(ctx context.Context, f Filter, after uint64, limit int, newestFirst bool) (found []chain.Record, next uint64, err error) {
	limit = min(max(limit, 1), maxList)
	if after, err = k.begins(ctx, &f, after, newestFirst); err != nil {
		return nil, 0, err
	}
	p := k.pager(chain.Kind, store.RecordPage{Descending: newestFirst})
	if after > 0 {
		p.page.After = chain.Key(after)
	}
	var unreadable int
	defer func() {
		if unreadable > 0 {
			k.config.Logger.Error("records of the audit trail cannot be read; verify an export of it", "records", unreadable)
		}
	}()
	for range maxScan {
		raw, ok, err := p.next(ctx)
		if err != nil || !ok {
			return found, 0, err
		}
		r, err := chain.ParseRecord(raw.Value)
		if err != nil {
			unreadable++
			continue
		}
		if beyond(&f, &r, newestFirst) {
			return found, 0, nil
		}
		if next = r.Seq; f.matches(&r) {
			if found = append(found, r); len(found) == limit {
				return found, next, nil
			}
		}
	}
	return found, next, nil
}

// begins moves the beginning of a list to where its times are.
func (k *Keeper) begins(ctx context.Context, f *Filter, after uint64, newestFirst bool) (uint64, error) {
	at := f.Since.Add(-setBack)
	if newestFirst {
		at = f.Until.Add(setBack)
	}
	if newestFirst && f.Until.IsZero() || !newestFirst && f.Since.IsZero() {
		return after, nil
	}
	oldest, err := k.end(ctx, store.RecordPage{})
	if err != nil {
		return 0, err
	}
	newest, err := k.newest(ctx)
	if err != nil || newest.seq == 0 {
		return after, err
	}
	seq, err := k.seek(ctx, oldest.seq, newest.seq+1, at) // behind the newest when all are older
	if newestFirst {
		if after == 0 {
			after = math.MaxUint64
		}
		return min(after, seq), err
	}
	return max(after, seq-1), err
}

// beyond reports whether what follows a record in a list is too new or too old.
func beyond(f *Filter, r *chain.Record, newestFirst bool) bool {
	if newestFirst {
		return r.Time.Before(f.Since.Add(-setBack))
	}
	return !f.Until.IsZero() && r.Time.After(f.Until.Add(setBack))
}

// pager reads the records of a kind one by one.
type pager struct {
	db   store.Records
	kind string
	page store.RecordPage
	rest []store.Record
	done bool
}

func (k *Keeper) pager(kind string, page store.RecordPage) *pager {
	page.Limit = readPage
	return &pager{db: k.config.Store, kind: kind, page: page}
}

// next returns the next record, and whether there is one.
func (p *pager) next(ctx context.Context) (store.Record, bool, error) {
	if len(p.rest) == 0 && !p.done {
		var err error
		if p.rest, err = p.db.PageRecords(ctx, p.kind, p.page); err != nil {
			return store.Record{}, false, err
		}
		p.done = len(p.rest) < readPage
	}
	if len(p.rest) == 0 {
		return store.Record{}, false, nil
	}
	r := p.rest[0]
	p.rest, p.page.After = p.rest[1:], r.Key
	return r, true, nil
}
