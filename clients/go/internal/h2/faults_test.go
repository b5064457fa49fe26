package h2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What no server may say ends the connection, with the reason, and nobody waits for ever.
func TestServersThatBreakTheRules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		say  func(p *peer)
		want string
	}{
		"data of a request that was not made": {func(p *peer) { p.Data(9, false, "x") }, "PROTOCOL_ERROR"},
		"a header of one":                     {func(p *peer) { p.Headers(9, true, ":status", "200") }, "PROTOCOL_ERROR"},
		"a header of its own":                 {func(p *peer) { p.Headers(2, true, ":status", "200") }, "PROTOCOL_ERROR"},
		"a reset of one":                      {func(p *peer) { p.Must(p.Frames.WriteRSTStream(9, 0)) }, "PROTOCOL_ERROR"},
		"a window of one":                     {func(p *peer) { p.Must(p.Frames.WriteWindowUpdate(9, 1)) }, "PROTOCOL_ERROR"},
		"a window of nothing":                 {func(p *peer) { p.Must(p.Frames.WriteWindowUpdate(0, 0)) }, "PROTOCOL_ERROR"},
		"a window beyond all":                 {func(p *peer) { p.Must(p.Frames.WriteWindowUpdate(0, 1<<31-1)) }, "FLOW_CONTROL_ERROR"},
		"an initial window beyond all": {func(p *peer) {
			p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}))
		}, "FLOW_CONTROL_ERROR"},
		"a frame size that does not exist": {func(p *peer) {
			p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}))
		}, "PROTOCOL_ERROR"},
		"a push": {func(p *peer) {
			p.Must(p.Frames.WritePushPromise(http2.PushPromiseParam{StreamID: 3, PromiseID: 2, BlockFragment: p.Encode(":method", "GET"), EndHeaders: true}))
		}, "PROTOCOL_ERROR"},
		"a frame that is too large": {func(p *peer) { p.Must(p.Frames.WriteData(3, false, make([]byte, 16385))) }, "FRAME_SIZE_ERROR"},
		"a header that nobody can read": {func(p *peer) {
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, "COMPRESSION_ERROR"},
		"a header without end": {func(p *peer) {
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: p.Encode(":status", "200")}))
			for range 300 {
				if p.Frames.WriteContinuation(3, false, make([]byte, 16<<10)) != nil {
					return
				}
			}
		}, ""}, // whichever limit it meets first
		"no frames at all": {func(p *peer) { p.Say([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, "FRAME_SIZE_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := begun(t)
				waiting := p.call(get())
				p.Heard()
				c.say(p)
				if said := strings.Join(p.Heard(), ", "); !strings.Contains(said, "GOAWAY 0 "+c.want) || !strings.HasSuffix(said, "EOF") {
					t.Errorf("the client said %s", said)
				}
				if err := waiting.failed(); errors.As(err, new(*unsentError)) {
					t.Errorf("the request would be made again after %v", err)
				}
				if !p.ended() {
					t.Error("the connection goes on")
				}
			})
		})
	}
}

