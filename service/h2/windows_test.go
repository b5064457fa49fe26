package h2

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

func window(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n}
}

// The server sends no more than the windows allow, also when one becomes negative, and goes on when they open.
func TestWindowsForSending(t *testing.T) {
	t.Parallel()
	large := func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, strings.Repeat("x", 200))
	}
	const header = "HEADERS 1 :status=200 content-length=200"
	t.Run("of the stream", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, large, window(50))
			p.Headers(1, true, post()...)
			p.Expect(header, "DATA 1 50 bytes")
			p.Must(p.Frames.WriteWindowUpdate(1, 60))
			p.Expect("DATA 1 60 bytes")
			p.Must(p.Frames.WriteSettings(window(100))) // 50 more
			p.Expect("SETTINGS ack", "DATA 1 50 bytes")
			p.Must(p.Frames.WriteSettings(window(20))) // 80 less than nothing
			p.Must(p.Frames.WriteWindowUpdate(1, 80))
			p.Expect("SETTINGS ack")
			p.Must(p.Frames.WriteWindowUpdate(1, 1000))
			p.Expect("DATA 1 \"" + strings.Repeat("x", 40) + "\" end")
		})
	})
	t.Run("of the connection", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Content-Type"] = nil
				_, _ = w.Write(make([]byte, 65_000))
			}, window(1<<20))
			p.Headers(1, true, post()...)
			p.Expect("HEADERS 1 :status=200", "DATA 1 16384 bytes", "DATA 1 16384 bytes",
				"DATA 1 16384 bytes", "DATA 1 15848 bytes", `DATA 1 "" end`)
			p.Headers(3, true, post()...)
			p.Expect("HEADERS 3 :status=200", "DATA 3 535 bytes")
			p.Must(p.Frames.WriteWindowUpdate(0, 1<<20))
			p.Expect("DATA 3 16384 bytes", "DATA 3 16384 bytes", "DATA 3 16384 bytes", "DATA 3 15313 bytes", `DATA 3 "" end`)
		})
	})
	t.Run("of the connection, for many", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, 20_000)) }, window(1<<20))
			const streams = 90
			for i := range uint32(streams) {
				p.Headers(2*i+1, true, post()...)
			}
			ends, rounds := 0, 0
			for ; ends < streams && rounds < 1000; rounds++ {
				if rounds == 3 { // those that are reset must not keep the others from their turn
					for i := range uint32(10) {
						p.Must(p.Frames.WriteRSTStream(2*i+1, http2.ErrCodeCancel))
					}
					ends += 10
				}
				for _, said := range p.Heard() {
					if strings.HasSuffix(said, " end") {
						ends++
					}
				}
				p.Must(p.Frames.WriteWindowUpdate(0, 3000))
			}
			if ends < streams-3 {
				t.Fatalf("after %d windows only %d answers were complete", rounds, ends)
			}
		})
	})
	t.Run("too large by settings", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, large, window(0))
			p.Headers(1, true, post()...)
			p.Must(p.Frames.WriteWindowUpdate(1, 1<<31-1))
			p.Heard()
			p.Headers(3, true, post()...)
			p.Must(p.Frames.WriteWindowUpdate(3, 1<<31-1-200))
			p.Heard()
			p.Headers(5, false, post("content-length", "1")...)
			p.Must(p.Frames.WriteWindowUpdate(5, 1<<31-1))
			p.Must(p.Frames.WriteSettings(window(1)))
			p.Expect("GOAWAY 5 FLOW_CONTROL_ERROR", "EOF")
		})
	})
	t.Run("wake at the end", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			var failed error
			p := dial(t, func(w http.ResponseWriter, r *http.Request) {
				_, failed = w.Write(make([]byte, 5000))
			}, window(0))
			p.Headers(1, true, post()...)
			p.Heard()
			p.Must(p.Frames.WriteRSTStream(1, http2.ErrCodeCancel))
			p.Expect()
			var reset http2.StreamError
			if !errors.As(failed, &reset) || reset.Code != http2.ErrCodeCancel {
				t.Fatalf("the handler was told %v", failed)
			}
		})
	})
}

// A large frame is not larger than the peer takes, and a header not either.
func TestFramesAreAsLargeAsThePeerTakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Large", strings.Repeat("~", 30_000))
			w.WriteHeader(http.StatusNoContent)
		}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 20_000})
		p.Headers(1, true, post()...)
		got := p.Heard()
		if len(got) != 2 || got[0] != "HEADERS 1 16384 bytes of a header end" || got[1] != "CONTINUATION 1" {
			t.Fatalf("got %.300q", got)
		}
	})
}

