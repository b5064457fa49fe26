package logs_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

type counter struct {
	mu    sync.Mutex
	bytes int
}

func (c *counter) LogBytes(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += n
}

// failingLogs fails every append.
type failingLogs struct{ store.Logs }

var errDisk = errors.New("disk full")

func (failingLogs) AppendLogs(context.Context, []store.LogBlock, []store.LogEnd) error {
	return errDisk
}

// fataler is a testing.T or a rapid.T.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func newService(t fataler) (*logs.Service, *counter, func()) {
	t.Helper()
	db, err := pebblestore.Open("data", pebblestore.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	c := new(counter)
	s := logs.New(db, c, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return s, c, func() {
		cancel()
		if err := errors.Join(<-ended, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

var ref = store.LogRef{Job: job.ID{1}, Attempt: 1}

func chunk(offset int, data string) logs.Chunk {
	return logs.Chunk{Ref: ref, Offset: uint64(offset), Stream: store.Stdout, Time: time.Unix(1, 0), Data: []byte(data)}
}

func send(t fataler, s *logs.Service, chunks []logs.Chunk, ends ...store.LogEnd) []logs.Ack {
	t.Helper()
	done := make(chan []logs.Ack, 1)
	if err := s.Append(&logs.Append{Chunks: chunks, Ends: ends, Done: func(acks []logs.Ack) { done <- acks }}); err != nil {
		t.Fatal(err)
	}
	return <-done
}

func readAll(t fataler, s *logs.Service) []byte {
	t.Helper()
	tail, err := s.Tail(context.Background(), ref, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	var out []byte
	for {
		chunks, _, _, err := tail.Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if len(chunks) == 0 {
			return out
		}
		for _, c := range chunks {
			out = append(out, c.Data...)
		}
	}
}

// An agent may send what it likes again, cut as it likes: the log has each byte once, and the acknowledgement says how far it goes.
func TestEveryByteIsTakenOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, c, stop := newService(t)
		defer stop()
		data := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "data")
		have := 0
		for range rapid.IntRange(1, 20).Draw(t, "appends") {
			var chunks []logs.Chunk
			for range rapid.IntRange(1, 3).Draw(t, "chunks") {
				from := rapid.IntRange(0, len(data)-1).Draw(t, "from")
				to := rapid.IntRange(from+1, len(data)).Draw(t, "to")
				chunks = append(chunks, chunk(from, string(data[from:to])))
				if from <= have {
					have = max(have, to)
				}
			}
			if acks := send(t, s, chunks); len(acks) != 1 || acks[0].Offset != uint64(have) || acks[0].Ended {
				t.Fatalf("the acknowledgements are %+v, want %d", acks, have)
			}
		}
		if got := readAll(t, s); !bytes.Equal(got, data[:have]) || c.bytes != have {
			t.Fatalf("%d bytes are stored and %d counted, want %d", len(got), c.bytes, have)
		}
	})
}

func TestEndIsTakenOnlyWhenEverythingIsThere(t *testing.T) {
	t.Parallel()
	s, _, stop := newService(t)
	defer stop()
	if acks := send(t, s, []logs.Chunk{chunk(0, "abc")}, store.LogEnd{Ref: ref, Bytes: 5}); acks[0].Ended {
		t.Error("a log of 3 bytes ended with 5")
	}
	if acks := send(t, s, []logs.Chunk{chunk(3, "de")}, store.LogEnd{Ref: ref, Bytes: 5}); !acks[0].Ended || acks[0].Offset != 5 {
		t.Errorf("the acknowledgement is %+v", acks)
	}
	if acks := send(t, s, []logs.Chunk{chunk(5, "late")}); acks[0].Offset != 5 || !acks[0].Ended {
		t.Errorf("a chunk after the end gave %+v", acks)
	}
	if err := s.Close(t.Context(), ref, "too late"); err != nil {
		t.Error(err)
	}
	if state, err := s.State(t.Context(), ref); err != nil || state.End.Missing != "" {
		t.Errorf("the end became %+v, %v", state.End, err)
	}
}

func TestFollowerSeesWhatIsWrittenAndThenTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _, stop := newService(t)
		defer stop()
		tail, err := s.Tail(t.Context(), ref, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer tail.Close()
		for i, text := range []string{"one", "two"} {
			chunks, end, grown, err := tail.Read(t.Context())
			if err != nil || len(chunks) != 0 || end != nil {
				t.Fatalf("before anything was written: %v, %v, %v", chunks, end, err)
			}
			go send(t, s, []logs.Chunk{chunk(3*i, text)})
			<-grown
			if chunks, _, _, err = tail.Read(t.Context()); err != nil || len(chunks) != 1 || string(chunks[0].Data) != text {
				t.Fatalf("got %v, %v; want %q", chunks, err, text)
			}
		}
		_, _, grown, err := tail.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(t.Context(), ref, "the worker was lost"); err != nil {
			t.Fatal(err)
		}
		<-grown
		if _, end, _, err := tail.Read(t.Context()); err != nil || end == nil || end.Missing != "the worker was lost" || tail.Offset() != 6 {
			t.Errorf("the end is %+v at %d, %v", end, tail.Offset(), err)
		}
	})
}

