package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// watchHeartbeat is how often a quiet watch says that it lives.
const watchHeartbeat = 15 * time.Second

// watchPage is how many jobs the first answers of a watch carry at most.
const watchPage = 500

// Change is one answer of a watch.
type Change struct {
	Jobs            []job.Job // as they stand after the change, in the order of the changes
	ResumeToken     string
	InitialComplete bool // everything that existed at the start was sent
}

// Watch sends the jobs that match as they stand, then every change, until the context ends or send fails. With the resume
// token of an earlier Change it goes on after it instead; CodeOutOfRange when that is too long ago. A change may be sent
// twice, none is left out; a job's Revision tells which is newer.
func (o *Orchestrator) Watch(ctx context.Context, filter store.Filter, token string, send func(Change) error) error {
	defer o.config.Bus.Join()()
	w := &watch{o: o, filter: filter, send: send}
	if token != "" {
		seq, err := o.parseToken(token)
		if err != nil {
			return err
		}
		w.seq, w.complete = seq, true
	} else if err := w.snapshot(ctx); err != nil {
		return err
	}
	for {
		err := w.next(ctx)
		if errors.Is(err, bus.ErrLagged) && token == "" {
			err = w.snapshot(ctx) // what was missed is in the store
		}
		if errors.Is(err, bus.ErrLagged) {
			return errExpired()
		}
		if err != nil {
			return err
		}
		token = "" // from here on the client has everything, so a later gap can be filled
	}
}

type watch struct {
	o        *Orchestrator
	filter   store.Filter
	send     func(Change) error
	seq      uint64
	complete bool
	events   []bus.Event
}

// snapshot sends what is in the store. Events from before it may be sent again afterwards.
func (w *watch) snapshot(ctx context.Context) error {
	w.seq = w.o.config.Bus.Last()
	var before job.ID
	for {
		jobs, err := w.o.config.Store.ListJobs(ctx, w.filter, before, watchPage)
		if err != nil {
			return err
		}
		w.complete = w.complete || len(jobs) < watchPage
		if err := w.send(Change{Jobs: jobs, ResumeToken: w.token(), InitialComplete: w.complete}); err != nil {
			return err
		}
		if len(jobs) < watchPage {
			return nil
		}
		before = jobs[len(jobs)-1].ID
	}
}

// next waits for events and sends those that match, or an empty answer when it is quiet for long.
func (w *watch) next(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, watchHeartbeat)
	defer cancel()
	var err error
	w.events, err = w.o.config.Bus.Next(wait, w.seq, w.events[:0])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	quiet := errors.Is(err, context.DeadlineExceeded)
	if err != nil && !quiet {
		return err
	}
	var jobs []job.Job
	for _, e := range w.events {
		w.seq = e.Seq
		if w.filter.Matches(e.Job) {
			jobs = append(jobs, *e.Job)
		}
	}
	clear(w.events)
	if len(jobs) == 0 && !quiet {
		return nil
	}
	return w.send(Change{Jobs: jobs, ResumeToken: w.token(), InitialComplete: w.complete})
}

// token names a position: the term of this server, because positions begin anew with it, and the event.
func (w *watch) token() string { return fmt.Sprintf("%d.%d", w.o.term, w.seq) }

func (o *Orchestrator) parseToken(token string) (uint64, error) {
	term, seq, ok := strings.Cut(token, ".")
	t, errTerm := strconv.ParseUint(term, 10, 64)
	n, errSeq := strconv.ParseUint(seq, 10, 64)
	if !ok || errTerm != nil || errSeq != nil {
		return 0, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "resume_token %q is not one that this server gave", token)
	}
	if t != o.term {
		return 0, errExpired()
	}
	return n, nil
}

func errExpired() error {
	return job.Errorf(job.CodeOutOfRange, job.ReasonResumeTokenExpired,
		"the resume_token is from too long ago; start the watch again without it")
}
