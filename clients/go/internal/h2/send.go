package h2

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"

	"golang.org/x/net/http/httpguts"

	"github.com/hodei-jobs/hodei/proto/framing"
)

// putHeader puts the header of a request into what is to be sent. c.mu is held.
func (c *conn) putHeader(req *http.Request, id uint32, end bool) {
	method, host := req.Method, req.Host
	if method == "" {
		method = http.MethodGet
	}
	if host == "" {
		host = req.URL.Host
	}
	c.out.Field(":authority", host)
	c.out.Field(":method", method)
	c.out.Field(":path", req.URL.RequestURI())
	c.out.Field(":scheme", "https")
	c.putFields(req.Header)
	if n, known := length(req); known {
		c.out.Field("content-length", strconv.FormatInt(n, 10))
	}
	c.out.EndHeader(id, end)
}

// length is how long the body of a request is, if that is to be sent.
func length(req *http.Request) (n int64, known bool) {
	if hasBody(req) {
		return req.ContentLength, req.ContentLength > 0
	}
	return 0, req.Method == http.MethodPost || req.Method == http.MethodPut || req.Method == http.MethodPatch
}

// putFields leaves out what only HTTP/1 has, and the length, which the request itself tells. c.mu is held.
func (c *conn) putFields(header http.Header) {
	for name, values := range header {
		switch name {
		case "Connection", "Proxy-Connection", "Transfer-Encoding", "Upgrade", "Keep-Alive", "Host", "Content-Length":
			continue
		}
		lower := c.lower.Of(name)
		for _, v := range values {
			c.out.Field(lower, v)
		}
	}
}

// pump sends the body of a request while it comes.
func (st *stream) pump(from io.ReadCloser) {
	defer from.Close() //nolint:errcheck // it was only read
	buffer := framing.GetBuffer(framing.FrameSize)
	defer framing.PutBuffer(buffer)
	body := from.Read
	if st.request.ContentLength > 0 {
		body = (&declared{from: from, left: st.request.ContentLength}).Read
	}
	var err error
	for err == nil {
		var n int
		n, err = body((*buffer)[:framing.FrameSize])
		err = st.sendOn((*buffer)[:n], err)
	}
	st.conn.mu.Lock()
	st.conn.pumps--
	st.conn.mu.Unlock()
}

// declared is a body of a declared length. Its end comes with its last byte, so that the last frame need not wait for it.
type declared struct {
	from io.Reader
	left int64
}

func (d *declared) Read(p []byte) (int, error) {
	n, err := d.from.Read(p)
	d.left -= int64(n)
	if d.left == 0 && err == nil {
		var more int
		more, err = d.from.Read(make([]byte, 1))
		d.left -= int64(more)
	}
	if d.left < 0 || d.left > 0 && errors.Is(err, io.EOF) {
		return n, errLength
	}
	return n, err
}

// sendOn sends what was read of the body, and with an error the end of it. It returns why nothing more is to be sent, if so.
func (st *stream) sendOn(p []byte, err error) error {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.out.Flush()
	end := errors.Is(err, io.EOF)
	if err != nil && !end {
		c.cancel(st, err)
		return err
	}
	if len(p) == 0 && !end {
		return nil
	}
	if err := c.out.PutData(st, st.id, &st.outflow, p, end); err != nil {
		return err
	}
	st.sent = end
	return err
}

var (
	errLength = errors.New("h2: the request's body has not the length that it declares")
	// errAnswered says that nobody wants the rest of a request.
	errAnswered = errors.New("h2: the server has answered without the rest of the request")
)

// Ended is why a request is not to be sent on. conn.mu is held.
func (st *stream) Ended() error {
	if st.err == nil && st.sent {
		return errAnswered
	}
	return st.err
}

// WaitForWindow waits for the window of the connection or of the stream. conn.mu is held, but not while waiting.
func (st *stream) WaitForWindow(turn *sync.Cond) {
	if turn == nil {
		turn = &st.wake
	}
	turn.Wait()
}

// Trickle has nothing to do: a server that takes little is served as it wishes.
func (st *stream) Trickle() {}

func validFields(header http.Header) bool {
	for name, values := range header {
		if !httpguts.ValidHeaderFieldName(name) {
			return false
		}
		for _, v := range values {
			if !httpguts.ValidHeaderFieldValue(v) {
				return false
			}
		}
	}
	return true
}