func TestFailedAppendIsNotAcknowledged(t *testing.T) {
	t.Parallel()
	db, err := pebblestore.Open("data", pebblestore.Options{FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := logs.New(failingLogs{db}, new(counter), slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	acknowledged := func([]logs.Ack) { t.Error("bytes that were not stored were acknowledged") }
	if err := s.Append(&logs.Append{Chunks: []logs.Chunk{chunk(0, "x")}, Done: acknowledged}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, errDisk) {
		t.Errorf("the service ended with %v", err)
	}
	if err := s.Append(&logs.Append{Done: acknowledged}); !errors.Is(err, errDisk) {
		t.Errorf("an append after the end gave %v", err)
	}
}

// A pause holds output back without an acknowledgement, and what an agent sends again meanwhile is there once.
func TestPausedOutputWaitsAndIsWrittenOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c, stop := newService(t)
		defer stop()
		send(t, s, []logs.Chunk{chunk(0, "one")})
		s.Pause(true)
		acks := make(chan []logs.Ack, 3)
		appends := []*logs.Append{
			{Chunks: []logs.Chunk{chunk(3, "two"), chunk(6, "three")}},
			{Chunks: []logs.Chunk{chunk(3, "two"), chunk(6, "three")}}, // of a new session
			{Chunks: []logs.Chunk{chunk(11, "four")}, Ends: []store.LogEnd{{Ref: ref, Bytes: 15}}},
		}
		for _, a := range appends {
			a.Done = func(a []logs.Ack) { acks <- a }
			if err := s.Append(a); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if len(acks) > 0 || c.bytes != 3 {
			t.Errorf("during the pause %d bytes were stored and %d appends acknowledged", c.bytes, len(acks))
		}
		if got := string(readAll(t, s)); got != "one" {
			t.Errorf("during the pause readers see %q", got)
		}
		if again := appends[1].Chunks; again[0].Data != nil || again[1].Data != nil {
			t.Error("bytes that were sent again are kept twice")
		}
		s.Pause(false)
		for range appends {
			if ack := <-acks; ack[0].Offset != 15 || !ack[0].Ended {
				t.Errorf("after the pause the acknowledgement is %+v", ack)
			}
		}
		if got := string(readAll(t, s)); got != "onetwothreefour" {
			t.Errorf("after the pause readers see %q", got)
		}
	})
}

func TestServiceStopsDuringAPause(t *testing.T) {
	t.Parallel()
	s, _, stop := newService(t)
	s.Pause(true)
	acknowledged := func([]logs.Ack) { t.Error("bytes that were not stored were acknowledged") }
	if err := s.Append(&logs.Append{Chunks: []logs.Chunk{chunk(0, "x")}, Done: acknowledged}); err != nil {
		t.Fatal(err)
	}
	stop()
}

// A removed log tells its readers so, those that wait for more as well as later ones, and what it was stays known.
func TestReadersAreToldOfARemovedLog(t *testing.T) {
	t.Parallel()
	s, _, stop := newService(t)
	defer stop()
	streams := []store.StreamTotal{{Stream: store.Stdout, Bytes: 5}}
	send(t, s, []logs.Chunk{chunk(0, "abcde")})
	if err := s.Remove(t.Context(), []store.LogRef{ref}, "too old"); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("removing a log that has not ended gave %v", err)
	}
	tail, err := s.Tail(t.Context(), ref, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	send(t, s, nil, store.LogEnd{Ref: ref, Bytes: 5, Streams: streams})
	if chunks, _, _, err := tail.Read(t.Context()); err != nil || len(chunks) != 1 || string(chunks[0].Data) != "de" || chunks[0].Offset != 3 {
		t.Errorf("before its removal there is %+v, %v", chunks, err)
	}
	if err := s.Remove(t.Context(), []store.LogRef{ref}, ""); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("removing a log without a reason gave %v", err)
	}
	other := store.LogRef{Job: job.ID{2}, Attempt: 1}
	if err := s.Remove(t.Context(), []store.LogRef{ref, other}, "too old"); job.CodeOf(err) != job.CodePrecondition || string(readAll(t, s)) != "abcde" {
		t.Errorf("removing a log with one that is not there gave %v", err)
	}
	for _, why := range []string{"too old", "again"} {
		if err := s.Remove(t.Context(), []store.LogRef{ref}, why); err != nil {
			t.Error(err)
		}
	}
	for _, offset := range []uint64{0, 2, 5} {
		late, err := s.Tail(t.Context(), ref, offset)
		if err != nil {
			t.Fatal(err)
		}
		want := &store.LogEnd{Ref: ref, Bytes: 5, Streams: streams, Removed: "too old"}
		if chunks, end, _, err := late.Read(t.Context()); err != nil || len(chunks) != 0 || !reflect.DeepEqual(end, want) {
			t.Errorf("from %d there is %+v and the end %+v, %v", offset, chunks, end, err)
		}
		late.Close()
	}
	if acks := send(t, s, []logs.Chunk{chunk(5, "late")}); !acks[0].Ended {
		t.Errorf("output for a removed log gave %+v", acks)
	}
}

// However well a log can be compressed, one read returns a bounded piece of it, and the pieces are the log.
func TestReadsAreBounded(t *testing.T) {
	t.Parallel()
	s, _, stop := newService(t)
	defer stop()
	const size = 3 << 20
	send(t, s, []logs.Chunk{chunk(0, strings.Repeat("x", size))})
	for _, from := range []uint64{0, 1, 300_000} {
		tail, err := s.Tail(t.Context(), ref, from)
		if err != nil {
			t.Fatal(err)
		}
		for tail.Offset() < size {
			before, n := tail.Offset(), 0
			chunks, _, _, err := tail.Read(t.Context())
			for _, c := range chunks {
				if c.Offset != before+uint64(n) {
					t.Fatalf("after %d bytes a chunk begins at %d", before+uint64(n), c.Offset)
				}
				n += len(c.Data)
			}
			if err != nil || n == 0 || n > 512<<10 || tail.Offset() != before+uint64(n) {
				t.Fatalf("a read at %d returned %d bytes and moved to %d, %v", before, n, tail.Offset(), err)
			}
		}
		tail.Close()
	}
}
