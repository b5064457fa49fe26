package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"pgregory.net/rapid"
)

// callsOf is a server with a call, a stream to the client, and a stream of the client's.
func callsOf() *connect.Server {
	s := connect.NewServer()
	nothing := func(context.Context, connect.Spec, connect.ServerStream) error { return nil }
	for path, kind := range map[string]connect.StreamType{
		"/s/Call": connect.StreamTypeUnary, "/s/Watch": connect.StreamTypeServer, "/s/Session": connect.StreamTypeBidi,
	} {
		s.Register(connect.Method{Spec: connect.Spec{Procedure: path, StreamType: kind}, Handler: nothing})
	}
	return s
}

// deadlines is an answer that remembers the deadlines that were set.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write []time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = append(d.read, t); return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = append(d.write, t); return nil }

// readBody has a handler read a body, and returns what it read and the deadlines.
func readBody(l *Limits, path string, body io.Reader, length int64, header ...string) (got []byte, d *deadlines, err error) {
	d = &deadlines{ResponseRecorder: httptest.NewRecorder()}
	r := httptest.NewRequest(http.MethodPost, path, body)
	r.ContentLength, r.ProtoMajor = length, 2
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	l.bounded(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got, err = io.ReadAll(r.Body) }), callsOf()).ServeHTTP(d, r)
	return got, d, err
}

func TestBodiesHaveTheirTime(t *testing.T) {
	t.Parallel()
	body := bytes.Repeat([]byte("x"), 10*bodyRate)
	for path, want := range map[string]bool{"/s/Call": true, "/s/Watch": true, "/s/Session": false, "/unknown": true} {
		start := time.Now()
		got, d, err := readBody(&Limits{BodyTime: time.Minute}, path, bytes.NewReader(body), -1)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%s: %d bytes, %v", path, len(got), err)
		}
		if !want {
			if len(d.read) > 0 {
				t.Errorf("%s: what has no end in time has one", path)
			}
			continue
		}
		n := len(d.read)
		if n < 3 || !d.read[n-1].IsZero() {
			t.Fatalf("%s: the deadlines are %v; the last should be none", path, d.read)
		}
		first, last := d.read[0].Sub(start), d.read[n-2].Sub(start)
		if first < time.Minute || first > time.Minute+30*time.Second || d.read[n-2].Sub(d.read[0]) != 10*time.Second {
			t.Errorf("%s: the first deadline is after %v, the last after %v", path, first, last)
		}
		if !slices.IsSortedFunc(d.read[:n-1], time.Time.Compare) {
			t.Errorf("%s: the deadlines went back: %v", path, d.read)
		}
	}
}

// frames are messages with their sizes, of which the sum is not larger than the claims.
func frames(sizes ...int) []byte {
	var all []byte
	for _, n := range sizes {
		all = append(binary.BigEndian.AppendUint32(append(all, 0), uint32(n)), make([]byte, min(n, 100_000))...)
	}
	return all
}

func TestMessagesThatClaimTooMuch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, kind string
		sizes      []int
		taken      int // bytes; -1: all
	}{
		{"/s/Call", "application/grpc+proto", []int{1000}, -1},
		{"/s/Call", "application/grpc", []int{0, 0, 5}, -1},
		{"/s/Call", "application/grpc", []int{MaxRequestBytes + 1}, 5},
		{"/s/Call", "application/grpc-web+json", []int{7, 1<<32 - 1}, 17},
		{"/s/Call", "application/proto", []int{1<<32 - 1}, -1}, // it has no sizes
		{"/s/Session", "application/connect+proto", []int{100_000, 1 << 31, 7}, 100_010},
		{"/s/Watch", "application/connect+json", []int{smallBody}, -1},
		{"/s/Watch", "application/connect+json", []int{smallBody + 1}, 5},
	} {
		body := frames(c.sizes...)
		got, _, err := readBody(&Limits{}, c.path, oneByOne{bytes.NewReader(body)}, -1, "Content-Type", c.kind)
		if c.taken < 0 {
			if err != nil || len(got) != len(body) {
				t.Errorf("%v on %s: %d of %d bytes, %v", c.sizes, c.path, len(got), len(body), err)
			}
			continue
		}
		if err == nil || len(got) != c.taken {
			t.Errorf("%v on %s: %d bytes were taken, want %d; %v", c.sizes, c.path, len(got), c.taken, err)
		}
	}
}

// oneByOne gives a byte at a time.
type oneByOne struct{ io.Reader }

func (o oneByOne) Read(p []byte) (int, error) { return o.Reader.Read(p[:min(1, len(p))]) }

// However a body is cut into pieces, the first message that claims too much is found, and no other.
func TestSizesInAnyPieces(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const largest = 50
		sizes := rapid.SliceOfN(rapid.IntRange(0, largest+3), 0, 20).Draw(t, "sizes")
		var all []byte
		bad, at := false, 0
		for _, n := range sizes {
			all = append(binary.BigEndian.AppendUint32(append(all, 0xff), uint32(n)), bytes.Repeat([]byte{0xff}, n)...)
			if n > largest && !bad {
				bad, at = true, len(all)-n
			}
		}
		b := &boundedBody{largest: largest}
		done := 0
		for rest := all; len(rest) > 0 && b.err == nil; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			b.look(rest[:n])
			rest = rest[n:]
			done += n
		}
		if (b.err != nil) != bad || bad && done < at {
			t.Fatalf("%v: %v after %d bytes, want an error: %v at %d", sizes, b.err, done, bad, at)
		}
	})
}

