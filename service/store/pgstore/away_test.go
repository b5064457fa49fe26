package pgstore_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// cutter passes connections on to the database until it cuts them all.
type cutter struct {
	mu   sync.Mutex
	open []net.Conn
}

// through returns the URL of a database with a cutter in between.
func through(t *testing.T, database string) (*cutter, string) {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	target := u.Host
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := new(cutter)
	t.Cleanup(func() {
		_ = listener.Close()
		c.cut()
	})
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			c.mu.Lock()
			c.open = append(c.open, in, out)
			c.mu.Unlock()
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				}()
			}
		}
	}()
	u.Host = listener.Addr().String()
	return c, u.String()
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, connection := range c.open {
		_ = connection.Close()
	}
	c.open = nil
}

// A new connection does not know the statements that a broken one had prepared: what is written again must not refer to them.
func TestWritesGoOnThroughBrokenConnections(t *testing.T) {
	t.Parallel()
	c, database := through(t, newDatabase(t))
	s := open(t, database)
	defer s.Close()
	ref := store.LogRef{Job: job.ID{1}, Attempt: 1}
	for n := range 4 {
		block := store.LogBlock{Ref: ref, Offset: uint64(n), Bytes: 1, Time: time.Unix(1, 0), Data: []byte("x")}
		if err := s.AppendLogs(t.Context(), []store.LogBlock{block}, nil); err != nil {
			t.Fatalf("appending after %d breaks: %v", n, err)
		}
		block.Offset, block.Bytes = 0, uint32(n+1)
		if err := s.MergeLogs(t.Context(), []store.LogBlock{block}); err != nil {
			t.Fatalf("merging after %d breaks: %v", n, err)
		}
		if err := s.RemoveLogs(t.Context(), []store.LogEnd{{Ref: ref, Removed: "it has not ended"}}); err != nil {
			t.Fatalf("removing after %d breaks: %v", n, err)
		}
		request := store.Request{ID: string(rune('a' + n)), Jobs: []job.ID{{1}}, Expires: time.Unix(1, 0)}
		if err := s.Commit(t.Context(), &store.Batch{Requests: []store.Request{request}}); err != nil {
			t.Fatalf("committing after %d breaks: %v", n, err)
		}
		if _, _, err := s.Expire(t.Context(), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatalf("expiring after %d breaks: %v", n, err)
		}
		c.cut()
	}
	if state, err := s.LogState(t.Context(), ref); err != nil || state.Bytes != 4 {
		t.Errorf("the log is %+v, %v", state, err)
	}
}
