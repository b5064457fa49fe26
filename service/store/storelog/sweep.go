package storelog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Sweep is old jobs that are to be forgotten.
type Sweep struct {
	Jobs    []Run     // the jobs that go, for their logs
	Pages   []Run     // pages of which nothing stays, by their last ids
	Lists   []ListRun // what these pages have on lists
	Rest    []Value   // of pages of which something stays
	Removed int       // jobs
	More    bool      // there may be more that are old enough

	jobsOpen  bool         // the last run of jobs goes on
	pagesOpen bool         // likewise
	lists     map[List]int // the runs of lists for the last run of pages, which goes on
}

// Run is jobs or pages that go and have none that stays between them, by the first and the last id.
type Run struct{ First, Last job.ID }

// ListRun is a run of pages on a list.
type ListRun struct {
	List List
	Run
}

// sweepPages is how many pages one sweep looks at.
const sweepPages = 1024

// Sweep looks for jobs that ended before a time, from a page on, which is zero for the oldest. next is where to go on.
func (s Log) Sweep(ctx context.Context, endedBefore time.Time, from job.ID) (sweep *Sweep, next job.ID, err error) {
	sweep = &Sweep{lists: make(map[List]int)}
	tooNew := job.NewID(endedBefore, 0, 0) // what was accepted later cannot have ended before
	for seen := 0; from.Compare(tooNew) < 0; {
		stored, err := s.engine.PagesFrom(ctx, from, listPiece)
		if err != nil {
			return nil, from, fmt.Errorf("looking for old jobs: %w", err)
		}
		for i := range stored {
			sweep.look(s.Jobs, &stored[i], endedBefore)
			from = stored[i].Last.Plus(1)
		}
		if len(stored) < listPiece {
			return sweep, from, ctx.Err()
		}
		if seen += len(stored); seen >= sweepPages {
			sweep.More = true
			break
		}
	}
	return sweep, from, ctx.Err()
}

// look takes in what of a page is old enough.
func (w *Sweep) look(s *Jobs, stored *Page, before time.Time) {
	p, err := decodePage(stored)
	if err != nil {
		s.logger.Error("jobs that cannot be read are kept beyond their time", "error", err)
		w.jobsOpen, w.pagesOpen = false, false
		return
	}
	var gone, stays, unread positions
	var lists [2]lister // of those that go, and of those that stay
	for i := range p.jobs {
		if len(p.jobs[i].accepted) == 0 {
			continue
		}
		j, err := s.job(p, i)
		if errors.Is(err, errMoved) { // just now, so it is not old
			j, err = decodeJob(p.jobs[i].id, p.jobs[i].accepted, nil)
		}
		if err != nil {
			s.logger.Error("a job that cannot be read is kept beyond its time", "error", err)
			w.jobsOpen = false
			stays, unread = stays|1<<i, unread|1<<i
			continue
		}
		if j.State.Terminal() && j.Ended.Before(before) {
			gone |= 1 << i
			w.Removed++
			w.Jobs = extend(w.Jobs, &w.jobsOpen, j.ID)
			lists[0].everywhere(&j, p.last, i)
			continue
		}
		w.jobsOpen = false
		stays |= 1 << i
		lists[1].everywhere(&j, p.last, i)
	}
	switch {
	case stays == 0:
		w.page(p.last, lists[0].all)
	case gone != 0:
		if unread != 0 {
			lists[0].all = nil // nobody knows which of them it is on
		}
		w.rest(p, gone, &lists)
		fallthrough
	default:
		w.pagesOpen = false
	}
}

// rest takes in a page of which something stays: the jobs that go leave it, and lists that no other job of it is on, nor can be before
// this sweep is removed.
func (w *Sweep) rest(p *page, gone positions, lists *[2]lister) {
	w.Rest = append(w.Rest, Value{p.last, without(p.jobs, gone)})
	for i := range lists[0].all {
		list := lists[0].all[i].List
		if !slices.ContainsFunc(lists[1].all, func(l Listing) bool { return l.List == list }) {
			w.Lists = append(w.Lists, ListRun{list, Run{p.last, p.last}})
		}
	}
}

// page takes in a page that goes.
func (w *Sweep) page(last job.ID, listings []Listing) {
	if !w.pagesOpen {
		clear(w.lists)
	}
	w.Pages = extend(w.Pages, &w.pagesOpen, last)
	for i := range listings {
		list := listings[i].List
		if at, ok := w.lists[list]; ok {
			w.Lists[at].Last = last
			continue
		}
		w.lists[list] = len(w.Lists)
		w.Lists = append(w.Lists, ListRun{list, Run{last, last}})
	}
}

// extend adds an id to the last run if it is open, else to a new one.
func extend(runs []Run, open *bool, id job.ID) []Run {
	if !*open {
		runs = append(runs, Run{First: id})
	}
	*open = true
	runs[len(runs)-1].Last = id
	return runs
}
