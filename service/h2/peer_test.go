package h2

import (
	"context"
	"io"
	"log"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing/wiretest"
)

// peer is a client that speaks frame by frame, and may say what no client should.
type peer struct {
	*wiretest.Speaker
	t      *testing.T
	server *server
	done   chan struct{}
}

// bubble runs a test with a clock of its own. That it returns says that no goroutine is left.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// testServer has the limits of the API.
func testServer(change func(*http.Server)) *http.Server {
	s := &http.Server{
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: log.New(io.Discard, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 64 << 10, MaxReceiveBufferPerStream: 256 << 10,
			MaxReceiveBufferPerConnection: 4<<20 - 1, SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
			WriteByteTimeout: 30 * time.Second,
		},
	}
	if change != nil {
		change(s)
	}
	return s
}

// connect begins a connection without saying anything. At its end all goroutines must go.
func connect(t *testing.T, s *http.Server, handler http.HandlerFunc, toClient int) *peer {
	t.Helper()
	return connectTo(t, newServer(s), handler, toClient)
}

func connectTo(t *testing.T, srv *server, handler http.HandlerFunc, toClient int) *peer {
	t.Helper()
	near, far := wiretest.New(1<<20, toClient)
	p := &peer{Speaker: wiretest.NewSpeaker(t, far), t: t, server: srv, done: make(chan struct{})}
	c := newConn(context.Background(), srv, &srv.limits, near, handler)
	go func() {
		defer close(p.done)
		srv.serve(c)
	}()
	t.Cleanup(func() {
		_ = far.Close()
		<-p.done
		time.Sleep(5 * idleTime) // until idle workers are gone
	})
	return p
}

// dial begins a connection as a client does, and takes what the server says first.
func dial(t *testing.T, handler http.HandlerFunc, settings ...http2.Setting) *peer {
	t.Helper()
	p := connect(t, testServer(nil), handler, 64<<20)
	p.greet(settings...)
	return p
}

func (p *peer) greet(settings ...http2.Setting) {
	p.t.Helper()
	p.Say([]byte(http2.ClientPreface))
	p.Must(p.Frames.WriteSettings(settings...))
	p.Expect("SETTINGS", "WINDOW_UPDATE 0 +4128768", "SETTINGS ack")
	p.Must(p.Frames.WriteSettingsAck())
}

// post are the fields of a request.
func post(more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "https", ":authority", "example.com", ":path", "/a"}, more...)
}