// Large bodies, and those of which nobody knows, are taken in as long as there is memory; small ones always.
func TestMemoryForBodies(t *testing.T) {
	t.Parallel()
	limits := &Limits{BodyMemory: 2 * growth * MaxRequestBytes}
	small, large := strings.NewReader, func(n int) io.Reader { return bytes.NewReader(make([]byte, n)) }
	release := make(chan struct{})
	var inside atomic.Int32
	handler := limits.bounded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			var refusal *connect.Error
			if !errors.As(err, &refusal) || refusal.Code() != connect.CodeResourceExhausted || len(refusal.Details()) != 2 ||
				refusal.Details()[1].Type != string((*errdetails.RetryInfo)(nil).ProtoReflect().Descriptor().FullName()) {
				t.Errorf("the refusal is %v", err)
			}
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		if r.Header.Get("Hold") != "" {
			inside.Add(1)
			<-release
		}
	}), callsOf())
	call := func(body io.Reader, length int64, header ...string) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/s/Call", body)
		r.ContentLength, r.ProtoMajor = length, 2
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		handler.ServeHTTP(w, r)
		return w.Code
	}
	done := make(chan int, 2)
	go func() { done <- call(small("x"), 1, "Content-Encoding", "gzip", "Hold", "1") }()
	go func() { done <- call(large(MaxRequestBytes), MaxRequestBytes, "Hold", "1") }()
	for inside.Load() < 2 {
		<-time.After(time.Millisecond)
	}
	for _, c := range []struct {
		name   string
		body   io.Reader
		length int64
		header []string
		want   int
	}{
		{"small", small("x"), 1, nil, 200},
		{"small, of unknown length", small("x"), -1, nil, 200},
		{"small, not compressed", small("x"), 1, []string{"Content-Encoding", "identity"}, 200},
		{"small, with its size", bytes.NewReader(frames(10)), -1, []string{"Content-Type", "application/grpc"}, 200},
		{"large", large(smallBody + 1), smallBody + 1, nil, 429},
		{"large, of unknown length", large(smallBody + 1), -1, nil, 429},
		{"large, with its size", bytes.NewReader(frames(smallBody + 1)), -1, []string{"Content-Type", "application/grpc"}, 429},
		{"compressed", small("x"), 1, []string{"Content-Encoding", "gzip"}, 429},
		{"compressed by gRPC", bytes.NewReader(frames(10)), -1, []string{"Content-Type", "application/grpc", "Grpc-Encoding", "gzip"}, 429},
	} {
		if got := call(c.body, c.length, c.header...); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	close(release)
	for range 2 {
		if code := <-done; code != 200 {
			t.Errorf("one that had memory ended with %d", code)
		}
	}
	if got := call(large(MaxRequestBytes), MaxRequestBytes); got != 200 {
		t.Errorf("when the others have ended: %d", got)
	}
}

// What of a body was not read is no request of its own: the connection ends instead.
func TestUnreadBodiesAreNoRequests(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	limits := &Limits{}
	server := httptest.NewServer(limits.bounded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		_, _ = r.Body.Read(make([]byte, 10))
		_ = r.Body.Close() // as Connect does
		w.WriteHeader(http.StatusTeapot)
	}), callsOf()))
	defer server.Close()
	hidden := strings.Repeat("GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n", 50_000)
	c, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		_, _ = fmt.Fprintf(c, "POST /s/Call HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden)
	}()
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || answer.StatusCode != http.StatusTeapot || !answer.Close {
		t.Errorf("the answer is %v, %v; want one that ends the connection", answer, err)
	}
	_, _ = io.Copy(io.Discard, c)
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests were served", n)
	}
}

// Over HTTP/1 every piece of an answer has its time.
func TestAnswersOverHTTP1(t *testing.T) {
	t.Parallel()
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	want := bytes.Repeat([]byte("abc"), writePiece)
	start := time.Now()
	limits := &Limits{WriteTime: time.Hour}
	limits.bounded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n, err := w.Write(want); n != len(want) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
	})).ServeHTTP(d, httptest.NewRequest(http.MethodGet, "/", nil))
	if !bytes.Equal(d.Body.Bytes(), want) || !d.Flushed {
		t.Errorf("%d bytes were written, flushed: %v", d.Body.Len(), d.Flushed)
	}
	if len(d.write) != 5 { // three pieces, the flush and the end
		t.Errorf("%d deadlines were set", len(d.write))
	}
	for _, by := range d.write {
		if by.Before(start.Add(time.Hour)) || by.After(time.Now().Add(time.Hour)) {
			t.Errorf("a deadline is %v", by)
		}
	}
}

// Whatever a body is, and wherever it is cut, the same is found in it as in one piece.
func FuzzSizes(f *testing.F) {
	f.Add(frames(1, 2, 3), 7)
	f.Add(frames(1<<32-1), 3)
	f.Add([]byte("\x00\x00"), 1)
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		whole, pieces := &boundedBody{largest: 1000}, &boundedBody{largest: 1000}
		whole.look(body)
		cut = max(0, min(cut, len(body)))
		if pieces.look(body[:cut]); pieces.err == nil {
			pieces.look(body[cut:])
		}
		if fmt.Sprint(whole.err) != fmt.Sprint(pieces.err) || whole.err == nil && (whole.left != pieces.left || whole.have != pieces.have) {
			t.Fatalf("in one piece %v, in two %v", whole.err, pieces.err)
		}
	})
}
