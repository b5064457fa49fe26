package h2

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing/wiretest"
)

// When handlers start: small declared bodies are waited for, and nothing else is.
func TestWhenHandlersStart(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		fields []string
		sent   string
		starts bool
	}{
		{"no length", nil, "", true},
		{"a length, and nothing of the body", []string{"content-length", "10"}, "", false},
		{"a length, and half of the body", []string{"content-length", "10"}, "01234", false},
		{"a length, and all of the body", []string{"content-length", "10"}, "0123456789", true},
		{"the largest length that is waited for", []string{"content-length", fmt.Sprint(waitForBody)}, "0", false},
		{"a larger length", []string{"content-length", fmt.Sprint(waitForBody + 1)}, "0", true},
		{"no body", []string{"content-length", "0"}, "", true},
		{"a peer that waits", []string{"content-length", "10", "expect", "100-continue"}, "", true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var started atomic.Bool
				p := dial(t, func(http.ResponseWriter, *http.Request) { started.Store(true) })
				p.Headers(1, false, post(c.fields...)...)
				if c.sent != "" {
					p.Data(1, false, c.sent)
				}
				synctest.Wait()
				if started.Load() != c.starts {
					t.Fatalf("the handler has started: %v", started.Load())
				}
			})
		})
	}
}

// A handler starts though half of a frame has come after its request.
func TestHalfAFrameHoldsNothingUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, echoes)
		var both bytes.Buffer
		frames := http2.NewFramer(&both, nil)
		p.Must(frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.Encode(post()...), EndHeaders: true, EndStream: true}))
		p.Must(frames.WriteData(3, true, []byte("half of it")))
		p.Say(both.Bytes()[:both.Len()-5])
		p.Expect("HEADERS 1 :status=200 content-length=0 content-type=text/plain end")
	})
}

// A reset that comes with the request keeps the handler from starting.
func TestARequestThatIsResetAtOnceIsNotServed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(http.ResponseWriter, *http.Request) { t.Error("the handler has started") })
		var both bytes.Buffer
		frames := http2.NewFramer(&both, nil)
		p.Must(frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.Encode(post()...), EndHeaders: true}))
		p.Must(frames.WriteRSTStream(1, http2.ErrCodeCancel))
		p.Say(both.Bytes())
		p.Headers(3, false, post("content-length", "5")...)
		p.Must(p.Frames.WriteRSTStream(3, http2.ErrCodeCancel))
		p.Expect()
	})
}

// A peer that waits for "100 Continue" gets it when the body is read for the first time, and not otherwise.
func TestContinue(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(w http.ResponseWriter, r *http.Request) {
			switch r.Header.Get("Do") {
			case "read":
				echoes(w, r)
			case "say":
				w.WriteHeader(http.StatusContinue)
				echoes(w, r)
			case "refuse":
				w.WriteHeader(http.StatusForbidden)
			case "answer first":
				w.WriteHeader(http.StatusOK)
				w.(http.Flusher).Flush()
				_, _ = io.ReadAll(r.Body)
			}
		})
		for i, do := range []string{"read", "say", "refuse", "answer first"} {
			id := uint32(2*i + 1)
			p.Headers(id, false, post("do", do, "content-length", "3", "expect", "100-continue")...)
			switch do {
			case "refuse":
				p.Expect(fmt.Sprintf("HEADERS %d :status=403 content-length=0 end", id), fmt.Sprintf("RST_STREAM %d NO_ERROR", id))
				continue
			case "answer first":
				p.Expect(fmt.Sprintf("HEADERS %d :status=200", id))
				p.Data(id, true, "abc")
				p.Expect(fmt.Sprintf("DATA %d \"\" end", id))
				continue
			}
			p.Expect(fmt.Sprintf("HEADERS %d :status=100", id))
			p.Data(id, true, "abc")
			p.Expect(fmt.Sprintf("HEADERS %d :status=200 content-length=3 content-type=text/plain", id), fmt.Sprintf("DATA %d \"abc\" end", id))
		}
	})
}

// A small answer is one write, and thus one record and one packet.
func TestASmallAnswerIsOneWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var server *wiretest.End
		near, far := wiretest.New(1<<20, 1<<20)
		server = near
		srv := newServer(testServer(nil))
		p := &peer{Speaker: wiretest.NewSpeaker(t, far), t: t, server: srv, done: make(chan struct{})}
		c := newConn(t.Context(), srv, &srv.limits, near, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "body")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}))
		go func() { defer close(p.done); srv.serve(c) }()
		p.greet()
		before := server.Written()
		p.Headers(1, true, post()...)
		p.Expect("HEADERS 1 :status=200 content-length=4 content-type=text/plain; charset=utf-8", `DATA 1 "body"`, "HEADERS 1 grpc-status=0 end")
		if n := server.Written() - before; n != 1 {
			t.Errorf("the answer took %d writes", n)
		}
		_ = far.Close()
		<-p.done
		time.Sleep(5 * idleTime)
	})
}

