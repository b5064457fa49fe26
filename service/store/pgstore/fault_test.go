package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pgstore"
	"github.com/hodei-jobs/hodei/service/store/pgstore/pgtest"
)

func id(n int) job.ID { return job.NewID(time.Unix(int64(n), 0), 0, 3) }

// accepted is job n in the state that follows from the commits after it: queued, then on a worker, then ended.
func accepted(t *testing.T, n, age int) *job.Job {
	t.Helper()
	j, err := job.New(id(n), job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}, time.Unix(int64(n), 0).UTC())
	if err == nil && age >= 1 {
		j, err = j.Assign("wkr_1", 1)
	}
	if err == nil && age >= 2 {
		j, err = j.Finish(job.Cause{Kind: job.CauseExitCode}, j.Created.Add(time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &j
}

// batch is what commit n of a writer writes.
func batch(t *testing.T, term uint64, n int) *store.Batch {
	t.Helper()
	b := &store.Batch{Term: term, Accepted: []*job.Job{accepted(t, n, 0)}, Requests: []store.Request{{ID: fmt.Sprint(n), Expires: time.Unix(9, 0).UTC()}}}
	for age := 1; age <= 2 && n > age; age++ {
		b.Changed = append(b.Changed, accepted(t, n-age, age))
	}
	return b
}

func block(n int) store.LogBlock {
	return store.LogBlock{Ref: store.LogRef{Job: id(1), Attempt: 1}, Offset: uint64(n - 1), Bytes: 1, Data: []byte{byte(n)}}
}

// write does the commits and appends of a writer from one number to another.
func write(t *testing.T, s *pgstore.Store, term uint64, from, to int, progress *atomic.Int64) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := s.Commit(context.Background(), batch(t, term, n)); err != nil {
			t.Errorf("commit %d: %v", n, err)
			return
		}
		if err := s.AppendLogs(context.Background(), []store.LogBlock{block(n)}, nil); err != nil {
			t.Errorf("append %d: %v", n, err)
			return
		}
		progress.Store(int64(n))
	}
}

// wantCommits checks, in a store that was opened anew, that exactly the first commits are there and each once.
func wantCommits(t *testing.T, url string, commits int) {
	t.Helper()
	s := open(t, url)
	defer s.Close()
	var all []job.ID
	for n := 1; n <= commits; n++ {
		want := accepted(t, n, min(commits-n, 2))
		if got, err := s.Job(t.Context(), want.ID); err != nil || got.State != want.State || got.Revision != want.Revision {
			t.Errorf("job %d is %+v, want %+v, %v", n, got, want, err)
		}
		if _, err := s.Request(t.Context(), fmt.Sprint(n)); err != nil {
			t.Errorf("request %d: %v", n, err)
		}
		all = append([]job.ID{want.ID}, all...)
	}
	listed, err := s.ListJobs(t.Context(), store.Filter{Namespace: "default"}, job.ID{}, commits+10)
	got := make([]job.ID, len(listed))
	for i := range listed {
		got[i] = listed[i].ID
	}
	if err != nil || !slices.Equal(got, all) {
		t.Errorf("the list has %d jobs, want %d, %v", len(got), commits, err)
	}
	unfinished := 0
	if damaged, err := s.Unfinished(t.Context(), func(job.Job) error { unfinished++; return nil }); err != nil || damaged != 0 || unfinished != min(commits, 2) {
		t.Errorf("%d jobs are unfinished, %d damaged, %v", unfinished, damaged, err)
	}
	for offset := uint64(0); offset < uint64(commits); {
		blocks, err := s.ReadLogs(t.Context(), block(1).Ref, offset, 1<<20)
		if err != nil || len(blocks) == 0 {
			t.Fatalf("%d blocks, want %d, %v", offset, commits, err)
		}
		for _, b := range blocks {
			if b.Offset != offset || b.Data[0] != byte(offset+1) {
				t.Errorf("block %d is %+v", offset, b)
			}
			offset++
		}
	}
}

