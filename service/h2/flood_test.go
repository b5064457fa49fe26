package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing"
)

// calm is how a flood ends.
const calm = "ENHANCE_YOUR_CALM"

// keepWriting writes until the server takes no more.
func (p *peer) keepWriting(times int, write func(i int) error) {
	p.t.Helper()
	for i := range times {
		if err := write(i); err != nil {
			return
		}
		if i%500 == 499 { // so that the server has read it and the answers do not pile up
			if said := p.Heard(); len(said) > 0 && said[len(said)-1] == "EOF" {
				p.expectCalm(said)
				return
			}
		}
	}
	p.expectCalm(p.Heard())
}

func (p *peer) expectCalm(said []string) {
	p.t.Helper()
	n := len(said)
	if n < 2 || said[n-1] != "EOF" || !strings.HasSuffix(said[n-2], calm) {
		p.t.Fatalf("the flood was not stopped: %d frames, the last: %v", n, said[max(0, n-2):])
	}
}

func TestFloodsAreStopped(t *testing.T) {
	t.Parallel()
	hold := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	floods := []struct {
		name  string
		times int
		do    func(p *peer) func(i int) error
	}{
		{"pings", 30_000, func(p *peer) func(int) error {
			return func(int) error { return p.Frames.WritePing(false, [8]byte{}) }
		}},
		{"settings", 30_000, func(p *peer) func(int) error {
			return func(int) error { return p.Frames.WriteSettings() }
		}},
		{"empty data", 30_000, func(p *peer) func(int) error {
			p.Headers(1, false, post()...)
			return func(int) error { return p.Frames.WriteData(1, false, nil) }
		}},
		{"priorities", 30_000, func(p *peer) func(int) error {
			return func(int) error { return p.Frames.WritePriority(3, http2.PriorityParam{}) }
		}},
		{"unknown frames", 30_000, func(p *peer) func(int) error {
			return func(int) error { return p.Frames.WriteRawFrame(0x99, 0, 0, nil) }
		}},
		{"data for ended streams", 30_000, func(p *peer) func(int) error {
			p.Headers(1, true, post()...)
			p.Must(p.Frames.WriteRSTStream(1, http2.ErrCodeCancel))
			return func(int) error { return p.Frames.WriteData(1, false, []byte("x")) }
		}},
		{"streams that are reset at once", 1000, func(p *peer) func(int) error {
			return func(i int) error {
				if err := p.TryHeaders(uint32(2*i+1), true, post()...); err != nil {
					return err
				}
				return p.Frames.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
			}
		}},
		{"streams that the server has to reset", 1000, func(p *peer) func(int) error {
			return func(i int) error {
				if err := p.TryHeaders(uint32(2*i+1), false, post()...); err != nil {
					return err
				}
				return p.Frames.WriteWindowUpdate(uint32(2*i+1), 1<<31-1)
			}
		}},
		{"malformed requests", 1000, func(p *peer) func(int) error {
			return func(i int) error { return p.TryHeaders(uint32(2*i+1), true, "A", "b") }
		}},
		{"more streams than are allowed", 1000, func(p *peer) func(int) error {
			return func(i int) error { return p.TryHeaders(uint32(2*i+1), true, post()...) }
		}},
		{"requests after the last one", 30_000, func(p *peer) func(int) error {
			p.Headers(1, true, post()...)
			p.Heard()
			p.server.shutdown()
			p.Must(p.Frames.WritePing(true, departurePing))
			p.Heard()
			return func(i int) error { return p.TryHeaders(uint32(2*i+3), true, post()...) }
		}},
		{"a header without end", 200_000, func(p *peer) func(int) error {
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.Encode(post()...)}))
			return func(int) error { return p.Frames.WriteContinuation(1, false, nil) }
		}},
		{"windows of one byte", 30_000, func(p *peer) func(int) error {
			p.Headers(1, true, post("large", "1")...)
			p.Heard()
			return func(int) error { p.Heard(); return p.Frames.WriteWindowUpdate(1, 1) }
		}},
	}
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := dial(t, func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Large") == "" {
						hold(w, r)
						return
					}
					_, _ = w.Write(make([]byte, 200_000))
				})
				if f.name == "windows of one byte" {
					write := f.do(p)
					for i := range f.times {
						p.Must(write(i))
					}
					if said := p.Heard(); !slices.Contains(said, "RST_STREAM 1 "+calm) && len(said) > 0 {
						t.Fatalf("the server still says %v", said[len(said)-1])
					}
					return
				}
				p.keepWriting(f.times, f.do(p))
			})
		})
	}
}

// What happens often but slowly is no flood.
func TestCancelingNowAndThenIsNoFlood(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		id := uint32(1)
		for range 50 {
			for range 90 {
				p.Headers(id, true, post()...)
				p.Must(p.Frames.WriteRSTStream(id, http2.ErrCodeCancel))
				id += 2
			}
			p.Expect()
			time.Sleep(9 * time.Second)
		}
	})
}

