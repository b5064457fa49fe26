package h2

import (
	"errors"
	"io"
	"maps"
	"net/http"

	"github.com/hodei-jobs/hodei/proto/framing"
)

var errBodyClosed = errors.New("h2: the answer was closed by the caller")

// body is what comes in of an answer. Reading and closing may be done at the same time.
type body struct {
	stream *stream

	// conn.mu guards all.
	data     framing.Arrived
	got      int64
	declared int64 // -1: not
	err      error // what comes after data; nil: more data
	closed   bool
	trailer  http.Header // what came with the end
}

// Read waits for the next bytes.
func (b *body) Read(p []byte) (int, error) {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case b.closed:
			return 0, errBodyClosed
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
	c.out.FlushAside()
	if b.data.Empty() && errors.Is(b.err, io.EOF) {
		b.handTrailer()
		return n, io.EOF
	}
	return n, nil
}

// Close drops what was not read, and tells the server that nobody waits for the rest.
func (b *body) Close() error {
	c := b.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	b.closed = true
	b.drop()
	c.cancel(b.stream, errBodyClosed)
	b.stream.wake.Broadcast()
	c.out.FlushAside()
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
	if b.closed || b.err != nil {
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

// handTrailer gives the trailers to the reader, who must not look at them before the end.
func (b *body) handTrailer() {
	if b.trailer == nil || !errors.Is(b.err, io.EOF) {
		return
	}
	if b.stream.response.Trailer == nil {
		b.stream.response.Trailer = make(http.Header)
	}
	maps.Copy(b.stream.response.Trailer, b.trailer)
	b.trailer = nil
}

// used announces room for n bytes again, late: on the connection, and on a stream from which more may come. c.mu is held.
func (c *conn) used(st *stream, n int) {
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
