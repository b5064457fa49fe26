package pgstore_test

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pgstore"
	"github.com/hodei-jobs/hodei/service/store/pgstore/pgtest"
	"github.com/hodei-jobs/hodei/service/store/storetest"
)

var server *pgtest.Server

func TestMain(m *testing.M) {
	// Each check of the model makes a schema and opens it several times. The command line may ask for more.
	err := flag.Set("rapid.checks", "30")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if server, err = pgtest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

var schemas atomic.Int32

// newDatabase returns the URL of a fresh schema.
func newDatabase(t *testing.T) string {
	t.Helper()
	connection, err := pgx.Connect(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close(t.Context())
	name := fmt.Sprintf("test_%d_%d", os.Getpid(), schemas.Add(1))
	if _, err := connection.Exec(t.Context(), "CREATE SCHEMA "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("search_path", name)
	u.RawQuery = query.Encode()
	return u.String()
}

func open(t *testing.T, url string) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), url, pgstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// urlStore remembers where a store lies.
type urlStore struct {
	*pgstore.Store
	url string
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, harness)
}

func TestModel(t *testing.T) {
	t.Parallel()
	storetest.Model(t, harness)
}

var harness = storetest.Harness{
	Open: func(t *testing.T) store.Store {
		t.Helper()
		url := newDatabase(t)
		return urlStore{open(t, url), url}
	},
	Reopen: func(t *testing.T, s store.Store) store.Store {
		t.Helper()
		url := where(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return urlStore{open(t, url), url}
	},
	Damage: func(t *testing.T, s store.Store, which storetest.Stored) store.Store {
		t.Helper()
		url := where(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		damage(t, url, which)
		return urlStore{open(t, url), url}
	},
	OpenSecond: func(t *testing.T, s store.Store) (store.Store, error) {
		t.Helper()
		url := where(t, s)
		second, err := pgstore.Open(t.Context(), url, pgstore.Options{})
		if err != nil {
			return nil, err
		}
		return urlStore{second, url}, nil
	},
}

func where(t *testing.T, s store.Store) string {
	t.Helper()
	u, ok := s.(urlStore)
	if !ok {
		t.Fatal("not a store of this harness")
	}
	return u.url
}

// damage makes one row undecodable.
func damage(t *testing.T, url string, which storetest.Stored) {
	t.Helper()
	statement, arguments := map[storetest.StoredKind]string{
		storetest.StoredSpec:       "UPDATE pages SET accepted = $1 WHERE last = $2",
		storetest.StoredEnding:     "UPDATE endings SET ended = $1 WHERE page = $2",
		storetest.StoredUnfinished: "UPDATE blocks SET block = $1 WHERE number = (SELECT max(number) FROM blocks)",
		storetest.StoredLogBlock:   "UPDATE log_blocks SET lines = -length($1::bytea) WHERE job = $2 AND attempt = $3 AND start = $4",
		storetest.StoredLogEnd:     "UPDATE log_ends SET record = $1 WHERE job = $2 AND attempt = $3",
		storetest.StoredRequest:    "UPDATE requests SET record = $1 WHERE id = $2",
	}[which.Kind], []any{[]byte("\x63garbage")}
	switch which.Kind {
	case storetest.StoredSpec, storetest.StoredEnding:
		arguments = append(arguments, [16]byte(which.Job))
	case storetest.StoredLogBlock:
		arguments = append(arguments, [16]byte(which.Log.Job), which.Log.Attempt, int64(which.Offset))
	case storetest.StoredLogEnd:
		arguments = append(arguments, [16]byte(which.Log.Job), which.Log.Attempt)
	case storetest.StoredRequest:
		arguments = append(arguments, []byte(which.Request))
	}
	connection := connect(t, url)
	defer connection.Close(t.Context())
	tag, err := connection.Exec(t.Context(), statement, arguments...)
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("damaging %+v: %d rows, %v", which, tag.RowsAffected(), err)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	connection, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return connection
}
