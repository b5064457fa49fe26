package orchestrator

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Run is the reactor. It returns nil when the context ends, and an error when a commit failed: then nothing more can be
// promised, and the process must end.
func (o *Orchestrator) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var batch []command
	for {
		select {
		case <-ctx.Done():
			o.stop(nil)
			return nil
		case <-o.inbox.ready:
		case <-timer.C:
		}
		runtime.Gosched() // others that are about to put something into the inbox go first, so that one commit serves them all
		batch = o.inbox.take(batch[:0], maxBatch)
		if err := o.turn(ctx, batch); err != nil {
			o.stop(batch)
			return err
		}
		clear(batch)
		timer.Reset(o.state.nextTimer(o.config.Clock()))
	}
}

// turn applies one batch, commits it and lets its effects out.
func (o *Orchestrator) turn(ctx context.Context, batch []command) error {
	s, now := o.state, o.config.Clock()
	s.now = now
	if err := s.tick(now); err != nil {
		return unreadable(err)
	}
	for _, c := range batch {
		c.apply(s, now)
	}
	s.settleMissed(now)
	s.checkLeases(now) // after what has been said meanwhile
	scheduled, err := s.place()
	if err != nil {
		return unreadable(err)
	}
	writes := s.collect()
	if !writes.Empty() {
		// The commit must not be cut off half-way by a caller who leaves: what is applied is applied.
		if err := o.config.Store.Commit(context.WithoutCancel(ctx), writes); err != nil {
			return fmt.Errorf("the store refused a commit of %d jobs, so the server stops rather than forget them: %w",
				len(writes.Accepted)+len(writes.Changed), err)
		}
		o.config.Metrics.Commit(o.config.Clock().Sub(now), len(writes.Accepted)+len(writes.Changed))
	}
	o.publish(writes)
	o.count(scheduled)
	s.release()
	for _, c := range batch {
		c.done(nil)
	}
	return nil
}

func unreadable(err error) error {
	return fmt.Errorf("the store cannot be read, so the server stops: %w", err)
}

// publish lets out the effects of a commit: orders to workers, then events.
func (o *Orchestrator) publish(writes *store.Batch) {
	s := o.state
	for _, w := range s.ordering {
		o.config.Dispatcher.Assign(w.ID, w.orders)
		w.orders = nil // the dispatcher owns them now
	}
	clear(s.ordering)
	s.ordering = s.ordering[:0]
	for _, c := range s.cancels {
		o.config.Dispatcher.Cancel(c.worker, c.ref, c.step, c.force)
	}
	s.cancels = s.cancels[:0]
	if !o.config.Bus.Wanted() {
		o.config.Bus.Skip(len(s.dirty))
		return
	}
	events := make([]job.Job, 0, len(s.dirty))
	for _, list := range [][]*job.Job{writes.Accepted, writes.Changed} {
		for _, j := range list {
			events = append(events, *j)
		}
	}
	o.config.Bus.Publish(events)
}

func (o *Orchestrator) count(scheduled int) {
	s, metrics := o.state, o.config.Metrics
	if s.submitted > 0 {
		metrics.JobsSubmitted(s.submitted)
	}
	if scheduled > 0 {
		metrics.JobsScheduled(scheduled)
	}
	if s.stale > 0 {
		metrics.StaleReports(s.stale)
	}
	if n := s.sched.TakeNonsense(); n > 0 {
		metrics.MeasurementsIgnored(n)
	}
	for end, n := range s.endings {
		metrics.JobsEnded(end.state.String(), end.cause.String(), n)
	}
	clear(s.endings)
	s.submitted, s.stale = 0, 0
}

// stop answers everybody who waits.
func (o *Orchestrator) stop(batch []command) {
	for _, c := range append(batch, o.inbox.close()...) {
		if c != nil {
			c.done(errStopped())
		}
	}
}
