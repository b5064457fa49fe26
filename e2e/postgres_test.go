package e2e

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/store/pgstore/pgtest"
)

// startPostgres gives one test a PostgreSQL that it does not stop.
func startPostgres(t *testing.T) *pgtest.Server {
	t.Helper()
	return postgresFrom(t, pgtest.Start)
}

// startOwnPostgres gives one test a PostgreSQL that it may kill.
func startOwnPostgres(t *testing.T) *pgtest.Server {
	t.Helper()
	return postgresFrom(t, pgtest.StartOwn)
}

func postgresFrom(t *testing.T, start func() (*pgtest.Server, error)) *pgtest.Server {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var schemas atomic.Int32

// newDatabase returns the URL of a fresh schema, because a server that was there already may have tables.
func newDatabase(t *testing.T, s *pgtest.Server) string {
	t.Helper()
	connection, err := pgx.Connect(t.Context(), s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close(t.Context())
	name := fmt.Sprintf("e2e_%d_%d", os.Getpid(), schemas.Add(1))
	if _, err := connection.Exec(t.Context(), "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String()
}

func TestPostgresMainRoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--store", newDatabase(t, startPostgres(t)))
	w.agent("w1")
	got := w.hodei("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if got.stdout != "out\n" || got.stderr != "err\n" || got.code != 7 {
		t.Errorf("run gave %+v", got)
	}
	sleeper := w.submit("--", "sh", "-c", "echo asleep; exec sleep 1000")
	w.awaitJob(sleeper, "RUNNING")
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", "for i in $(seq 50); do echo $i; sleep 0.05; done")
	await(t, "the fifth line", func() bool { return strings.Contains(run.output.String(), "\n5\n") })
	w.server.kill()
	w.restart()
	if code := run.awaitExit(t); code != 0 || strings.Count(run.output.String(), "\n") != 50 {
		t.Errorf("the run through a restart ended with %d:\n%s", code, run.output)
	}
	w.must("cancel", sleeper)
	w.awaitJob(sleeper, "CANCELED")
	if got := w.hodei("logs", "-f", sleeper); got.stdout != "asleep\n" {
		t.Errorf("the log of the canceled job is %+v", got)
	}
	if out := w.must("job", "list", "-o", "json"); strings.Count(out, `"id":"job_`) != 3 {
		t.Errorf("the list is %s", out)
	}
}

// A database that is not there, or that refuses, ends the start with a clear message and without the password.
func TestPostgresThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	refusing := startPostgres(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	missing, err := url.Parse(refusing.URL)
	if err != nil {
		t.Fatal(err)
	}
	missing.Path, missing.User = "/nosuch", url.UserPassword("hodei", "sesame")
	for _, tc := range []struct{ name, url, text string }{
		{"nobody listens", "postgres://hodei:sesame@127.0.0.1:1/hodei?sslmode=disable", "the database does not answer"},
		{"nobody answers", "postgres://hodei:sesame@" + listener.Addr().String() + "/hodei?sslmode=disable", "the database does not answer"},
		{"no such database", missing.String(), `database "nosuch" does not exist`},
		{"not a URL", "postgres://hodei:sesame@127.0.0.1:port/hodei", "it looks like postgres://user:password@host/database"},
		{"unknown option", "postgres://hodei:sesame@127.0.0.1:1/hodei?sslmode=perhaps", "sslmode"},
		{"another database", "mysql://hodei:sesame@127.0.0.1:1/hodei", "--store"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := runHodei(t, nil, nil, "server", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0", "--ops-listen", "-", "--store", tc.url)
			if got.code != 1 || !strings.Contains(got.stderr, tc.text) {
				t.Errorf("code %d, want 1 and %q:\n%s", got.code, tc.text, got.stderr)
			}
			if strings.Contains(got.stdout+got.stderr, "sesame") {
				t.Errorf("the password is shown:\n%s", got.stderr)
			}
		})
	}
}

// While the database is away nothing is acknowledged, and when it is back everything goes on by itself.
func TestPostgresStoppedInTheMiddle(t *testing.T) {
	t.Parallel()
	db := startOwnPostgres(t)
	w := newWorld(t, "--store", newDatabase(t, db))
	w.agent("w1")
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", "for i in $(seq 100); do echo $i; sleep 0.05; done; exit 3")
	await(t, "the tenth line", func() bool { return strings.Contains(run.output.String(), "\n10\n") })
	before := w.submit("--", "sh", "-c", "sleep 1; echo before")
	if err := db.Crash(); err != nil {
		t.Fatal(err)
	}
	submit := startDaemon(t, w.env(), "hodei", "submit", "--", "sh", "-c", "echo meanwhile")
	await(t, "the server to notice", func() bool { return strings.Contains(w.server.output.String(), "the database is away") })
	<-time.After(2 * time.Second) // whatever would be acknowledged by mistake had time to be
	if strings.Contains(submit.output.String(), "job_") {
		t.Errorf("a submit was acknowledged without a database: %s", submit.output)
	}
	if err := db.Restart(); err != nil {
		t.Fatal(err)
	}
	if code := submit.awaitExit(t); code != 0 || strings.Count(submit.output.String(), "job_") != 1 {
		t.Errorf("the submit that waited ended with %d: %s", code, submit.output)
	}
	if code := run.awaitExit(t); code != 3 {
		t.Errorf("the run ended with %d", code)
	}
	var want strings.Builder
	for i := range 100 {
		fmt.Fprintln(&want, i+1)
	}
	if run.output.String() != want.String() {
		t.Errorf("the lines did not arrive once and in order:\n%s", run.output)
	}
	w.awaitJob(before, "SUCCEEDED")
	if got := w.hodei("logs", "-f", before); got.stdout != "before\n" {
		t.Errorf("the log of the job that was accepted before is %+v", got)
	}
	select {
	case <-w.server.exited:
		t.Error("the server did not go on by itself")
	default:
	}
}

// A second server on one database takes the lead, and the first one's next write ends it.
func TestPostgresHasOneLeader(t *testing.T) {
	t.Parallel()
	database := newDatabase(t, startPostgres(t))
	first := newWorld(t, "--store", database)
	accepted := first.submit("--", "true")
	second := newWorld(t, "--store", database)
	if state := second.field("job", accepted, "state"); state != "JOB_STATE_QUEUED" {
		t.Errorf("what the first server has accepted is %q for the second", state)
	}
	submit := startDaemon(t, first.env(), "hodei", "submit", "--", "echo", "from the first") // it tries again and again
	if code := first.server.awaitExit(t); code != 1 || !strings.Contains(first.server.output.String(), "another server has taken the lead") {
		t.Errorf("the first server ended with %d:\n%s", code, first.server.output)
	}
	submit.kill()
	if strings.Contains(submit.output.String(), "job_") {
		t.Errorf("the first server, which does not lead any more, accepted a job: %s", submit.output)
	}
	second.agent("w1")
	second.awaitJob(accepted, "SUCCEEDED")
	if got := second.hodei("run", "--", "echo", "hi"); got.stdout != "hi\n" || got.code != 0 {
		t.Errorf("a run on the second server gave %+v", got)
	}
	if out := second.must("job", "list", "-o", "json"); strings.Count(out, `"id":"job_`) != 2 {
		t.Errorf("the list is %s", out)
	}
}
