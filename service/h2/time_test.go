package h2

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

// ended says whether the server has closed the connection.
func (p *peer) ended() bool {
	synctest.Wait()
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *peer) mustEndAfter(limit time.Duration) {
	p.t.Helper()
	time.Sleep(limit - time.Second)
	if p.ended() {
		p.t.Fatalf("the connection was closed earlier than after %v", limit)
	}
	time.Sleep(time.Second + lingerTime)
	if !p.ended() {
		p.t.Fatalf("the connection is still there after %v", limit)
	}
}

func TestWhoSaysNothingIsCutOff(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(p *peer){
		"nothing at all":     func(*peer) {},
		"half of a greeting": func(p *peer) { p.Say([]byte("PRI * HTTP")) },
		"no settings":        func(p *peer) { p.Say([]byte(http2.ClientPreface)) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := connect(t, testServer(nil), echoes, 1<<20)
				say(p)
				p.mustEndAfter(10 * time.Second)
			})
		})
	}
}

func TestWhoGreetsWronglyIsCutOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		say  func(p *peer)
		want string
	}{
		"HTTP/1":          {func(p *peer) { p.Say([]byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")) }, "GOAWAY 0 PROTOCOL_ERROR"},
		"a ping first":    {func(p *peer) { p.Say([]byte(http2.ClientPreface)); p.Must(p.Frames.WritePing(false, [8]byte{})) }, "GOAWAY 0 PROTOCOL_ERROR"},
		"a request first": {func(p *peer) { p.Say([]byte(http2.ClientPreface)); p.Headers(1, true, post()...) }, "GOAWAY 0 PROTOCOL_ERROR"},
		"an answer first": {func(p *peer) { p.Say([]byte(http2.ClientPreface)); p.Must(p.Frames.WriteSettingsAck()) }, "GOAWAY 0 PROTOCOL_ERROR"},
		"too many settings": {func(p *peer) {
			p.Say([]byte(http2.ClientPreface))
			p.Must(p.Frames.WriteSettings(make([]http2.Setting, 101)...))
		}, "GOAWAY 0 ENHANCE_YOUR_CALM"},
		"something else": {func(p *peer) { p.Say(make([]byte, 100)) }, "GOAWAY 0 PROTOCOL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := connect(t, testServer(nil), echoes, 1<<20)
				c.say(p)
				p.Expect("SETTINGS", "WINDOW_UPDATE 0 +4128768", c.want, "EOF")
			})
		})
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, testServer(func(s *http.Server) { s.HTTP2.SendPingTimeout = 0 }), echoes, 1<<20)
		p.greet()
		time.Sleep(time.Minute)
		p.Headers(1, true, post()...)
		p.Heard()
		time.Sleep(2*time.Minute - time.Second)
		p.Expect()
		time.Sleep(time.Second)
		p.Expect("GOAWAY 1 NO_ERROR", "EOF")
		p.Headers(3, true, post()...) // too late, which it was told
		p.Expect("EOF")
		time.Sleep(lingerTime)
		if !p.ended() {
			t.Fatal("the connection is still there")
		}
	})
}

// A connection with a call is not idle, however long the call says nothing.
func TestCallsAreNotIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		p := connect(t, testServer(func(s *http.Server) { s.HTTP2.SendPingTimeout = 0 }), func(http.ResponseWriter, *http.Request) { <-release }, 1<<20)
		p.greet()
		p.Headers(1, true, post()...)
		time.Sleep(time.Hour)
		p.Expect()
		close(release)
		p.Expect("HEADERS 1 :status=200 content-length=0 end")
	})
}

func TestASilentPeerIsAsked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		p.Headers(1, true, post()...)
		for range 10 { // it answers
			time.Sleep(15*time.Second - time.Millisecond)
			p.Expect()
			time.Sleep(time.Millisecond)
			p.Expect("PING")
			p.Must(p.Frames.WritePing(true, [8]byte{}))
			synctest.Wait()
		}
		for range 10 { // it says something else in time
			time.Sleep(14 * time.Second)
			p.Must(p.Frames.WriteWindowUpdate(0, 1))
			p.Expect()
		}
		time.Sleep(15 * time.Second)
		p.Expect("PING")
		time.Sleep(10*time.Second - time.Millisecond)
		if p.ended() {
			t.Fatal("the connection was closed too early")
		}
		time.Sleep(time.Millisecond)
		if !p.ended() {
			t.Fatal("the connection is still there")
		}
	})
}

// A peer that takes nothing for half a minute is gone. One that takes a little now and then is slow.
func TestWritingIsLimited(t *testing.T) {
	t.Parallel()
	endless := func(ended *atomic.Int64) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					ended.Add(1)
					return
				}
			}
		}
	}
	t.Run("nothing", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var ended atomic.Int64
			p := connect(t, testServer(nil), endless(&ended), 50_000)
			p.greet(window(1 << 30))
			p.Must(p.Frames.WriteWindowUpdate(0, 1<<30))
			for i := range uint32(5) {
				p.Headers(2*i+1, true, post()...)
			}
			for range 29 {
				time.Sleep(time.Second)
				p.Must(p.Frames.WritePing(true, [8]byte{}))
			}
			if p.ended() || ended.Load() > 0 {
				t.Fatal("the connection was closed too early")
			}
			time.Sleep(2 * time.Second)
			if !p.ended() || ended.Load() != 5 {
				t.Fatalf("the connection is still there, %d handlers have ended", ended.Load())
			}
		})
	})
	t.Run("a little", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var ended atomic.Int64
			p := connect(t, testServer(nil), endless(&ended), 50_000)
			p.greet(window(1 << 30))
			p.Must(p.Frames.WriteWindowUpdate(0, 1<<30))
			p.Headers(1, true, post()...)
			for range 60 {
				time.Sleep(5 * time.Second)
				p.Must(p.Frames.WritePing(true, [8]byte{}))
				if _, err := io.ReadFull(p.End, make([]byte, 5000)); err != nil {
					t.Fatal(err)
				}
			}
			if p.ended() || ended.Load() > 0 {
				t.Fatal("the connection was closed")
			}
		})
	})
}

