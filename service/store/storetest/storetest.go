// Package storetest is the conformance suite of stores: what the comments of package store promise, as tests. There is one
// file for each theme.
package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Harness opens stores for the suite.
type Harness struct {
	// Open opens an empty store, whose first term has begun if it needs one.
	Open func(t *testing.T) store.Store
	// Reopen closes a store that Open gave and opens it again.
	Reopen func(t *testing.T, s store.Store) store.Store
	// Damage closes a store, makes one stored record such that it cannot be decoded, and opens the store again. Nil: the
	// store keeps no records that could be damaged.
	Damage func(t *testing.T, s store.Store, which Stored) store.Store
	// OpenSecond opens a store that is open, as another server would. The error is that of the store when it refuses. Nil:
	// nobody else can open it.
	OpenSecond func(t *testing.T, s store.Store) (store.Store, error)
}

// Stored names a record for Damage: Kind and what of the rest that kind needs.
type Stored struct {
	Kind    StoredKind
	Job     job.ID
	Log     store.LogRef
	Offset  uint64
	Request string // id
}

// StoredKind is a sort of stored records.
type StoredKind uint8

// The kinds.
const (
	StoredSpec       StoredKind = iota + 1 // of Job
	StoredEnding                           // of Job
	StoredUnfinished                       // what the last commit of jobs did to unfinished jobs
	StoredLogBlock                         // of Log, at Offset
	StoredLogEnd                           // of Log
	StoredRequest                          // Request
)

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	t.Helper()
	for _, theme := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"Scale", scale}, // the longest first
		{"Atomicity", atomicity},
		{"Concurrency", concurrency},
		{"Durability", durability},
		{"Fencing", fencing},
		{"Filters", filters},
		{"Logs", logs},
		{"Order", order},
		{"Paging", paging},
		{"Quarantine", quarantine},
		{"Records", records},
		{"Reopening", reopening},
		{"Requests", requests},
		{"Retention", retention},
		{"Unfinished", unfinished},
	} {
		t.Run(theme.name, func(t *testing.T) {
			t.Parallel()
			theme.test(t, h)
		})
	}
}

// aspects runs the tests of a theme, each on a store of its own.
func aspects(t *testing.T, h Harness, tests map[string]func(*testing.T, Harness)) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h)
		})
	}
}

func open(t *testing.T, h Harness) store.Store {
	t.Helper()
	s := h.Open(t)
	closeAfter(t, s)
	return s
}

func closeAfter(t *testing.T, s store.Store) {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// tester is a test, be it one of package testing or of rapid.
type tester interface {
	rapid.TB
	Context() context.Context
}

// scaleVariable sets how many jobs the tests of scale use.
const scaleVariable = "HODEI_TEST_SCALE"

func scaleOf(t *testing.T) int {
	t.Helper()
	text := os.Getenv(scaleVariable)
	if text == "" {
		return 20_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1000 {
		t.Fatalf("%s is %q; it is the number of jobs, at least 1000", scaleVariable, text)
	}
	return n
}

// seeded is chance that repeats.
func seeded(seed uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test that repeats
}

// at is the time of making of job n.
func at(n int) time.Time { return time.Unix(int64(n), 0).UTC() }

// id makes ids that grow with n.
func id(n int) job.ID { return job.NewID(at(n), 0, 7) }

func newJob(t tester, n int, edit func(*job.Spec)) *job.Job {
	t.Helper()
	spec := job.Spec{Name: fmt.Sprintf("job %d", n), Steps: []job.Step{{Argv: []string{"true"}}}}
	if edit != nil {
		edit(&spec)
	}
	j, err := job.New(id(n), spec, at(n))
	if err != nil {
		t.Fatal(err)
	}
	return &j
}

// must passes the result of a transition on.
func must(t tester) func(job.Job, error) *job.Job {
	t.Helper()
	return func(j job.Job, err error) *job.Job {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return &j
	}
}

// end brings a job to its end.
func end(t tester, j *job.Job) *job.Job {
	t.Helper()
	return endAssigned(t, assign(t, j))
}

func endAssigned(t tester, j *job.Job) *job.Job {
	t.Helper()
	return must(t)(j.Finish(job.Cause{Kind: job.CauseExitCode}, j.Created.Add(9*time.Second)))
}

func assign(t tester, j *job.Job) *job.Job {
	t.Helper()
	return must(t)(j.Assign("wkr_1", 1))
}

func commit(t tester, s store.Store, b *store.Batch) {
	t.Helper()
	if err := s.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func appendLogs(t tester, s store.Store, blocks ...store.LogBlock) {
	t.Helper()
	if err := s.AppendLogs(t.Context(), blocks, nil); err != nil {
		t.Fatal(err)
	}
}

func mergeLogs(t tester, s store.Store, blocks ...store.LogBlock) {
	t.Helper()
	if err := s.MergeLogs(t.Context(), blocks); err != nil {
		t.Fatal(err)
	}
}

func lead(t tester, s store.Store) uint64 {
	t.Helper()
	term, err := s.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return term
}

// expire removes all that is old enough and returns how many jobs that were.
func expire(t tester, s store.Store, endedBefore, expiredBefore time.Time) (total int) {
	t.Helper()
	for more := true; more; {
		var removed int
		var err error
		if removed, more, err = s.Expire(t.Context(), endedBefore, expiredBefore); err != nil {
			t.Fatal(err)
		}
		if removed == 0 && more {
			t.Fatal("Expire removed nothing and says that there is more to do")
		}
		total += removed
	}
	return total
}

func wantJob(t tester, s store.Store, want *job.Job) {
	t.Helper()
	if got, err := s.Job(t.Context(), want.ID); err != nil || !reflect.DeepEqual(got, *want) {
		t.Fatalf("got  %+v\nwant %+v\n%v", got, *want, err)
	}
}

func wantNoJob(t tester, s store.Store, id job.ID) {
	t.Helper()
	if j, err := s.Job(t.Context(), id); job.CodeOf(err) != job.CodeNotFound {
		t.Fatalf("a job that is not there gave %+v, %v", j, err)
	}
}

// listAll goes through all pages of a list.
func listAll(t tester, s store.Store, filter store.Filter, size int) []job.ID {
	t.Helper()
	var got []job.ID
	for before := (job.ID{}); ; before = got[len(got)-1] {
		page, err := s.ListJobs(t.Context(), filter, before, size)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > size {
			t.Fatalf("a page of %d has %d jobs", size, len(page))
		}
		got = append(got, ids(page)...)
		if len(page) < size {
			return got
		}
	}
}

func ids(jobs []job.Job) []job.ID {
	out := make([]job.ID, len(jobs))
	for i := range jobs {
		out[i] = jobs[i].ID
	}
	return out
}
