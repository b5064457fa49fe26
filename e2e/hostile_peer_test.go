package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// security are the settings of a client that may say anything; proven: it has the administrator's certificate.
func (w *world) security(proven bool, protocols ...string) *tls.Config {
	w.t.Helper()
	ca, err := os.ReadFile(filepath.Join(w.dir, "tls/ca.pem"))
	if err != nil {
		w.t.Fatal(err)
	}
	s := &tls.Config{RootCAs: x509.NewCertPool(), NextProtos: protocols, MinVersion: tls.VersionTLS13}
	s.RootCAs.AppendCertsFromPEM(ca)
	if proven {
		pair, err := tls.LoadX509KeyPair(filepath.Join(w.dir, "tls/admin.pem"), filepath.Join(w.dir, "tls/admin-key.pem"))
		if err != nil {
			w.t.Fatal(err)
		}
		s.Certificates = []tls.Certificate{pair}
	}
	return s
}

// connect opens a connection from an address of this machine, without TLS.
func (w *world) connect(from string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	return dialer.Dial("tcp", strings.TrimPrefix(w.url, "https://"))
}

// dial opens a connection with TLS, which speaks the first of the protocols.
func (w *world) dial(from string, proven bool, protocols ...string) (*tls.Conn, error) {
	c, err := w.connect(from)
	if err != nil {
		return nil, err
	}
	security := w.security(proven, protocols...)
	security.ServerName = "127.0.0.1"
	secured := tls.Client(c, security)
	_ = c.SetDeadline(time.Now().Add(patience))
	if err := secured.Handshake(); err != nil {
		_ = c.Close()
		return nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return secured, nil
}

// peer speaks HTTP/2 frame by frame, and hears what the server says. Its methods are for one goroutine.
type peer struct {
	*tls.Conn
	t       *testing.T
	frames  *http2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder

	mu     sync.Mutex
	calls  map[uint32]*spoken
	goAway string // the code; empty: it was not sent
	ended  bool
}

// spoken is what the server has said on a stream.
type spoken struct {
	header map[string]string // and trailers
	body   []byte
	reset  string // the code
	ended  bool
}

// speak begins HTTP/2 on a connection of its own. Windows that the server needs are opened unless a setting closes them.
func (w *world) speak(from string, proven bool, settings ...http2.Setting) *peer {
	w.t.Helper()
	c, err := w.dial(from, proven, http2.NextProtoTLS)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &peer{Conn: c, t: w.t, frames: http2.NewFramer(c, c), calls: make(map[uint32]*spoken)}
	p.encoder = hpack.NewEncoder(&p.block)
	p.frames.AllowIllegalWrites = true
	p.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	w.t.Cleanup(func() { _ = c.NetConn().Close() })
	p.write([]byte(http2.ClientPreface))
	p.must(p.frames.WriteSettings(settings...))
	go p.listen()
	return p
}

func (p *peer) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	_, err := p.Write(b)
	p.must(err)
}

// encode returns a block of headers, given as names and values in turn, good until the next.
func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		p.must(p.encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return p.block.Bytes()
}

// request are the fields of a call.
func request(path string, more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "https", ":authority", "127.0.0.1", ":path", path}, more...)
}

// open begins a call. It returns why it could not, when the server has closed the connection.
func (p *peer) open(id uint32, end bool, fields ...string) error {
	return p.frames.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: p.encode(fields...), EndHeaders: true, EndStream: end,
	})
}

// send sends a body in pieces that fit into frames, and into the windows of the server if it is not larger than 256 KiB.
func (p *peer) send(id uint32, end bool, body []byte) error {
	for {
		piece := body[:min(len(body), 16<<10)]
		body = body[len(piece):]
		if err := p.frames.WriteData(id, end && len(body) == 0, piece); err != nil || len(body) == 0 {
			return err
		}
	}
}

// listen takes in what the server says until it ends the connection.
func (p *peer) listen() {
	defer func() {
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
	}()
	for {
		frame, err := p.frames.ReadFrame()
		if err != nil {
			return
		}
		p.hear(frame)
	}
}

func (p *peer) hear(frame http2.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := frame.Header().StreamID
	a := p.calls[id]
	if a == nil {
		a = &spoken{header: make(map[string]string)}
		p.calls[id] = a
	}
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		for _, field := range f.Fields {
			a.header[field.Name] = field.Value
		}
		a.ended = f.StreamEnded()
	case *http2.DataFrame:
		a.body = append(a.body, f.Data()...)
		a.ended = f.StreamEnded()
	case *http2.RSTStreamFrame:
		a.reset = f.ErrCode.String()
	case *http2.GoAwayFrame:
		p.goAway = f.ErrCode.String()
	}
}

// outcome says how a call has ended, or the connection: "" as long as neither has.
func (p *peer) outcome(id uint32) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch a := p.calls[id]; {
	case a != nil && a.ended:
		text := a.header[":status"]
		if grpc := a.header["grpc-status"]; grpc != "" {
			text += " grpc " + grpc
		}
		if code, _, ok := strings.Cut(strings.TrimPrefix(string(a.body), `{"code":"`), `"`); ok && strings.HasPrefix(string(a.body), `{"code":"`) {
			text += " " + code
		}
		return text
	case a != nil && a.reset != "":
		return "reset " + a.reset
	case p.goAway != "" && p.goAway != "NO_ERROR":
		return "goaway " + p.goAway
	case p.ended:
		return "closed"
	}
	return ""
}

// await waits until a call or its connection has ended, and says how.
func (p *peer) await(id uint32) string {
	p.t.Helper()
	await(p.t, fmt.Sprintf("the end of stream %d", id), func() bool { return p.outcome(id) != "" })
	return p.outcome(id)
}

// endFlags are those of a frame of a header: it is the last, and nothing follows on the stream.
func endFlags(headers, stream bool) http2.Flags {
	var flags http2.Flags
	if headers {
		flags |= http2.FlagHeadersEndHeaders
	}
	if stream {
		flags |= http2.FlagHeadersEndStream
	}
	return flags
}

// tlsResult is what became of a handshake.
type tlsResult struct {
	conn *tls.Conn
	err  error
}

func newEncoder(p *peer) *hpack.Encoder { return hpack.NewEncoder(&p.block) }

// metric is the value of a metric of the server; 0: it has none.
func (w *world) metric(t *testing.T, name string) float64 {
	t.Helper()
	answer, err := http.Get(w.logged("server ready", "operations") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}
