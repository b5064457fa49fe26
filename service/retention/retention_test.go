package retention_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/retention"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

type noMetrics struct{}

func (noMetrics) LogBytes(int) {}

// world is a store with jobs that have logs, at a time.
type world struct {
	t      *testing.T
	db     *memstore.Store
	logs   *logs.Service
	keeper *retention.Keeper
	now    time.Time
	last   byte
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, db: memstore.New(), now: time.Unix(1_000_000, 0).UTC()}
	w.logs = logs.New(w.db, noMetrics{}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.logs.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	w.keeper = retention.New(w.db, w.logs, func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	return w
}

// job makes a job of a namespace with a log of so many bytes, which ended so long ago; a negative age: it runs.
func (w *world) job(namespace string, bytes int, age time.Duration, complete bool) store.LogRef {
	w.t.Helper()
	w.last++
	spec := job.Spec{Namespace: namespace, Steps: []job.Step{{Argv: []string{"true"}}}}
	j, err := job.New(job.ID{w.last}, spec, w.now.Add(-100*time.Hour))
	if err != nil {
		w.t.Fatal(err)
	}
	accepted := j
	if j, err = j.Assign("wkr_1", 1); err == nil && age >= 0 {
		j, err = j.Finish(job.Cause{Kind: job.CauseExitCode}, w.now.Add(-age))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for _, batch := range []*store.Batch{{Accepted: []*job.Job{&accepted}}, {Changed: []*job.Job{&j}}} {
		if err := w.db.Commit(w.t.Context(), batch); err != nil {
			w.t.Fatal(err)
		}
	}
	ref := store.LogRef{Job: j.ID, Attempt: 1}
	done := make(chan []logs.Ack, 1)
	a := &logs.Append{Chunks: []logs.Chunk{{Ref: ref, Stream: store.Stdout, Data: make([]byte, bytes)}}, Done: func(acks []logs.Ack) { done <- acks }}
	if complete {
		a.Ends = []store.LogEnd{{Ref: ref, Bytes: uint64(bytes)}}
	}
	if err := w.logs.Append(a); err != nil {
		w.t.Fatal(err)
	}
	<-done
	return ref
}

func (w *world) set(p retention.Policy) {
	w.t.Helper()
	if err := w.keeper.Set(w.t.Context(), p); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) sweep(want int) {
	w.t.Helper()
	if removed, err := w.keeper.Sweep(w.t.Context()); err != nil || removed != want {
		w.t.Errorf("%d logs were removed, want %d, %v", removed, want, err)
	}
}

// removed returns why a log was removed, empty when it is there.
func (w *world) removed(ref store.LogRef) string {
	w.t.Helper()
	state, err := w.logs.State(w.t.Context(), ref)
	if err != nil || state.Bytes == 0 && (state.End == nil || state.End.Removed == "") {
		w.t.Fatalf("the log of %v is %+v, %v", ref, state, err)
	}
	if state.Bytes > 0 {
		return ""
	}
	return state.End.Removed
}

func TestLogsGoWhenTheyAreTooOldOrTooMany(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	running := w.job("a", 1000, -1, false)
	old := w.job("a", 10, 50*time.Hour, true)
	unfinished := w.job("a", 10, 50*time.Hour, false)
	foreign := w.job("b", 10, 50*time.Hour, true)
	oldest := w.job("a", 60, 3*time.Hour, true)
	middle := w.job("a", 60, 2*time.Hour, true)
	fresh := w.job("a", 30, time.Hour, false)
	w.sweep(0) // there is no policy
	w.set(retention.Policy{Namespace: "a", MaxAge: 40 * time.Hour, MaxBytes: 100})
	w.sweep(3)
	for ref, want := range map[store.LogRef]string{
		running: "", foreign: "", middle: "", fresh: "",
		old:        "removed on 1970-01-12T13:46:40Z by the retention of namespace a: it was older than 40h0m0s",
		unfinished: "it was older than 40h0m0s",
		oldest:     "it and newer logs had more than 100 bytes",
	} {
		if got := w.removed(ref); !strings.HasSuffix(got, want) || (got == "") != (want == "") {
			t.Errorf("the log of job %v: %q, want %q", ref.Job[0], got, want)
		}
	}
	state, err := w.logs.State(t.Context(), unfinished)
	if err != nil || state.End.Missing == "" || state.End.Bytes != 10 {
		t.Errorf("of a log without an end the end became %+v, %v", state.End, err)
	}
	w.sweep(0)
	w.now = w.now.Add(39*time.Hour + 30*time.Minute) // the rest of fresh may still have come for a day
	w.sweep(2)
	if w.removed(middle) == "" || w.removed(fresh) == "" || w.removed(running) != "" {
		t.Error("logs that have become too old are there, or one of a running job is not")
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(retention.Policy{Namespace: "b", MaxBytes: 5})
	w.set(retention.Policy{Namespace: "a", MaxAge: time.Hour})
	all, err := w.keeper.List(t.Context())
	if err != nil || len(all) != 2 || all[0] != (retention.Policy{Namespace: "a", MaxAge: time.Hour}) || all[1].MaxBytes != 5 {
		t.Errorf("the policies are %+v, %v", all, err)
	}
	w.set(retention.Policy{Namespace: "a"})
	if all, err = w.keeper.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("the policies became %+v, %v", all, err)
	}
	for _, p := range []retention.Policy{{Namespace: "A", MaxBytes: 1}, {MaxBytes: 1}, {Namespace: "a", MaxAge: -1}} {
		if err := w.keeper.Set(t.Context(), p); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("the policy %+v gave %v", p, err)
		}
	}
}

// A sweep does not look at the logs that were removed long ago again, but for one now and then and after a change.
func TestSweepsStopWhereFormerOnesHaveBeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.job("a", 10, 50*time.Hour, true)
	db := &listing{Store: w.db}
	w.keeper = retention.New(db, stubLogs{w.logs, first.Job}, func() time.Time { return w.now }, slog.New(slog.DiscardHandler))
	db.fake = func(before job.ID) []job.Job { // a thousand pages of jobs whose logs are gone, and then the first one
		page := make([]job.Job, 500)
		n := int(before[1])
		if n == 10 {
			return nil
		}
		for i := range page {
			page[i] = job.Job{ID: job.ID{9, byte(n + 1)}, Attempt: 1, Ended: w.now.Add(-50 * time.Hour)}
		}
		return page
	}
	w.set(retention.Policy{Namespace: "a", MaxAge: time.Hour})
	for n, want := range []int{11, 2, 2} {
		db.pages = 0
		w.sweep(0)
		if db.pages != want {
			t.Errorf("sweep %d looked at %d pages, want %d", n, db.pages, want)
		}
	}
	w.now = w.now.Add(24 * time.Hour)
	db.pages = 0
	w.sweep(0)
	if db.pages != 11 {
		t.Errorf("a day later a sweep looked at %d pages", db.pages)
	}
}

// listing is a store whose pages of jobs are made up.
type listing struct {
	retention.Store
	fake  func(before job.ID) []job.Job
	pages int
}

func (l *listing) ListJobs(_ context.Context, _ store.Filter, before job.ID, _ int) ([]job.Job, error) {
	l.pages++
	return l.fake(before), nil
}

// stubLogs says of all logs but one that they were removed.
type stubLogs struct {
	*logs.Service
	there job.ID
}

func (s stubLogs) State(ctx context.Context, ref store.LogRef) (store.LogState, error) {
	if ref.Job == s.there {
		return s.Service.State(ctx, ref)
	}
	return store.LogState{End: &store.LogEnd{Removed: "before"}}, nil
}
