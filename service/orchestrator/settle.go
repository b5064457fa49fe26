package orchestrator

import (
	"context"
	"errors"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
)

// AttemptSettled waits until an attempt has ended in the store: its job is terminal, or has gone on to another attempt. It
// returns false, so that the caller can show that it lives, when that takes long.
func (o *Orchestrator) AttemptSettled(ctx context.Context, id job.ID, attempt int32) (bool, error) {
	wait, cancel := context.WithTimeout(ctx, watchHeartbeat)
	defer cancel()
	defer o.config.Bus.Join()()
	seq := o.config.Bus.Last() // before the look at the store, so that a change after it is seen
	j, err := o.config.Store.Job(ctx, id)
	if err != nil || settled(&j, attempt) {
		return err == nil, err
	}
	var events []bus.Event
	for {
		events, err = o.config.Bus.Next(wait, seq, events[:0])
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, bus.ErrLagged), errors.Is(err, context.DeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		}
		for _, e := range events {
			seq = e.Seq
			if e.Job.ID == id && settled(e.Job, attempt) {
				return true, nil
			}
		}
	}
}

func settled(j *job.Job, attempt int32) bool { return j.State.Terminal() || j.Attempt > attempt }