// Connections are killed again and again while a writer commits. It notices nothing: nothing is lost and nothing is there
// twice.
func TestKilledConnectionsLoseNothing(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	s := open(t, database)
	defer s.Close()
	term, err := s.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	schema := schemaOf(t, database)
	killer := connect(t, server.URL)
	defer killer.Close(t.Context())
	const commits = 120
	var progress atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(t, s, term, 1, commits, &progress)
	}()
	killed := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(30 * time.Millisecond):
			// The tables of this test tell its connections from those of others.
			rows, err := killer.Query(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name LIKE 'hodei %' AND pid IN (SELECT l.pid FROM pg_locks l JOIN pg_class c ON l.relation = c.oid
				JOIN pg_namespace n ON c.relnamespace = n.oid WHERE n.nspname = $1)`, schema)
			if err != nil {
				t.Fatal(err)
			}
			ended, err := pgx.CollectRows(rows, pgx.RowTo[bool])
			if err != nil {
				t.Fatal(err)
			}
			killed += len(ended)
		}
	}
	t.Logf("%d connections were killed in the middle of something", killed)
	wantCommits(t, database, commits)
}

func schemaOf(t *testing.T, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("search_path")
}

// startOwn starts a PostgreSQL for one test, which may do with it what it wants.
func startOwn(t *testing.T) *pgtest.Server {
	t.Helper()
	own, err := pgtest.StartOwn()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
	})
	return own
}

// The server crashes and hangs in the middle. Writers wait, and go on when it is back.
func TestServerThatGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	own := startOwn(t)
	s := open(t, own.URL)
	defer s.Close()
	term, err := s.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const commits = 200
	var progress atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		write(t, s, term, 1, commits, &progress)
	}()
	await := func(n int64) {
		for progress.Load() < n {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}
	for round, away := range []struct{ stop, start func() error }{
		{own.Crash, own.Restart}, {own.Pause, own.Resume}, {own.Crash, own.Restart},
	} {
		await(int64(round)*50 + 20)
		if err := away.stop(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Millisecond) //nolint:forbidigo // what is under way has time to end
		stopped := progress.Load()
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // nothing must happen meanwhile
		if n := progress.Load(); n != stopped {
			t.Errorf("commits %d to %d were acknowledged while the server was away", stopped, n)
		}
		if err := away.start(); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	wantCommits(t, own.URL, commits)
}

// A machine that takes connections and says nothing is waited for like one that is not there.
func TestServerThatHangsAtConnecting(t *testing.T) {
	t.Parallel()
	own := startOwn(t)
	s := open(t, own.URL+"&connect_timeout=1")
	defer s.Close()
	killer := connect(t, own.URL)
	if _, err := killer.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'hodei %'"); err != nil {
		t.Fatal(err)
	}
	if err := killer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := own.Pause(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Commit(context.Background(), batch(t, 0, 1)) }()
	select {
	case err := <-done:
		t.Errorf("a commit to a server that hangs gave %v", err)
	case <-time.After(6 * time.Second): // longer than it takes to connect
	}
	if err := own.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A full disk is one that is away until there is room.
func TestFullDiskIsWaitedFor(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	s := open(t, database)
	defer s.Close()
	connection := connect(t, database)
	defer connection.Close(t.Context())
	for _, statement := range []string{
		"CREATE FUNCTION disk_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'disk full' USING ERRCODE = '53100'; END $$",
		"CREATE TRIGGER disk_full BEFORE INSERT ON requests FOR EACH ROW EXECUTE FUNCTION disk_full()",
	} {
		if _, err := connection.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- s.Commit(context.Background(), batch(t, 0, 1)) }()
	select {
	case err := <-done:
		t.Errorf("a commit to a full disk gave %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if _, err := s.Job(t.Context(), id(1)); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("half of a commit is there: %v", err)
	}
	if _, err := connection.Exec(t.Context(), "DROP TRIGGER disk_full ON requests"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := s.Job(t.Context(), id(1)); err != nil {
		t.Error(err)
	}
}

// Two servers commit at the same time, each with its own term, while the lead goes back and forth. What one of them had
// acknowledged is there, what was refused is not, and the log of unfinished jobs is that of one writer.
func TestTwoServersOnOneDatabase(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	stores := []*pgstore.Store{open(t, database), open(t, database)}
	var mu sync.Mutex
	written, refused := make(map[job.ID]bool), make(map[job.ID]bool)
	const turns, perTurn = 12, 30
	var group sync.WaitGroup
	for turn := range turns {
		s := stores[turn%2]
		term, err := s.Lead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var batches []*store.Batch
		for n := range perTurn {
			batches = append(batches, &store.Batch{Term: term, Accepted: []*job.Job{accepted(t, 1+turn*perTurn+n, 0)}})
		}
		began := make(chan struct{})
		group.Go(func() { // it goes on while the other one leads
			mine := 0
			defer func() {
				if mine < perTurn/3 { // it was deposed before its time, which the counts below show
					close(began)
				}
			}()
			for _, b := range batches {
				err := s.Commit(context.Background(), b)
				mu.Lock()
				switch {
				case err == nil:
					written[b.Accepted[0].ID] = true
					if mine++; mine == perTurn/3 {
						close(began)
					}
				case errors.Is(err, store.ErrDeposed):
					refused[b.Accepted[0].ID] = true
				default:
					t.Errorf("a commit gave %v", err)
				}
				mu.Unlock()
			}
		})
		<-began
	}
	group.Wait()
	for _, s := range stores {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	last := open(t, database)
	defer last.Close()
	unfinished := make(map[job.ID]bool)
	if damaged, err := last.Unfinished(t.Context(), func(j job.Job) error { unfinished[j.ID] = true; return nil }); err != nil || damaged != 0 {
		t.Errorf("%d damaged, %v", damaged, err)
	}
	for jobID := range written {
		if !unfinished[jobID] {
			t.Errorf("job %s was acknowledged and is not there", jobID)
		}
	}
	for jobID := range refused {
		if _, err := last.Job(t.Context(), jobID); job.CodeOf(err) != job.CodeNotFound || unfinished[jobID] {
			t.Errorf("job %s of a server that was deposed is there: %v", jobID, err)
		}
	}
	if len(refused) == 0 || len(written) < turns*perTurn/3 {
		t.Errorf("%d commits were written and %d refused", len(written), len(refused))
	}
}
