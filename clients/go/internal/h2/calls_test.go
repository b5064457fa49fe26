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
)

// The first request takes the greeting along; the others are one write each, and thus one record and one packet.
func TestASmallRequestIsOneWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, 1<<20)
		first := p.call(post("abc"))
		if !p.HeardPreface() || p.near.Written() != 1 {
			t.Fatalf("the client began with %d writes", p.near.Written())
		}
		p.Expect("SETTINGS", "WINDOW_UPDATE 0 +1073676289",
			"HEADERS 1 :authority=server.example :method=POST :path=/a :scheme=https content-length=3", `DATA 1 "abc" end`)
		p.Must(p.Frames.WriteSettings())
		p.answer(1, "def")
		first.expect(200, "def")
		p.Expect("SETTINGS ack")
		before := p.near.Written()
		second := p.call(post(strings.Repeat("x", 10_000)))
		p.Expect("HEADERS 3 :authority=server.example :method=POST :path=/a :scheme=https content-length=10000", "DATA 3 10000 bytes end")
		if n := p.near.Written() - before; n != 1 {
			t.Errorf("the request took %d writes", n)
		}
		p.answer(3, "")
		second.expect(200, "")
	})
}

func TestHeadersOfRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		r := get()
		r.Host = "other.example"
		r.Header = http.Header{
			"User-Agent": {"test"}, "X-Many": {"1", "2"}, "Connection": {"close"}, "Transfer-Encoding": {"chunked"}, "Content-Length": {"7"},
		}
		p.call(r)
		p.Expect("HEADERS 3 :authority=other.example :method=GET :path=/a?b=c :scheme=https user-agent=test x-many=1 x-many=2 end")
		large := get()
		large.Header.Set("Large", strings.Repeat("0", 60_000)) // the code of 0 has 5 bits
		p.call(large)
		p.Expect("HEADERS 5 16384 bytes of a header end", "CONTINUATION 5", "CONTINUATION 5")
		for name, header := range map[string]http.Header{"a name": {"no name": {"x"}}, "a value": {"X": {"a\r\nb"}}} {
			bad := get()
			bad.Header = header
			if p.call(bad).failed() == nil || len(p.Heard()) > 0 {
				t.Errorf("%s went out", name)
			}
		}
	})
}

// What arrives together is handed over together: a caller that was woken finds all of a small answer.
func TestASmallAnswerComesWhole(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		c := p.call(get())
		p.Heard()
		p.Headers(3, false, ":status", "103", "link", "early")
		p.Headers(3, false, ":status", "200", "a", "1", "a", "2", "content-length", "4", "trailer", "T-One")
		p.Data(3, false, "body")
		p.Headers(3, true, "t-one", "1", "t-two", "2")
		res := c.answered()
		if res.ContentLength != 4 || strings.Join(res.Header["A"], " ") != "1 2" || res.Status != "200 OK" || res.ProtoMajor != 2 || res.Request == nil {
			t.Errorf("got %+v", res)
		}
		if one, known := res.Trailer["T-One"]; !known || one != nil {
			t.Errorf("before the end the trailers are %v", res.Trailer)
		}
		p2 := make([]byte, 100)
		if n, err := res.Body.Read(p2); n != 4 || !errors.Is(err, io.EOF) {
			t.Errorf("read %d, %v", n, err)
		}
		if res.Trailer.Get("T-One") != "1" || res.Trailer.Get("T-Two") != "2" {
			t.Errorf("the trailers are %v", res.Trailer)
		}
		p.Expect()
	})
}

func TestAnswersWithoutBodies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		head := get()
		head.Method = http.MethodHead
		c := p.call(head)
		p.Heard()
		p.Headers(3, true, ":status", "200", "content-length", "77")
		if c.expect(200, ""); c.res.ContentLength != 77 {
			t.Errorf("the length is %d", c.res.ContentLength)
		}
		c = p.call(get())
		p.Heard()
		p.Headers(5, true, ":status", "304", "content-length", "77")
		c.expect(304, "")
		c = p.call(get())
		p.Heard()
		p.Headers(7, true, ":status", "500")
		if c.expect(500, ""); c.res.ContentLength != 0 {
			t.Errorf("the length is %d", c.res.ContentLength)
		}
	})
}

// A stream goes on in both directions for as long as both want.
func TestBothWaysAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		in, out := io.Pipe()
		c := p.call(upload(in))
		p.Expect("HEADERS 3 :authority=server.example :method=POST :path=/a :scheme=https")
		p.Headers(3, false, ":status", "200")
		res := c.answered()
		for _, word := range []string{"one", "two"} {
			if _, err := io.WriteString(out, word); err != nil {
				t.Fatal(err)
			}
			p.Expect(`DATA 3 "` + word + `"`)
			p.Data(3, false, "re: "+word)
			got := make([]byte, len(word)+4)
			if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != "re: "+word {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		_ = out.Close()
		p.Expect(`DATA 3 "" end`)
		p.Headers(3, true, "grpc-status", "0")
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 || res.Trailer.Get("Grpc-Status") != "0" {
			t.Fatalf("got %q, %v, %v", rest, err, res.Trailer)
		}
	})
}

