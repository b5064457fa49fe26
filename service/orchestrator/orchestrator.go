// Package orchestrator holds the use cases of jobs and the reactor that makes every change.
//
// Commands enter one inbox. One goroutine takes what is there, applies it to the state in memory, asks the scheduler for
// placements and commits one batch to the store. Only after the commit does it answer callers, send to workers and publish
// events. While a commit is under way the next batch gathers, so that the more there is to do, the larger the batches are.
package orchestrator

import (
	"context"
	"log/slog"
	"time"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/scheduler"
	"github.com/hodei-jobs/hodei/service/store"
)

// Store is what the orchestrator needs of a store.
type Store interface {
	store.Leader
	store.Committer
	store.Jobs
	store.Records
}

// Dispatcher carries orders to workers. Its methods are called after the commit that made the order durable, in the order
// of the commits; they must not block. An order to a worker that is not connected is dropped: it is sent again when the
// worker comes back.
type Dispatcher interface {
	// Assign hands out attempts to a worker; the slice is the dispatcher's from then on.
	Assign(worker job.WorkerID, attempts []Assignment)
	// Cancel stops an attempt, or one of its steps when step >= 0.
	Cancel(worker job.WorkerID, ref job.AttemptRef, step int, force bool)
}

// Assignment is an attempt that is handed out.
type Assignment struct {
	Ref       job.AttemptRef
	Spec      *job.Spec
	Retryable bool // it may be handed out again when it is lost

	// Of the dispatcher, which fills them in for a spec that names secrets when it sends the attempt.
	Secrets map[string][]byte // their values, by name
	Problem string            // why they cannot be had, so that the attempt cannot run
}

// Metrics counts what happens. The methods are called by the reactor and must be quick.
type Metrics interface {
	JobsSubmitted(n int)
	JobsScheduled(n int)
	JobsEnded(state, cause string, n int)
	StaleReports(n int)
	MeasurementsIgnored(n int)
	Commit(d time.Duration, jobs int)
}

// Config is what an Orchestrator is made of. All fields but Admit, CheckSpec and the limits are required.
type Config struct {
	Store      Store
	Bus        *bus.Bus
	Dispatcher Dispatcher
	Metrics    Metrics
	Logger     *slog.Logger
	Clock      func() time.Time
	NewJobID   func(after job.ID) job.ID // a larger id
	Admit      func() error              // why no new jobs are taken now; called by the reactor, so it must be quick; nil: they always are
	// CheckSpec says what else is wrong with a spec that is valid by itself; called by the goroutine that submits. nil: nothing.
	CheckSpec func(context.Context, *job.Spec) error

	Scheduling    scheduler.Options
	MaxUnfinished int           // how many jobs may be unfinished; 0: 1,000,000
	Lease         time.Duration // how long a worker may be silent; 0: 15 s
}

// Defaults and limits.
const (
	defaultMaxUnfinished = 1_000_000
	defaultLease         = 15 * time.Second
	requestLife          = 24 * time.Hour // how long a request_id is remembered
	inboxSize            = 65_536         // commands
	maxBatch             = 4096           // commands in one commit
)

// Orchestrator is the one writer of jobs. Run must be running for all methods but Get and List to make progress.
type Orchestrator struct {
	config Config
	inbox  *inbox
	state  *state
	term   uint64 // of this server's life; grows with every start
}

// Open loads the unfinished jobs from the store and begins a new term. Call Run next.
func Open(ctx context.Context, config Config) (*Orchestrator, error) {
	if config.MaxUnfinished == 0 {
		config.MaxUnfinished = defaultMaxUnfinished
	}
	if config.Lease == 0 {
		config.Lease = defaultLease
	}
	s, err := recoverState(ctx, config)
	if err != nil {
		return nil, err
	}
	return &Orchestrator{config: config, inbox: newInbox(inboxSize), state: s, term: s.term}, nil
}

// Lease returns how long a worker may be silent.
func (o *Orchestrator) Lease() time.Duration { return o.config.Lease }

// Get returns a job; CodeNotFound when there is none.
func (o *Orchestrator) Get(ctx context.Context, id job.ID) (job.Job, error) {
	return o.config.Store.Job(ctx, id)
}

// List returns the jobs that match, the newest first, at most limit, beginning after the job before (empty: the newest).
func (o *Orchestrator) List(ctx context.Context, filter store.Filter, before job.ID, limit int) ([]job.Job, error) {
	return o.config.Store.ListJobs(ctx, filter, before, limit)
}

// Cancel asks for the end of a job, or of the step with the given name, and returns the job as it stands then.
func (o *Orchestrator) Cancel(ctx context.Context, id job.ID, step string, request job.CancelRequest) (job.Job, error) {
	c := &cancel{id: id, step: step, request: request, waiter: newWaiter()}
	if err := o.do(ctx, c, c.waiter); err != nil {
		return job.Job{}, err
	}
	if job.CodeOf(c.err) == job.CodeNotFound && c.job.ID.IsZero() {
		return o.endedOrUnknown(ctx, id)
	}
	return c.job, c.err
}

// endedOrUnknown explains why a job that is not in memory cannot be canceled.
func (o *Orchestrator) endedOrUnknown(ctx context.Context, id job.ID) (job.Job, error) {
	j, err := o.config.Store.Job(ctx, id)
	if err != nil {
		return job.Job{}, err
	}
	return j.RequestCancel(job.CancelRequest{}, o.config.Clock())
}

// do puts a command into the inbox and waits until it was committed.
func (o *Orchestrator) do(ctx context.Context, c command, w *waiter) error {
	if err := o.inbox.put(ctx, withEntry(ctx, c)); err != nil {
		return err
	}
	return w.wait(ctx)
}