// What is wrong with one answer ends that one only.
func TestAnswersThatBreakTheRules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		say  func(p *peer)
		want string
	}{
		"no status":                            {func(p *peer) { p.Headers(3, true, "a", "b") }, "PROTOCOL_ERROR"},
		"a status in words":                    {func(p *peer) { p.Headers(3, true, ":status", "fine") }, "PROTOCOL_ERROR"},
		"a status of a million":                {func(p *peer) { p.Headers(3, true, ":status", "1000000") }, "PROTOCOL_ERROR"},
		"an end before it began":               {func(p *peer) { p.Headers(3, true, ":status", "100") }, "PROTOCOL_ERROR"},
		"a path":                               {func(p *peer) { p.Headers(3, true, ":status", "200", ":path", "/") }, "PROTOCOL_ERROR"},
		"upper case":                           {func(p *peer) { p.Headers(3, true, ":status", "200", "A", "b") }, "PROTOCOL_ERROR"},
		"data before a header":                 {func(p *peer) { p.Data(3, false, "x") }, "PROTOCOL_ERROR"},
		"more than declared":                   {func(p *peer) { p.Headers(3, false, ":status", "200", "content-length", "1"); p.Data(3, true, "xy") }, "PROTOCOL_ERROR"},
		"less than declared":                   {func(p *peer) { p.Headers(3, false, ":status", "200", "content-length", "3"); p.Data(3, true, "xy") }, "PROTOCOL_ERROR"},
		"a body of a 304":                      {func(p *peer) { p.Headers(3, false, ":status", "304"); p.Data(3, true, "xy") }, "PROTOCOL_ERROR"},
		"two headers":                          {func(p *peer) { p.Headers(3, false, ":status", "200"); p.Headers(3, false, ":status", "200") }, "PROTOCOL_ERROR"},
		"a trailer of a kind that must not be": {func(p *peer) { p.Headers(3, false, ":status", "200"); p.Headers(3, true, "content-length", "5") }, "PROTOCOL_ERROR"},
		"a window beyond all":                  {func(p *peer) { p.Must(p.Frames.WriteWindowUpdate(3, 1<<31-1)) }, "FLOW_CONTROL_ERROR"},
		"a header that is too large": {func(p *peer) {
			fragment := p.Encode(":status", "200", "large", strings.Repeat("~", 1<<20)) // the code of ~ has 13 bits, so it goes as it is
			p.Must(p.Frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: fragment[:16<<10]}))
			for fragment = fragment[16<<10:]; len(fragment) > 16<<10; fragment = fragment[16<<10:] {
				p.Must(p.Frames.WriteContinuation(3, false, fragment[:16<<10]))
			}
			p.Must(p.Frames.WriteContinuation(3, true, fragment))
		}, "CANCEL"},
		"more than there is room for": {func(p *peer) {
			p.Headers(3, false, ":status", "200")
			for range streamWindow/(16<<10) + 1 {
				p.Must(p.Frames.WriteData(3, false, make([]byte, 16<<10)))
			}
		}, "PROTOCOL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := begun(t)
				wrong := p.call(get())
				p.Heard()
				c.say(p)
				_ = wrong.failed()
				p.Expect("RST_STREAM 3 " + c.want)
				right := p.call(get())
				p.Heard()
				p.answer(5, "fine")
				right.expect(200, "fine")
			})
		})
	}
}

// The words of the error are those by which connect knows what the other end has said.
func TestARequestThatTheServerResets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		in, out := io.Pipe()
		c := p.call(upload(in))
		p.Heard()
		p.Must(p.Frames.WriteRSTStream(3, http2.ErrCodeRefusedStream))
		if err := c.failed(); err.Error() != "stream error: stream ID 3; REFUSED_STREAM; received from peer" {
			t.Errorf("got %v", err)
		}
		if _, err := out.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the body is not closed: %v", err)
		}
		c = p.call(get())
		p.Heard()
		p.Headers(5, false, ":status", "200")
		p.Data(5, false, "some")
		res := c.answered()
		p.Must(p.Frames.WriteRSTStream(5, http2.ErrCodeInternal))
		synctest.Wait()
		got, err := io.ReadAll(res.Body)
		if string(got) != "some" || err == nil || !strings.Contains(err.Error(), "INTERNAL_ERROR") {
			t.Errorf("got %q, %v", got, err)
		}
		p.Expect()
	})
}

// A server that leaves gets no more requests; those that it has not begun may go elsewhere, the others end as usual.
func TestAServerThatLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		kept := p.call(get())
		p.Heard()
		lost := p.call(post("abc"))
		p.Heard()
		p.Must(p.Frames.WriteGoAway(3, http2.ErrCodeNo, nil))
		var unsent *unsentError
		if err := lost.failed(); !errors.As(err, &unsent) || !unsent.bodyUsed {
			t.Errorf("got %v", err)
		}
		untouched := upload(&failingReader{errors.New("read though it must not be")})
		if err := p.call(untouched).failed(); !errors.As(err, &unsent) || unsent.bodyUsed {
			t.Errorf("got %v", err)
		}
		p.Expect()
		p.answer(3, "kept")
		kept.expect(200, "kept")
		p.Expect("EOF")
		if !p.ended() {
			t.Error("the connection goes on without requests")
		}
	})
}

// A server that refuses everything must not be asked again and again at once.
func TestAServerOfNoUse(t *testing.T) {
	t.Parallel()
	for name, say := range map[string]func(p *peer){
		"leaves at once": func(p *peer) { p.Must(p.Frames.WriteGoAway(0, http2.ErrCodeNo, nil)) },
		"closes at once": func(p *peer) { p.Must(p.Close()) },
		"takes no requests": func(p *peer) {
			p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := dial(t, 1<<20)
				if name != "takes no requests" {
					p.Must(p.Frames.WriteSettings())
				}
				say(p)
				synctest.Wait()
				var unsent *unsentError
				if err := p.call(post("abc")).failed(); errors.As(err, &unsent) && !unsent.useless {
					t.Errorf("the connection is taken for a good one after %v", err)
				}
			})
		})
	}
}