// A peer that makes the server answer and does not read the answers costs a bounded amount, and then its connection.
func TestAnswersThatNobodyReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, testServer(nil), echoes, 1000)
		p.Say([]byte(http2.ClientPreface))
		p.Must(p.Frames.WriteSettings())
		for range 2*framing.ControlBacklog + 1000 { // some are being written
			p.Must(p.Frames.WritePing(false, [8]byte{}))
		}
		time.Sleep(5 * time.Second) // less than any other limit
		select {
		case <-p.done:
		default:
			t.Fatal("the connection goes on")
		}
	})
}

// A header that is too large is answered; one that grows when it is decoded is not even decoded.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	tooLarge := "HEADERS 1 :status=431 content-length=24 content-type=text/plain; charset=utf-8 x-content-type-options=nosniff"
	t.Run("too large", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, echoes)
			fragment := slices.Clone(p.Encode(post("large", strings.Repeat("\x7f", 50<<10), "other", strings.Repeat("b", 20<<10))...))
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fragment[:30<<10], EndStream: true}))
			p.Must(p.Frames.WriteContinuation(1, true, fragment[30<<10:]))
			got := p.Heard()
			if len(got) == 0 || got[0] != tooLarge && !strings.HasPrefix(got[0], "RST_STREAM") {
				t.Fatalf("got %q", got)
			}
		})
	})
	t.Run("many fields of few bytes", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			p := dial(t, echoes)
			bomb := p.Encode(":method", "GET", ":scheme", "https", ":path", "/", "bomb", strings.Repeat("x", 4000))
			bomb = append(bomb, bytes.Repeat([]byte{0x80 | 62}, 30_000)...) // 4 KB each
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: bomb, EndStream: true, EndHeaders: true}))
			got := p.Heard()
			if len(got) != 2 || got[0] != tooLarge {
				t.Fatalf("got %q", got)
			}
			p.Headers(3, true, post()...) // both sides still agree about what is in their tables
			p.Expect("HEADERS 3 :status=200 content-length=0 content-type=text/plain end")
		})
	})
}

// A peer that opens no window holds a worker only for so long, whether its handler has returned
// or still writes.
func TestAnswersThatNobodyTakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told atomic.Int32
		p := dial(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Deadline") != "" {
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(20 * time.Second))
			}
			if r.Header.Get("Large") != "" {
				if _, err := w.Write(make([]byte, 5000)); err != nil {
					told.Add(1)
				}
				return
			}
			_, _ = io.WriteString(w, "hello")
		}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.Headers(1, true, post()...)
		p.Expect("HEADERS 1 :status=200 content-length=5 content-type=text/plain; charset=utf-8")
		p.wait(time.Second)
		p.Headers(3, true, post("large", "1")...)
		p.Expect("HEADERS 3 :status=200 content-type=application/octet-stream")
		p.Headers(5, true, post("large", "1", "deadline", "1")...)
		p.Expect("HEADERS 5 :status=200 content-type=application/octet-stream")
		p.wait(18 * time.Second)
		p.Expect()
		p.wait(2 * time.Second)
		p.Expect("RST_STREAM 5 INTERNAL_ERROR")
		p.wait(8 * time.Second)
		p.Expect()
		p.wait(time.Second)
		p.Expect("RST_STREAM 1 INTERNAL_ERROR")
		p.wait(time.Second)
		p.Expect("RST_STREAM 3 INTERNAL_ERROR")
		if told.Load() != 2 {
			t.Fatal("the handlers were not told")
		}
	})
}

// The same where the window of the connection is what the peer does not open.
func TestConnectionsThatTakeNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) },
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		p.Headers(1, true, post()...)
		p.Headers(3, true, post()...)
		p.Heard()
		p.wait(31 * time.Second)
		said := p.Heard()
		slices.Sort(said)
		if !slices.Equal(said, []string{"RST_STREAM 1 INTERNAL_ERROR", "RST_STREAM 3 INTERNAL_ERROR"}) {
			t.Fatalf("the server said %q", said)
		}
	})
}

// A handler that writes now and then is not cut off for having waited for a window once.
func TestAnswersThatWereWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = io.WriteString(w, "hello")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Hour)
			}
		}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.Headers(1, true, post()...)
		p.Expect("HEADERS 1 :status=200 content-type=text/plain; charset=utf-8")
		for range 3 {
			p.wait(20 * time.Second)
			p.Must(p.Frames.WriteWindowUpdate(1, 5))
			p.Expect(`DATA 1 "hello"`)
			p.wait(time.Hour)
		}
		p.Expect(`DATA 1 "" end`)
	})
}

// wait lets time pass on a connection whose peer shows that it lives.
func (p *peer) wait(d time.Duration) {
	p.t.Helper()
	for ; d > 0; d -= 7 * time.Second {
		time.Sleep(min(d, 7*time.Second))
		p.Must(p.Frames.WritePing(true, [8]byte{}))
	}
}

