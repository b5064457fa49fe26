// Package storetest is the conformance suite of stores: what the comments of package store promise, as tests.
package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Harness opens stores for the suite.
type Harness struct {
	// Open opens an empty store.
	Open func(t *testing.T) store.Store
	// Reopen closes a store that Open gave and opens it again.
	Reopen func(t *testing.T, s store.Store) store.Store
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Harness){
		"Jobs": jobs, "Listing": listing, "Unfinished": unfinished, "Requests": requests, "Records": records,
		"Terms": terms, "Expiry": expiry, "Churn": churn, "Logs": logs, "LogEnds": logEnds, "Concurrency": concurrency, "Reopening": reopening,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h)
		})
	}
}

func open(t *testing.T, h Harness) store.Store {
	t.Helper()
	s := h.Open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// id makes ids that grow with n.
func id(n int) job.ID { return job.NewID(time.Unix(int64(n), 0), 0, 7) }

func newJob(t *testing.T, n int, edit func(*job.Spec)) *job.Job {
	t.Helper()
	spec := job.Spec{Name: fmt.Sprintf("job %d", n), Steps: []job.Step{{Argv: []string{"true"}}}}
	if edit != nil {
		edit(&spec)
	}
	j, err := job.New(id(n), spec, time.Unix(int64(n), 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	return &j
}

func commit(t *testing.T, s store.Store, b *store.Batch) {
	t.Helper()
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// end brings a job to its end.
func end(t *testing.T, j *job.Job) *job.Job {
	t.Helper()
	ended, err := assign(t, j).Finish(job.Cause{Kind: job.CauseExitCode}, j.Created.Add(9*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return &ended
}

func assign(t *testing.T, j *job.Job) *job.Job {
	t.Helper()
	assigned, err := j.Assign("wkr_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	return &assigned
}

func ids(jobs []job.Job) []job.ID {
	out := make([]job.ID, len(jobs))
	for i := range jobs {
		out[i] = jobs[i].ID
	}
	return out
}