// One connection has as many requests as the server takes; then it takes no more, and ends with the last of them.
func TestAConnectionThatIsFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
		one, two := p.call(get()), p.call(get())
		p.Heard()
		if err := p.call(get()).failed(); !errors.As(err, new(*unsentError)) {
			t.Errorf("got %v", err)
		}
		p.answer(3, "a")
		p.answer(5, "a")
		one.expect(200, "a")
		two.expect(200, "a")
		if !p.ended() {
			t.Error("the connection goes on")
		}
	})
}

// What the server said before it went is the reason, though writing fails first.
func TestTheLastWordsOfAServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		waiting := p.call(get())
		p.Heard()
		p.conn.mu.Lock()
		p.conn.unwritable(io.ErrClosedPipe)
		p.conn.mu.Unlock()
		p.answer(3, "last words")
		waiting.expect(200, "last words")
		if !p.ended() {
			time.Sleep(2 * lastWords)
		}
		if !p.ended() {
			t.Error("the connection goes on")
		}
		if err := p.call(get()).failed(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAServerThatIsSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		waiting := p.call(get())
		p.Heard()
		for range 10 { // as long as it answers, it may take its time
			time.Sleep(20 * time.Second)
			p.Expect("PING")
			p.Must(p.Frames.WritePing(true, [8]byte{}))
		}
		time.Sleep(24 * time.Second)
		if waiting.over() {
			t.Fatal("given up too early")
		}
		time.Sleep(2 * time.Second)
		if err := waiting.failed(); !errors.Is(err, errSilent) {
			t.Errorf("got %v", err)
		}
		if !p.ended() {
			t.Error("the connection goes on")
		}
	})
}

// A network that takes nothing any more does not hold the watch.
func TestANetworkThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, 1000)
		p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
		synctest.Wait()
		c := p.call(upload(bytes.NewReader(make([]byte, 50_000))))
		time.Sleep(26 * time.Second)
		if err := c.failed(); !errors.Is(err, errSilent) {
			t.Errorf("got %v", err)
		}
		if !p.ended() {
			t.Error("the connection goes on")
		}
	})
}

func TestAServerThatAsks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		p.Must(p.Frames.WritePing(false, [8]byte{1: 'x'}))
		p.Expect("PING ack \x00x\x00\x00\x00\x00\x00\x00")
		p.Must(p.Frames.WriteRawFrame(77, 0, 0, []byte("what nobody knows")))
		p.Expect()
		p.conn.retire()
		p.Expect("EOF")
	})
}

// Whatever a server says, the client neither panics nor hangs, and nothing of the connection is left.
func FuzzServer(f *testing.F) {
	var block bytes.Buffer
	frames := http2.NewFramer(&block, nil)
	var header bytes.Buffer
	encoder := hpack.NewEncoder(&header)
	for _, field := range []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-length", Value: "8"}} {
		if err := encoder.WriteField(field); err != nil {
			f.Fatal(err)
		}
	}
	for _, write := range []func() error{
		func() error { return frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}) },
		func() error {
			return frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header.Bytes(), EndHeaders: true})
		},
		func() error { return frames.WriteData(1, false, []byte("some")) },
		func() error { return frames.WriteDataPadded(1, true, []byte("more"), make([]byte, 9)) },
		func() error { return frames.WriteWindowUpdate(3, 100) },
		func() error { return frames.WriteRSTStream(3, http2.ErrCodeRefusedStream) },
		func() error { return frames.WritePing(false, [8]byte{}) },
		func() error { return frames.WriteGoAway(5, http2.ErrCodeNo, nil) },
	} {
		if err := write(); err != nil {
			f.Fatal(err)
		}
		f.Add(append([]byte(nil), block.Bytes()...))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		synctest.Test(t, func(t *testing.T) {
			p := dial(t, 1<<20)
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			var calls []*call
			for _, r := range []*http.Request{post("abc"), upload(strings.NewReader(strings.Repeat("x", 100_000))), get()} {
				calls = append(calls, p.callWith(ctx, r))
				synctest.Wait() // so that each has the same stream every time
			}
			_, _ = p.Write(said)
			for _, c := range calls {
				<-c.done
				if c.err == nil {
					_, _ = io.Copy(io.Discard, c.res.Body)
					_ = c.res.Body.Close()
				}
			}
			_ = p.Close()
			<-p.done
			synctest.Wait()
			p.conn.mu.Lock()
			defer p.conn.mu.Unlock()
			if len(p.conn.streams) != 0 || p.conn.pumps != 0 || !p.conn.out.Empty() {
				t.Fatalf("left over: %d streams, %d uploads", len(p.conn.streams), p.conn.pumps)
			}
		})
	})
}