// Room for more is announced in large pieces, and never withheld when the peer has none.
func TestWindowsForReceiving(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", 16<<10)
	t.Run("small bodies", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, func(http.ResponseWriter, *http.Request) {})
			var updates []string
			for i := range uint32(200) { // 3.2 MB that nobody reads
				p.Headers(2*i+1, false, post("content-length", "16384")...)
				p.Data(2*i+1, true, piece)
				for _, said := range p.Heard() {
					if strings.HasPrefix(said, "WINDOW_UPDATE") {
						updates = append(updates, said)
					}
				}
			}
			if len(updates) != 3 || updates[0] != "WINDOW_UPDATE 0 +1064960" && updates[0] != "WINDOW_UPDATE 0 +1048576" {
				t.Fatalf("room was announced by %q", updates)
			}
		})
	})
	t.Run("a stream that is read late", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			read := make(chan int)
			p := dial(t, func(_ http.ResponseWriter, r *http.Request) {
				for n := range read {
					if _, err := io.ReadFull(r.Body, make([]byte, n)); err != nil {
						t.Error(err)
					}
				}
			})
			p.Headers(1, false, post()...)
			for range 16 {
				p.Data(1, false, piece)
			}
			p.Expect() // all is used now
			read <- 100
			p.Expect("WINDOW_UPDATE 1 +100")
			read <- 1000
			p.Expect("WINDOW_UPDATE 1 +1000")
			read <- 100_000
			p.expectOnly("WINDOW_UPDATE 1")
			p.Data(1, true, "")
			close(read)
			p.Heard()
		})
	})
	t.Run("more than was allowed on a stream", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			p.Headers(1, false, post()...)
			for range 16 {
				p.Data(1, false, piece)
			}
			p.Data(1, false, "x")
			p.Expect("RST_STREAM 1 FLOW_CONTROL_ERROR")
		})
	})
	t.Run("more than was allowed on the connection", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			for i := range uint32(16) {
				p.Headers(2*i+1, false, post()...)
				for range 16 {
					p.Data(2*i+1, false, piece)
				}
				if i < 15 {
					p.Expect()
				}
			}
			p.Expect("GOAWAY 31 FLOW_CONTROL_ERROR", "EOF")
		})
	})
	t.Run("what is dropped counts", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, func(_ http.ResponseWriter, r *http.Request) {
				switch r.Header.Get("Do") {
				case "close":
					_ = r.Body.Close()
					<-r.Context().Done()
				case "hold":
					<-r.Context().Done()
				}
			})
			sent, announced := 0, 0
			for i := range uint32(120) { // 15 MB, several times the window
				id := 2*i + 1
				p.Headers(id, false, post("do", []string{"close", "hold", "return"}[i%3])...)
				for range 8 {
					p.Data(id, false, piece)
					sent += len(piece)
				}
				p.Must(p.Frames.WriteRSTStream(id, http2.ErrCodeCancel))
				if i%10 == 9 {
					time.Sleep(time.Second)
				}
				for _, said := range p.Heard() {
					var n int
					if strings.HasPrefix(said, "GOAWAY") {
						t.Fatal(said)
					}
					if text, ok := strings.CutPrefix(said, "WINDOW_UPDATE 0 +"); ok {
						for _, c := range text {
							n = 10*n + int(c-'0')
						}
						announced += n
					}
				}
			}
			if sent-announced > 2<<20 {
				t.Fatalf("of %d bytes only %d were announced again", sent, announced)
			}
		})
	})
}

// expectOnly says how all begins that the server has said.
func (p *peer) expectOnly(prefix string) {
	p.t.Helper()
	for _, said := range p.Heard() {
		if !strings.HasPrefix(said, prefix) {
			p.t.Fatal(said)
		}
	}
}

// Whoever waits for a body is woken by its end, however it comes.
func TestReadingEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(p *peer, w http.ResponseWriter)
		want func(error) bool
	}{
		"by the peer": {func(p *peer, _ http.ResponseWriter) { p.Data(1, true, "") }, func(err error) bool { return errors.Is(err, io.EOF) }},
		"by a reset": {func(p *peer, _ http.ResponseWriter) {
			p.Must(p.Frames.WriteRSTStream(1, http2.ErrCodeCancel))
		}, func(err error) bool { return err.Error() == "stream error: stream ID 1; CANCEL" }},
		"by the connection": {func(p *peer, _ http.ResponseWriter) { _ = p.End.Close() }, func(err error) bool { return errors.Is(err, errClosed) }},
		"by a deadline": {func(p *peer, w http.ResponseWriter) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
			time.Sleep(2 * time.Second)
		}, func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
		"by a deadline that has passed": {func(p *peer, w http.ResponseWriter) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(-time.Second))
		}, func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
		"by too few bytes": {func(p *peer, w http.ResponseWriter) { p.Headers(1, true, "x", "y") }, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				writers, ended := make(chan http.ResponseWriter, 1), make(chan error, 1)
				p := dial(t, func(w http.ResponseWriter, r *http.Request) {
					writers <- w
					_, err := io.Copy(io.Discard, r.Body)
					if err == nil {
						err = io.EOF
					}
					ended <- err
				})
				length := []string{"content-length", "100000"}
				if name == "by the peer" {
					length = nil
				}
				p.Headers(1, false, post(length...)...)
				p.Data(1, false, "abc")
				w := <-writers
				synctest.Wait()
				c.do(p, w)
				if err := <-ended; !c.want(err) {
					t.Fatalf("reading ended with %v", err)
				}
			})
		})
	}
}