// What a handler has left behind when it panicked must not reach another caller.
func TestAPanicEndsItsStreamOnly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var logged bytes.Buffer
		p := connect(t, testServer(func(s *http.Server) { s.ErrorLog = log.New(&logged, "", 0) }), func(w http.ResponseWriter, r *http.Request) {
			switch r.Header.Get("Do") {
			case "panic":
				_, _ = io.WriteString(w, "secret")
				panic("a mistake")
			case "abort":
				_, _ = io.WriteString(w, "secret")
				panic(http.ErrAbortHandler)
			case "exit":
				_, _ = io.WriteString(w, "secret")
				runtime.Goexit()
			}
			_, _ = io.WriteString(w, "hello")
		}, 1<<20)
		p.greet()
		for i, do := range []string{"abort", "panic", "exit", "abort"} {
			id := uint32(4*i + 1)
			p.Headers(id, true, post("do", do)...)
			p.Expect(fmt.Sprintf("RST_STREAM %d INTERNAL_ERROR", id))
			p.Headers(id+2, true, post()...)
			p.Expect(fmt.Sprintf("HEADERS %d :status=200 content-length=5 content-type=text/plain; charset=utf-8", id+2), fmt.Sprintf("DATA %d \"hello\" end", id+2))
		}
		if n := strings.Count(logged.String(), "panic serving"); n != 1 || !strings.Contains(logged.String(), "a mistake") || !strings.Contains(logged.String(), "handler_test.go") {
			t.Fatalf("the log says %d times: %s", n, logged.String())
		}
	})
}

// Who keeps a ResponseWriter or a body beyond its call gets errors, and never into another call.
func TestAfterTheCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w http.ResponseWriter
		var r *http.Request
		p := dial(t, func(writer http.ResponseWriter, request *http.Request) { w, r = writer, request })
		p.Headers(1, false, post()...)
		p.Expect("HEADERS 1 :status=200 content-length=0 end", "RST_STREAM 1 NO_ERROR")
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("writing was possible")
		}
		if err := http.NewResponseController(w).Flush(); err == nil {
			t.Error("flushing was possible")
		}
		w.WriteHeader(200)
		if _, err := r.Body.Read(make([]byte, 1)); err == nil {
			t.Error("reading was possible")
		}
		if err := r.Body.Close(); err != nil {
			t.Error(err)
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(-time.Second))
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
		p.Data(1, true, "x") // was on its way
		p.Headers(1, true, "late", "trailer")
		p.Expect()
	})
}

// A handler is told that it writes more than it has declared.
func TestMoreThanDeclared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var err error
		p := dial(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			w.Header().Set("Content-Type", "x/y")
			_, _ = io.WriteString(w, "abc")
			_, err = io.WriteString(w, "d")
		})
		p.Headers(1, true, post()...)
		p.Expect("HEADERS 1 :status=200 content-length=3 content-type=x/y", `DATA 1 "abc" end`)
		if err != http.ErrContentLength { //nolint:errorlint // it is this one
			t.Fatal(err)
		}
	})
}

func TestAWriteDeadlineEndsTheStream(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var err error
		p := dial(t, func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			_ = control.SetWriteDeadline(time.Now().Add(time.Second))
			_ = control.SetWriteDeadline(time.Time{}) // it can be taken back
			time.Sleep(2 * time.Second)
			_ = control.SetWriteDeadline(time.Now().Add(time.Second))
			<-r.Context().Done()
			_, err = w.Write(make([]byte, 5000))
		})
		p.Headers(1, true, post()...)
		p.Expect()
		time.Sleep(3*time.Second - time.Millisecond)
		p.Expect()
		time.Sleep(time.Millisecond)
		p.Expect("RST_STREAM 1 INTERNAL_ERROR")
		if !strings.Contains(fmt.Sprint(err), os.ErrDeadlineExceeded.Error()) {
			t.Fatal(err)
		}
	})
}

// The streams that count are those whose handlers have not returned.
func TestStreamsAreLimitedByTheirHandlers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		p := dial(t, func(http.ResponseWriter, *http.Request) { <-release })
		for i := range uint32(100) {
			p.Headers(2*i+1, true, post()...)
		}
		p.Expect()
		for i := range uint32(100) {
			p.Must(p.Frames.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
		}
		p.Expect()
		p.Headers(201, true, post()...)
		p.Expect("RST_STREAM 201 REFUSED_STREAM")
		close(release)
		p.Expect()
		p.Headers(203, true, post()...)
		p.Expect("HEADERS 203 :status=200 content-length=0 end")
	})
}

// Idle goroutines are used again, and go when nobody needs them.
func TestWorkers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var w workers
		gate := make(chan struct{})
		for range 10 {
			w.run(waitFor(gate))
		}
		close(gate)
		synctest.Wait()
		if n := w.waiting(); n != 10 {
			t.Fatalf("%d workers are idle", n)
		}
		for range 4 * 10 { // two are needed now and then, the others not at all
			both := make(chan struct{})
			w.run(waitFor(both))
			w.run(waitFor(both))
			time.Sleep(idleTime / 8)
			close(both)
			synctest.Wait()
		}
		if n := w.waiting(); n != 2 {
			t.Fatalf("%d workers are idle", n)
		}
		time.Sleep(3 * idleTime)
		if n := w.waiting(); n != 0 {
			t.Fatalf("%d workers are idle", n)
		}
		many := make(chan struct{})
		for range idleWorkers + 100 {
			w.run(waitFor(many))
		}
		close(many)
		synctest.Wait()
		if n := w.waiting(); n != idleWorkers {
			t.Fatalf("%d workers are idle", n)
		}
		time.Sleep(3 * idleTime)
	})
}

func (w *workers) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.idle)
}

type waitFor chan struct{}

func (w waitFor) run(*scratch) { <-w }
