package h2

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/hodei-jobs/hodei/proto/framing"
)

// errDeadline is wrapped, so that nobody relies on the plain error.
var errDeadline = fmt.Errorf("h2: %w", os.ErrDeadlineExceeded)

var errBodyClosed = errors.New("h2: the body was closed by the handler")

// body is the body of a request. Reading and closing may be done at the same time.
type body struct {
	stream *stream

	// conn.mu guards all.
	data     framing.Arrived
	got      int64
	declared int64 // -1: not
	err      error // what comes after data; nil: more data
	closed   bool
	expected bool // the peer waits for "100 Continue"
	trailer  http.Header
	// announced are the trailers that shall come. The reader only looks which; the handler gets the values with the end.
	announced http.Header
}

// Read waits for the next bytes. The first tells a peer to go on that waits to be told.
func (b *body) Read(p []byte) (int, error) {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	b.goOn()
	for {
		switch {
		case b.closed:
			return 0, errBodyClosed
		case b.stream.err != nil:
			return 0, b.stream.err
		case !b.data.Empty():
			return b.take(p)
		case b.err != nil:
			b.handTrailer()
			return 0, b.err
		case len(p) == 0:
			return 0, nil
		}
		b.stream.wake.Wait()
	}
}

// take copies what is there and announces its room again.
func (b *body) take(p []byte) (int, error) {
	c := b.stream.conn
	n := b.data.Read(p)
	c.used(b.stream, n)
	c.out.Flush()
	if b.data.Empty() && errors.Is(b.err, io.EOF) {
		b.handTrailer()
		return n, io.EOF
	}
	return n, nil
}

// goOn sends "100 Continue" once.
func (b *body) goOn() {
	if !b.expected || b.stream.headerSent || b.stream.err != nil {
		return
	}
	b.expected = false
	out := &b.stream.conn.out
	out.Field(":status", statusText(http.StatusContinue))
	out.EndHeader(b.stream.id, false)
	out.Flush()
}

// Close drops what was not read and what still comes.
func (b *body) Close() error {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	b.closed = true
	b.drop()
	b.stream.wake.Broadcast()
	c.out.Flush()
	return nil
}

// drop gives room back to the connection, but not to the stream, which gets no more then. conn.mu is held.
func (b *body) drop() {
	if n := b.data.Drop(); n > 0 {
		b.stream.conn.used(nil, n)
	}
}

// add keeps bytes that have come. conn.mu is held.
func (b *body) add(p []byte) {
	b.got += int64(len(p))
	if b.closed || b.err != nil || b.stream.unavailable {
		b.stream.conn.used(nil, len(p))
		return
	}
	b.data.Add(p)
	b.stream.wake.Broadcast()
}

// end is what comes after the data. conn.mu is held.
func (b *body) end(err error) {
	if b.err == nil {
		b.err = err
	}
	b.stream.wake.Broadcast()
}

// complete says whether a handler could read all without waiting. conn.mu is held.
func (b *body) complete() bool { return b.err != nil || b.declared >= 0 && b.got >= b.declared }

// handTrailer gives the trailers that were announced to the handler, which must not look at them before the end.
func (b *body) handTrailer() {
	if !errors.Is(b.err, io.EOF) {
		return
	}
	for name, values := range b.trailer {
		b.stream.request.Trailer[name] = values
	}
	b.trailer = nil
}

// used announces room for n bytes again, late: on the connection, and on a stream from which more may come. c.mu is held.
func (c *conn) used(st *stream, n int) {
	if c.departure.done {
		return
	}
	if n := c.inflow.Give(n); n > 0 {
		_ = c.out.Control.WriteWindowUpdate(0, uint32(n))
	}
	if st == nil || st.peerDone || st.err != nil {
		return
	}
	if n := st.inflow.Give(n); n > 0 {
		_ = c.out.Control.WriteWindowUpdate(st.id, uint32(n))
	}
}