// A peer that does not read must not keep the server from reading: it may be waiting for just that.
func TestReadingGoesOnWhileWritingIsBlocked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		got := make(chan int64, 1)
		p := connect(t, testServer(nil), func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Fill") != "" {
				_, _ = w.Write(make([]byte, 1<<20))
				return
			}
			n, _ := io.Copy(io.Discard, r.Body)
			got <- n
		}, 1000)
		p.greet(window(1 << 30))
		p.Must(p.Frames.WriteWindowUpdate(0, 1<<30))
		p.Headers(1, true, post("fill", "1")...)
		synctest.Wait() // its handler is blocked now
		p.Headers(3, false, post()...)
		for range 10 {
			p.Must(p.Frames.WritePing(false, [8]byte{}))
			p.Data(3, false, string(make([]byte, 10_000)))
		}
		p.Data(3, true, "")
		synctest.Wait()
		select {
		case n := <-got:
			if n != 100_000 {
				t.Fatalf("the handler got %d bytes", n)
			}
		default:
			t.Fatal("the handler got nothing, though all was sent")
		}
	})
}

// The http.Server's limits for whole requests are kept.
func TestTimeoutsOfTheServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		errs := make(chan error, 1)
		p := connect(t, testServer(func(s *http.Server) { s.ReadTimeout = 5 * time.Second; s.WriteTimeout = 8 * time.Second }),
			func(w http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				errs <- err
				<-r.Context().Done()
			}, 1<<20)
		p.greet()
		p.Headers(1, false, post("content-length", "10")...)
		p.Data(1, false, "abc")
		time.Sleep(5*time.Second - time.Millisecond)
		p.Expect()
		time.Sleep(time.Millisecond)
		if err := <-errs; err == nil {
			t.Fatal("the handler was not told")
		}
		time.Sleep(3 * time.Second)
		p.Expect("RST_STREAM 1 INTERNAL_ERROR")
	})
}

// Shutdown lets what runs end, and refuses nothing that came before the peer knew.
func TestShutdown(t *testing.T) {
	t.Parallel()
	t.Run("with a call", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			release := make(chan struct{})
			s := testServer(nil)
			p := connect(t, s, func(w http.ResponseWriter, r *http.Request) { <-release; echoes(w, r) }, 1<<20)
			p.greet()
			p.Headers(1, true, post()...)
			p.Expect()
			p.server.shutdown()
			p.Expect("GOAWAY 2147483647 NO_ERROR", "PING")
			p.Headers(3, true, post()...) // was on its way
			p.Must(p.Frames.WritePing(true, departurePing))
			p.Expect("GOAWAY 3 NO_ERROR")
			p.Headers(5, false, post()...)
			p.Data(5, true, "x")
			p.Must(p.Frames.WriteWindowUpdate(5, 1))
			p.Must(p.Frames.WriteRSTStream(5, http2.ErrCodeCancel))
			p.Expect()
			close(release)
			got := p.Heard()
			if len(got) != 3 || got[2] != "EOF" {
				t.Fatalf("got %q", got)
			}
			time.Sleep(lingerTime)
			if !p.ended() {
				t.Fatal("the connection is still there")
			}
		})
	})
	t.Run("a peer that does not answer", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, echoes)
			p.server.shutdown()
			p.Expect("GOAWAY 2147483647 NO_ERROR", "PING")
			time.Sleep(lingerTime)
			p.Expect("GOAWAY 0 NO_ERROR", "EOF")
		})
	})
	t.Run("a connection that comes later", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			first := dial(t, echoes)
			first.server.shutdown()
			p := connectTo(t, first.server, echoes, 1<<20)
			p.Say([]byte(http2.ClientPreface))
			p.Must(p.Frames.WriteSettings())
			p.Expect("SETTINGS", "WINDOW_UPDATE 0 +4128768", "GOAWAY 2147483647 NO_ERROR", "PING", "SETTINGS ack")
		})
	})
	t.Run("by a handler", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
			p.Headers(1, true, post()...)
			p.Expect("HEADERS 1 :status=200 content-length=0 end", "GOAWAY 2147483647 NO_ERROR", "PING")
		})
	})
}

// Contexts end with the call, however it ends.
func TestContexts(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(p *peer, release chan struct{}){
		"by returning":      func(_ *peer, release chan struct{}) { close(release) },
		"by a reset":        func(p *peer, _ chan struct{}) { p.Must(p.Frames.WriteRSTStream(1, http2.ErrCodeCancel)) },
		"by the connection": func(p *peer, _ chan struct{}) { _ = p.End.Close() },
		"by an error":       func(p *peer, _ chan struct{}) { p.Data(0, true, "") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				contexts, release := make(chan context.Context, 1), make(chan struct{})
				p := dial(t, func(_ http.ResponseWriter, r *http.Request) {
					contexts <- r.Context()
					select {
					case <-release:
					case <-r.Context().Done():
					}
				})
				p.Headers(1, false, post()...)
				ctx := <-contexts
				synctest.Wait()
				if ctx.Err() != nil {
					t.Fatal("the context has ended too early")
				}
				end(p, release)
				<-ctx.Done()
			})
		})
	}
}
