package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that speaks frame by frame, and may say what no client should.
type peer struct {
	t       *testing.T
	end     *wireEnd
	server  *server
	frames  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
	decoder *hpack.Decoder
	rest    []byte // of a frame that has not come wholly
	done    chan struct{}
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
	near, far := newWires(1<<20, toClient)
	p := &peer{t: t, end: far, server: srv, decoder: hpack.NewDecoder(4096, nil), done: make(chan struct{})}
	p.frames = http2.NewFramer(far, nil)
	p.frames.AllowIllegalWrites = true
	p.encoder = hpack.NewEncoder(&p.block)
	c := newConn(context.Background(), srv, near, handler)
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
	p.write([]byte(http2.ClientPreface))
	p.must(p.frames.WriteSettings(settings...))
	p.expect("SETTINGS", "WINDOW_UPDATE 0 +4128768", "SETTINGS ack")
	p.must(p.frames.WriteSettingsAck())
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	_, err := p.end.Write(b)
	p.must(err)
}

// post are the fields of a request.
func post(more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "https", ":authority", "example.com", ":path", "/a"}, more...)
}

func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return p.block.Bytes()
}

func (p *peer) headers(id uint32, end bool, fields ...string) {
	p.t.Helper()
	p.must(p.tryHeaders(id, end, fields...))
}

func (p *peer) tryHeaders(id uint32, end bool, fields ...string) error {
	return p.frames.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.encode(fields...), EndHeaders: true, EndStream: end,
	})
}

func (p *peer) data(id uint32, end bool, data string) {
	p.t.Helper()
	p.must(p.frames.WriteData(id, end, []byte(data)))
}

// heard is what the server has said until nothing happens any more.
func (p *peer) heard() []string {
	p.t.Helper()
	synctest.Wait()
	var said []string
	for {
		more, ended := p.end.takeAll()
		p.rest = append(p.rest, more...)
		if len(more) == 0 {
			if ended {
				said = append(said, "EOF")
			}
			return said
		}
		said = append(said, p.describeAll()...)
		synctest.Wait() // there may have been no room for all of it
	}
}

func (p *peer) describeAll() []string {
	var said []string
	for {
		in := bytes.NewReader(p.rest)
		framer := http2.NewFramer(nil, in)
		framer.AllowIllegalReads = true // each is looked at alone
		f, err := framer.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return said
		}
		p.must(err)
		p.rest = p.rest[len(p.rest)-in.Len():]
		said = append(said, p.describe(f))
	}
}

// describe is a frame in words. Date is left out, because every answer has it.
func (p *peer) describe(frame http2.Frame) string {
	h := frame.Header()
	text := fmt.Sprintf("%s %d", h.Type, h.StreamID)
	end := ""
	if h.Flags.Has(http2.FlagDataEndStream) && (h.Type == http2.FrameData || h.Type == http2.FrameHeaders) {
		end = " end"
	}
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		fragment := f.HeaderBlockFragment()
		if !f.HeadersEnded() {
			return fmt.Sprintf("%s %d bytes of a header%s", text, len(fragment), end)
		}
		fields, err := p.decoder.DecodeFull(fragment)
		p.must(err)
		return text + described(fields) + end
	case *http2.DataFrame:
		if len(f.Data()) > 40 {
			return fmt.Sprintf("%s %d bytes%s", text, len(f.Data()), end)
		}
		return fmt.Sprintf("%s %q%s", text, f.Data(), end)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return "SETTINGS ack"
		}
		return "SETTINGS"
	case *http2.PingFrame:
		if f.IsAck() {
			return fmt.Sprintf("PING ack %s", f.Data)
		}
		return "PING"
	case *http2.WindowUpdateFrame:
		return fmt.Sprintf("%s +%d", text, f.Increment)
	case *http2.RSTStreamFrame:
		return fmt.Sprintf("%s %s", text, f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Sprintf("GOAWAY %d %s", f.LastStreamID, f.ErrCode)
	}
	return text
}

func described(fields []hpack.HeaderField) string {
	var words []string
	for _, f := range fields {
		if f.Name != "date" {
			words = append(words, f.Name+"="+f.Value)
		}
	}
	if len(words) > 0 && strings.HasPrefix(words[0], ":") {
		slices.Sort(words[1:]) // a map has no order
	}
	if len(words) == 0 {
		return ""
	}
	return " " + strings.Join(words, " ")
}

// expect says what the server must have said since it was asked last.
func (p *peer) expect(want ...string) {
	p.t.Helper()
	if got := p.heard(); !slices.Equal(got, want) {
		p.t.Fatalf("the server said\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
