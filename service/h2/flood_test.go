package h2

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
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

// A peer that opens no window holds a worker only for so long after the handler has returned.
func TestAnswersThatNobodyTakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var failed error
		p := dial(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Streams") != "" {
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute))
				_, failed = w.Write(make([]byte, 5000))
				return
			}
			_, _ = io.WriteString(w, "hello")
		}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		p.Headers(1, true, post()...)
		p.Expect("HEADERS 1 :status=200 content-length=5 content-type=text/plain; charset=utf-8")
		p.Headers(3, true, post("streams", "1")...)
		p.Expect("HEADERS 3 :status=200 content-type=application/octet-stream")
		time.Sleep(10 * time.Second)
		p.Must(p.Frames.WritePing(true, [8]byte{}))
		time.Sleep(15 * time.Second)
		p.Must(p.Frames.WritePing(true, [8]byte{}))
		p.Heard()
		time.Sleep(6 * time.Second)
		p.Must(p.Frames.WritePing(true, [8]byte{}))
		p.Expect("RST_STREAM 1 INTERNAL_ERROR")
		time.Sleep(14 * time.Second)
		p.Must(p.Frames.WritePing(true, [8]byte{}))
		time.Sleep(14 * time.Second)
		p.Must(p.Frames.WritePing(true, [8]byte{}))
		time.Sleep(2 * time.Second)
		p.Expect("RST_STREAM 3 INTERNAL_ERROR")
		if failed == nil {
			t.Fatal("the handler was not told")
		}
	})
}
