package h2

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing/wiretest"
)

// peer is a server that speaks frame by frame, and may say what no server should.
type peer struct {
	*wiretest.Speaker
	t    *testing.T
	near *wiretest.End
	conn *conn
	done chan struct{} // closed when the client has closed the connection
}

// bubble runs a test with a clock of its own. That it returns says that no goroutine is left.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// dial makes a connection on which nothing was said yet; the network holds some bytes in each direction.
func dial(t *testing.T, toServer int) *peer {
	t.Helper()
	far, near := wiretest.New(toServer, 64<<20)
	p := &peer{Speaker: wiretest.NewSpeaker(t, far), t: t, near: near, done: make(chan struct{})}
	config := &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}
	p.conn = newConn(near, config, func(*conn) { close(p.done) })
	go p.conn.serve()
	t.Cleanup(func() {
		_ = far.Close()
		<-p.done
	})
	return p
}

// begun is a connection over which one call was made, so that what is said at first is over.
func begun(t *testing.T, settings ...http2.Setting) *peer {
	t.Helper()
	p := dial(t, 1<<20)
	p.Must(p.Frames.WriteSettings(settings...))
	first := p.call(get())
	if !p.HeardPreface() {
		t.Fatal("the client has not said that it is one")
	}
	p.Heard()
	p.answer(1, "first")
	first.expect(200, "first")
	return p
}

func (p *peer) ended() bool {
	synctest.Wait()
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// answer answers a request with a small body.
func (p *peer) answer(id uint32, body string) {
	p.t.Helper()
	p.Headers(id, false, ":status", "200")
	p.Data(id, true, body)
}

func get() *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "https://server.example/a?b=c", nil) //nolint:noctx // one is put in where it matters
	return r
}

// post is a request with a body that is in memory.
func post(body string) *http.Request {
	r, _ := http.NewRequest(http.MethodPost, "https://server.example/a", strings.NewReader(body)) //nolint:noctx // see get
	return r
}

// upload is a request with a body of unknown length.
func upload(body io.Reader) *http.Request {
	closer, ok := body.(io.ReadCloser)
	if !ok {
		closer = io.NopCloser(body)
	}
	r, _ := http.NewRequest(http.MethodPost, "https://server.example/a", closer) //nolint:noctx // see get
	return r
}

// call is a request under way.
type call struct {
	t    *testing.T
	done chan struct{}
	res  *http.Response
	err  error
}

func (p *peer) call(req *http.Request) *call {
	c := &call{t: p.t, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		c.res, c.err = p.conn.roundTrip(req)
	}()
	return c
}

func (p *peer) callWith(ctx context.Context, req *http.Request) *call {
	return p.call(req.WithContext(ctx))
}

// over says whether the call has an answer or an error.
func (c *call) over() bool {
	synctest.Wait()
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// answered is the answer that must be there.
func (c *call) answered() *http.Response {
	c.t.Helper()
	if !c.over() {
		c.t.Fatal("the call waits")
	}
	if c.err != nil {
		c.t.Fatal(c.err)
	}
	return c.res
}

// expect says what the answer must be.
func (c *call) expect(status int, body string) {
	c.t.Helper()
	res := c.answered()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status || string(got) != body {
		c.t.Fatalf("got %d %.100q, %v; want %d %.100q", res.StatusCode, got, err, status, body)
	}
	if err := res.Body.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// failed is the error that must be there, of the call or of reading its answer.
func (c *call) failed() error {
	c.t.Helper()
	if !c.over() {
		c.t.Fatal("the call waits")
	}
	err := c.err
	if err == nil {
		_, err = io.ReadAll(c.res.Body)
		_ = c.res.Body.Close()
	}
	if err == nil {
		c.t.Fatal("the call succeeded")
	}
	return err
}
