package storelog

import (
	"context"
	"fmt"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// ListJobs implements store.Jobs.
func (s *Jobs) ListJobs(ctx context.Context, filter store.Filter, before job.ID, limit int) ([]job.Job, error) {
	l := &listing{jobs: s, filter: &filter, before: before, limit: max(limit, 0)}
	var err error
	switch {
	case len(filter.IDs) > 0:
		err = l.named(ctx)
	case len(filter.States) > 0 && !slices.ContainsFunc(filter.States, job.State.Terminal):
		waiting := slices.ContainsFunc(filter.States, job.State.Waiting)
		err = l.addressed(ctx, s.hot.unfinished(!waiting))
	default:
		err = l.listed(ctx, listsFor(&filter))
	}
	return l.found, err
}

// listing gathers one page of a list.
type listing struct {
	jobs   *Jobs
	filter *store.Filter
	before job.ID
	limit  int
	found  []job.Job
}

func (l *listing) full() bool { return len(l.found) >= l.limit }

// add takes a job in if it matches.
func (l *listing) add(j job.Job) {
	if !l.full() && l.filter.Matches(&j) {
		l.found = append(l.found, j)
	}
}

// named looks at the jobs that the filter names.
func (l *listing) named(ctx context.Context) error {
	ids := slices.Clone(l.filter.IDs)
	slices.SortFunc(ids, job.ID.Compare)
	ids = slices.Compact(ids)
	if !l.before.IsZero() {
		n, _ := slices.BinarySearchFunc(ids, l.before, job.ID.Compare)
		ids = ids[:n]
	}
	var jobs []job.Job
	if err := l.jobs.JobsByID(ctx, ids, func(j job.Job) { jobs = append(jobs, j) }); err != nil {
		return err
	}
	for _, j := range slices.Backward(jobs) {
		l.add(j)
	}
	return nil
}

// listPiece is how many pages are read at once for a list.
const listPiece = 16

// addressed looks at jobs whose places are known, from the last on.
func (l *listing) addressed(ctx context.Context, all []address) error {
	if !l.before.IsZero() { // the page that may have both larger and smaller ids is the first with a larger last one
		n, _ := slices.BinarySearchFunc(all, l.before, func(a address, id job.ID) int { return a.page.Compare(id) })
		all = all[:min(n+1, len(all))]
	}
	for len(all) > 0 && !l.full() {
		n := max(len(all)-listPiece, 0)
		if err := l.read(ctx, all[n:]); err != nil {
			return err
		}
		all = all[:n]
	}
	return nil
}

// read takes in jobs at addresses, which are in order, from the last on.
func (l *listing) read(ctx context.Context, at []address) error {
	lasts := make([]job.ID, len(at))
	for i := range at {
		lasts[i] = at[i].page
	}
	stored, err := l.jobs.engine.PagesOf(ctx, lasts)
	if err != nil {
		return fmt.Errorf("reading jobs for a list: %w", err)
	}
	for i := len(stored) - 1; i >= 0 && !l.full(); i-- {
		n, found := slices.BinarySearchFunc(at, stored[i].Last, func(a address, id job.ID) int { return a.page.Compare(id) })
		if !found {
			continue // the page that was asked for has gone meanwhile
		}
		p := l.jobs.readable(&stored[i])
		for pos := range at[n].at.down() {
			if l.full() {
				break
			}
			if pos < len(p.jobs) && len(p.jobs[pos].accepted) > 0 && (l.before.IsZero() || p.jobs[pos].id.Compare(l.before) < 0) {
				l.jobs.visit(ctx, p, pos, l.add)
			}
		}
	}
	return ctx.Err()
}

// listed goes through lists.
func (l *listing) listed(ctx context.Context, lists []List) error {
	below := job.ID{}
	if !l.before.IsZero() {
		straddling, err := l.jobs.engine.PagesFrom(ctx, l.before, 1)
		if err != nil {
			return fmt.Errorf("reading a list of jobs: %w", err)
		}
		if len(straddling) > 0 {
			below = straddling[0].Last.Plus(1)
		}
	}
	readers := make([]listReader, len(lists))
	for i := range readers {
		readers[i] = listReader{engine: l.jobs.engine, list: lists[i], below: below}
	}
	for !l.full() {
		at, err := nextAddresses(ctx, readers, listPiece)
		if err != nil || len(at) == 0 {
			return err
		}
		slices.Reverse(at)
		if err := l.read(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// listReader goes through a list from its end.
type listReader struct {
	engine Engine
	list   List
	below  job.ID
	ahead  []Listed
	ended  bool
}

// head returns the page that is next, nil at the end.
func (r *listReader) head(ctx context.Context) (*Listed, error) {
	if len(r.ahead) == 0 && !r.ended {
		var err error
		if r.ahead, err = r.engine.Listed(ctx, r.list, r.below, listPiece); err != nil {
			return nil, fmt.Errorf("reading a list of jobs: %w", err)
		}
		if r.ended = len(r.ahead) < listPiece; len(r.ahead) > 0 {
			r.below = r.ahead[len(r.ahead)-1].Page
		}
	}
	if len(r.ahead) == 0 {
		return nil, nil
	}
	return &r.ahead[0], nil
}

// nextAddresses returns the next n pages of all lists together, the newest first.
func nextAddresses(ctx context.Context, readers []listReader, n int) ([]address, error) {
	var out []address
	for len(out) < n {
		var newest job.ID
		for i := range readers {
			head, err := readers[i].head(ctx)
			if err != nil {
				return nil, err
			}
			if head != nil && newest.Compare(head.Page) < 0 {
				newest = head.Page
			}
		}
		if newest.IsZero() {
			return out, nil
		}
		a := address{page: newest}
		for i := range readers {
			if ahead := readers[i].ahead; len(ahead) > 0 && ahead[0].Page == newest {
				at, err := ahead[0].positions()
				if err != nil {
					return nil, err
				}
				a.at |= at
				readers[i].ahead = ahead[1:]
			}
		}
		out = append(out, a)
	}
	return out, nil
}
