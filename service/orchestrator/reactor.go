package orchestrator

import (
	"context"
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
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
	s.tick(now)
	for _, c := range batch {
		c.apply(s, now)
	}
	rejections, scheduled := s.place(now)
	writes := s.collect()
	if !writes.Empty() {
		// The commit must not be cut off half-way by a caller who leaves: what is applied is applied.
		if err := o.config.Store.Commit(context.WithoutCancel(ctx), writes); err != nil {
			return fmt.Errorf("the store refused a commit of %d jobs, so the server stops rather than forget them: %w",
				len(writes.Accepted)+len(writes.Changed), err)
		}
		o.config.Metrics.Commit(o.config.Clock().Sub(now), len(writes.Accepted)+len(writes.Changed))
	}
	o.publish(rejections, scheduled)
	for _, c := range batch {
		c.done(nil)
	}
	return nil
}

// publish lets out the effects of a commit: orders to workers, then events, then counts.
func (o *Orchestrator) publish(rejections []scheduler.Rejection, scheduled int) {
	s := o.state
	for _, order := range s.orders {
		if order.assign {
			o.config.Dispatcher.Assign(order.job)
		} else {
			o.config.Dispatcher.Cancel(order.job, order.step)
		}
	}
	clear(s.orders)
	s.orders = s.orders[:0]
	if rejections != nil || scheduled > 0 {
		reasons := make(map[job.ID]string, len(rejections))
		for _, r := range rejections {
			reasons[r.Job] = r.Reason
		}
		o.reasons.Store(&reasons)
	}
	o.count(scheduled)
	if len(s.events) > 0 {
		o.config.Bus.Publish(s.events)
		s.events = nil // the bus owns them now
	}
}

func (o *Orchestrator) count(scheduled int) {
	s := o.state
	if s.submitted > 0 {
		o.config.Metrics.JobsSubmitted(s.submitted)
	}
	if scheduled > 0 {
		o.config.Metrics.JobsScheduled(scheduled)
	}
	for range s.stale {
		o.config.Metrics.StaleReport()
	}
	for i := range s.events {
		if j := &s.events[i]; j.State.Terminal() {
			o.config.Metrics.JobEnded(j.State.String(), j.Cause.Kind.String())
		}
	}
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