func TestACallThatIsCanceled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		ctx, cancel := context.WithCancel(t.Context())
		waiting, reading := p.callWith(ctx, get()), p.callWith(ctx, get())
		in, _ := io.Pipe()
		sending := p.callWith(ctx, upload(in))
		synctest.Wait()
		p.Heard()
		for id := uint32(3); id <= 7; id += 2 { // which call has which stream is chance
			if p.conn.streams[id].request.Context() != ctx {
				t.Fatal("not this one")
			}
		}
		p.Headers(5, false, ":status", "200")
		p.Data(5, false, "some")
		synctest.Wait()
		cancel()
		for _, c := range []*call{waiting, reading, sending} {
			if err := c.failed(); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
		if got := strings.Join(p.Heard(), ", "); strings.Count(got, "RST_STREAM") != 3 || strings.Count(got, "CANCEL") != 3 {
			t.Errorf("the client said %s", got)
		}
		p.Data(5, true, "late") // was on its way
		last := p.call(get())
		p.Heard()
		p.answer(9, "fine")
		last.expect(200, "fine")
		if err := p.callWith(ctx, get()).failed(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		p.Expect()
	})
}

// Who closes an answer early gets no more of it, and the room that it took is free again.
func TestAnAnswerThatIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		c := p.call(get())
		p.Heard()
		p.Headers(3, false, ":status", "200")
		p.Data(3, false, strings.Repeat("x", 10_000))
		res := c.answered()
		_ = res.Body.Close()
		p.Expect("RST_STREAM 3 CANCEL")
		if _, err := res.Body.Read(make([]byte, 1)); err == nil {
			t.Error("a closed answer was read")
		}
		_ = res.Body.Close()
		p.Expect()
		p.Data(3, true, "late")
		p.Expect()
		if n := p.conn.inflow.Give(1<<30) - 1<<30; n != len("first")+10_000+len("late") {
			t.Errorf("%d bytes came back", n)
		}
	})
}

// A server that answers without reading all of a request gets no more of it.
func TestAnAnswerBeforeTheRequestsEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		in, out := io.Pipe()
		c := p.call(upload(in))
		p.Heard()
		p.Headers(3, true, ":status", "413")
		c.expect(413, "")
		p.Expect("RST_STREAM 3 NO_ERROR")
		if _, err := io.WriteString(out, "x"); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the body is not closed: %v", err)
		}
		synctest.Wait()
		if p.conn.pumps != 0 {
			t.Error("somebody still sends")
		}
	})
}

func TestWindowsOfRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		c := p.call(post("0123456789abcdef"))
		p.Expect("HEADERS 3 :authority=server.example :method=POST :path=/a :scheme=https content-length=16", `DATA 3 "0123456789"`)
		p.Must(p.Frames.WriteWindowUpdate(3, 2))
		p.Expect(`DATA 3 "ab"`)
		p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 12}))
		p.Expect("SETTINGS ack", `DATA 3 "cd"`)
		p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 11}))
		p.Must(p.Frames.WriteWindowUpdate(3, 1)) // which only makes up for it
		p.Expect("SETTINGS ack")
		p.Must(p.Frames.WriteWindowUpdate(3, 9))
		p.Expect(`DATA 3 "ef" end`)
		p.answer(3, "all")
		c.expect(200, "all")
	})
}

// The window of the connection is for all of its requests.
func TestTheWindowOfTheConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		large := bytes.Repeat([]byte("x"), 70_000)
		first, second := p.call(upload(bytes.NewReader(large))), p.call(post("small"))
		sent := p.Heard()
		p.Must(p.Frames.WriteWindowUpdate(0, 100_000))
		sent = append(sent, p.Heard()...)
		if n := strings.Count(strings.Join(sent, "\n"), " end"); n != 2 {
			t.Fatalf("sent %q", sent)
		}
		p.answer(3, "")
		p.answer(5, "")
		first.expect(200, "")
		second.expect(200, "")
	})
}

// What was read of an answer is announced again in large pieces.
func TestWindowsOfAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		c := p.call(get())
		p.Heard()
		p.Headers(3, false, ":status", "200")
		piece := strings.Repeat("x", 16<<10)
		for range streamWindow / len(piece) {
			p.Data(3, false, piece)
		}
		res := c.answered()
		p.Expect()
		if _, err := io.ReadFull(res.Body, make([]byte, streamWindow/2)); err != nil {
			t.Fatal(err)
		}
		if got := p.Heard(); len(got) == 0 || len(got) > 2 {
			t.Errorf("half was read; the client said %q", got)
		}
		p.Data(3, true, "end")
		if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != streamWindow/2+3 {
			t.Errorf("got %d bytes, %v", len(rest), err)
		}
	})
}

func TestBodiesOfAnotherLengthThanDeclared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := begun(t)
		for _, n := range []int64{2, 4, 40_000} {
			small := post("abc")
			small.ContentLength = n
			large := upload(strings.NewReader("abc"))
			large.ContentLength = n
			for _, r := range []*http.Request{small, large} {
				if err := p.call(r).failed(); !errors.Is(err, errLength) {
					t.Errorf("%d: got %v", n, err)
				}
			}
			for _, said := range p.Heard() {
				if strings.HasSuffix(said, "end") {
					t.Errorf("%d: a request went out: %s", n, said)
				}
			}
		}
		broken := errors.New("the disk is gone")
		if err := p.call(upload(&failingReader{broken})).failed(); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		if p.ended() {
			t.Error("the connection has ended")
		}
	})
}

type failingReader struct{ err error }

func (r *failingReader) Read([]byte) (int, error) { return 0, r.err }

// A request must not hang on a network that takes nothing any more while its caller wants to go.
func TestACallerIsNotHeldByAFullNetwork(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := dial(t, 1000)
		p.Must(p.Frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
		synctest.Wait()
		p.call(upload(bytes.NewReader(make([]byte, 50_000))))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		second := p.callWith(ctx, post("abc"))
		time.Sleep(2 * time.Second)
		if err := second.failed(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