// Bytes that come one by one, in a header or in any other frame, keep a connection only for so long, though it is never silent.
func TestFramesThatNeverEnd(t *testing.T) {
	for name, begin := range map[string]func(p *peer){
		"a header":                func(p *peer) { p.Say([]byte{0, 1, 0, byte(http2.FrameHeaders), 4, 0, 0, 0, 3}) },
		"a header in many frames": func(p *peer) { p.Say([]byte{0, 0, 1, byte(http2.FrameHeaders), 0, 0, 0, 0, 3, 0x82}) },
		"data": func(p *peer) {
			p.Headers(1, false, post()...)
			p.Say([]byte{0, 1, 0, byte(http2.FrameData), 0, 0, 0, 0, 1})
		},
		"half the head of a frame": func(p *peer) { p.Say([]byte{0}) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := dial(t, echoes)
				p.wait(time.Minute)
				p.Heard()
				begin(p)
				start := time.Now()
				for i := 0; ; i++ {
					if name == "a header in many frames" && p.Frames.WriteContinuation(3, false, nil) != nil {
						break
					}
					if name != "a header in many frames" {
						if i == 8 && name == "half the head of a frame" {
							t.Fatal("the test has sent a whole frame")
						}
						if _, err := p.Write([]byte{0}); err != nil {
							break
						}
					}
					time.Sleep(3 * time.Second)
				}
				if d := time.Since(start); d > 20*time.Second || d < 9*time.Second {
					t.Fatalf("the connection ended after %v, want about 10s", d)
				}
			})
		})
	}
}

// Large frames that come in pieces, each in good time, are no reason to end anything.
func TestFramesInPieces(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "done")
		})
		p.Headers(1, false, post()...)
		for range 20 {
			p.Say([]byte{0, 0, 90, byte(http2.FrameData), 0, 0, 0, 0, 1})
			for range 9 {
				p.Say(make([]byte, 10))
				time.Sleep(time.Second)
			}
		}
		p.Data(1, true, "")
		said := p.Heard()
		if n := len(said); n == 0 || said[n-1] != `DATA 1 "done" end` {
			t.Fatalf("the server said %q", said)
		}
	})
}

// A request whose small body does not come is not kept waiting for ever: its handler starts and is told.
func TestBodiesThatDoNotCome(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, func(w http.ResponseWriter, r *http.Request) {
			got, err := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "text/plain")
			_, _ = fmt.Fprintf(w, "%s, late: %v", got, errors.Is(err, os.ErrDeadlineExceeded))
		})
		for id := uint32(1); id < 20; id += 2 {
			p.Headers(id, false, post("content-length", "5")...)
			p.Data(id, false, "ab")
			p.wait(time.Second / 2)
		}
		p.Expect()
		p.wait(4 * time.Second)
		p.Expect()
		p.wait(6 * time.Second)
		said := strings.Join(p.Heard(), "\n")
		if n := strings.Count(said, `"ab, late: true"`); n != 10 {
			t.Fatalf("%d handlers were told:\n%s", n, said)
		}
	})
}

// Who has shown no client certificate may open fewer streams, send less ahead and be idle for less time.
func TestStrangers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		srv := newServer(testServer(nil))
		srv.limits = srv.limits.lowered(Strangers{Streams: 2, Window: 1, Idle: 20 * time.Second})
		p := connectTo(t, srv, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 1<<20)
		p.Say([]byte(http2.ClientPreface))
		p.Must(p.Frames.WriteSettings())
		p.Expect("SETTINGS", "SETTINGS ack")
		for id := uint32(1); id < 7; id += 2 {
			p.Headers(id, false, post()...)
		}
		p.Expect("RST_STREAM 5 REFUSED_STREAM")
		p.Must(p.Frames.WriteRSTStream(1, http2.ErrCodeCancel))
		p.Must(p.Frames.WriteRSTStream(3, http2.ErrCodeCancel))
		p.Expect()
		p.Headers(7, false, post()...)
		for range 4 {
			p.Must(p.Frames.WriteData(7, false, make([]byte, 16000)))
		}
		p.Expect()
		p.Must(p.Frames.WriteRSTStream(7, http2.ErrCodeCancel))
		p.wait(14 * time.Second)
		time.Sleep(7 * time.Second)
		said := p.Heard()
		if n := len(said); n < 2 || said[n-1] != "EOF" || said[n-2] != "GOAWAY 7 NO_ERROR" {
			t.Fatalf("the idle stranger was told %q", said)
		}
	})
	l := limitsOf(testServer(nil))
	if l.lowered(Strangers{}) != l || l.lowered(Strangers{Streams: 1000, Window: 1 << 30, Idle: time.Hour}) != l {
		t.Error("the limits were raised, or lowered without a reason")
	}
}
