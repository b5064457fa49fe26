package orchestrator_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// openGuarded is a rig that takes new jobs only while refusal is nil, and one unfinished job at a time.
func openGuarded(t *testing.T, refusal *atomic.Pointer[job.Error]) *rig {
	t.Helper()
	db, err := pebblestore.Open("data", pebblestore.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{store: &faultyStore{Store: db}, sent: new(recorder), ended: make(chan error, 1)}
	n := 0
	r.Orchestrator, err = orchestrator.Open(t.Context(), orchestrator.Config{
		Store: r.store, Bus: bus.New(64), Dispatcher: r.sent, Metrics: noMetrics{}, Logger: slog.New(slog.DiscardHandler),
		Clock: time.Now, NewJobID: func(job.ID) job.ID { n++; return job.NewID(time.Now(), 0, uint64(n)) }, MaxUnfinished: 1,
		Admit: func() error {
			if err := refusal.Load(); err != nil {
				return err
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() { r.ended <- r.Run(ctx) }()
	return r
}

func request(id string) orchestrator.Submission {
	return orchestrator.Submission{Specs: []job.Spec{{Steps: []job.Step{{Argv: []string{"true"}}}}}, RequestID: id, Hash: [32]byte{1}}
}

// While no jobs are taken, a repeated submit still gives the job that it gave before, and cancels go on. What was refused
// can be asked for again by the same request.
func TestNoNewJobsAreTakenWhileTheyAreNotAdmitted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var refusal atomic.Pointer[job.Error]
		r := openGuarded(t, &refusal)
		defer r.close(t)
		first, err := r.Submit(t.Context(), request("first"))
		if err != nil || first[0].Err != nil {
			t.Fatal(first, err)
		}
		full := &job.Error{Code: job.CodeExhausted, Message: "no room"}
		refusal.Store(full)
		for _, id := range []string{"", "second", "second"} {
			if got, err := r.Submit(t.Context(), request(id)); err != nil || !errors.Is(got[0].Err, full) {
				t.Errorf("a new job gave %+v, %v", got, err)
			}
		}
		if got, err := r.Submit(t.Context(), request("first")); err != nil || got[0].Job.ID != first[0].Job.ID {
			t.Errorf("a repeated submit gave %+v, %v", got, err)
		}
		if got, err := r.Cancel(t.Context(), first[0].Job.ID, "", job.CancelRequest{}); err != nil || got.State != job.Canceled {
			t.Errorf("a cancel gave %+v, %v", got, err)
		}
		refusal.Store(nil)
		if got, err := r.Submit(t.Context(), request("second")); err != nil || got[0].Err != nil {
			t.Errorf("the refused request gave, when there was room, %+v, %v", got, err)
		}
	})
}

// RetryAfter says that the same request may succeed later, so it must not be remembered as refused.
func TestRequestThatFoundTheQueueFullMaySucceedLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := openGuarded(t, new(atomic.Pointer[job.Error]))
		defer r.close(t)
		first := r.submit(t, nil)
		if got, err := r.Submit(t.Context(), request("r")); err != nil || job.CodeOf(got[0].Err) != job.CodeExhausted {
			t.Fatalf("the second of one gave %+v, %v", got, err)
		}
		if _, err := r.Cancel(t.Context(), first.ID, "", job.CancelRequest{}); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Submit(t.Context(), request("r")); err != nil || got[0].Err != nil {
			t.Errorf("the same request gave, when there was room, %+v, %v", got, err)
		}
	})
}
