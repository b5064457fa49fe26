package pgstore_test

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/store/pgstore"
)

const secret = "hunter2"

// withUser returns a URL with another user and a password.
func withUser(t *testing.T, database, user string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, secret)
	return u.String()
}

// What stands in the way of opening is said in words, soon, and without the password.
func TestWhatStandsInTheWayOfOpening(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	there, err := url.Parse(withUser(t, server.URL, "hodei"))
	if err != nil {
		t.Fatal(err)
	}
	nowhere := *there
	nowhere.Path = "/no_such_database"
	for name, c := range map[string]struct{ url, want string }{
		"nobody listens":   {"postgres://u:" + secret + "@" + address + "/d", "does not answer"},
		"nobody answers":   {"postgres://u:" + secret + "@" + silent.Addr().String() + "/d?sslmode=disable", "does not answer"},
		"no such database": {nowhere.String(), "no_such_database"},
		"no such user":     {withUser(t, server.URL, "nobody_at_all"), "nobody_at_all"},
		"no URL":           {"postgres://u:" + secret + "@host:port:port/d", "looks like postgres://user:password@host/database"},
		"a bad setting":    {"postgres://u:" + secret + "@host/d?sslmode=sometimes", "looks like postgres://user:password@host/database"},
		"a bad password":   {"postgres://u:" + secret + "%zz@host/d", "looks like postgres://user:password@host/database"},
		"an open quote":    {"host=h user=u password='" + secret, "looks like postgres://user:password@host/database"},
		"bad characters":   {"postgres://u:" + secret + "#x@host:a/d", "looks like postgres://user:password@host/database"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			s, err := pgstore.Open(t.Context(), c.url, pgstore.Options{Patience: 300 * time.Millisecond})
			if err == nil {
				_ = s.Close()
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("the error says %q, and not %q", err, c.want)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it was said after %s", took)
			}
		})
	}
}

// Tables of a newer program are refused, and so are those of a program with another history. Nothing is changed.
func TestTablesOfOtherProgramsAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ statement, want string }{
		"newer":   {"INSERT INTO hodei_migrations (version, name, checksum) VALUES (99, 'later.sql', 'x')", "run the version of hodei that made them"},
		"another": {"UPDATE hodei_migrations SET checksum = 'x' WHERE version = 1", "made by another program"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database := newDatabase(t)
			if err := open(t, database).Close(); err != nil {
				t.Fatal(err)
			}
			connection := connect(t, database)
			defer connection.Close(t.Context())
			if _, err := connection.Exec(t.Context(), c.statement); err != nil {
				t.Fatal(err)
			}
			if _, err := pgstore.Open(t.Context(), database, pgstore.Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error says %v, and not %q", err, c.want)
			}
		})
	}
}

// A user who may not make tables is told what to do.
func TestUserWhoMayNotMakeTables(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	connection := connect(t, database)
	defer connection.Close(t.Context())
	user := fmt.Sprintf("guest_%d", os.Getpid())
	for _, statement := range []string{"CREATE USER " + user, "GRANT USAGE ON SCHEMA " + schemaOf(t, database) + " TO " + user} {
		if _, err := connection.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	_, err := pgstore.Open(t.Context(), withUser(t, database, user), pgstore.Options{})
	if err == nil || !strings.Contains(err.Error(), "grant it CREATE on the schema") || strings.Contains(err.Error(), secret) {
		t.Errorf("the error says %v", err)
	}
}

// Servers that start at the same time on an empty database make its tables once.
func TestManyServersStartAtOnce(t *testing.T) {
	t.Parallel()
	database := newDatabase(t)
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			s, err := pgstore.Open(t.Context(), database, pgstore.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	connection := connect(t, database)
	defer connection.Close(t.Context())
	rows, err := connection.Query(t.Context(), "SELECT version FROM hodei_migrations ORDER BY version")
	if err != nil {
		t.Fatal(err)
	}
	versions, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil || len(versions) == 0 || versions[0] != 1 || versions[len(versions)-1] != len(versions) {
		t.Errorf("the versions are %v, %v", versions, err)
	}
}
