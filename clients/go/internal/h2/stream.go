package h2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing"
)

// stream is a request and its answer. It is not used again, because callers keep the answer's body.
type stream struct {
	conn     *conn
	id       uint32
	request  *http.Request
	body     body          // of the answer
	answered chan struct{} // gets one when the answer has begun or will never

	// conn.mu guards the rest.
	wake     sync.Cond // somebody waits for a body or a window
	response *http.Response
	err      error // why the stream has ended before its time
	inflow   framing.Inflow
	outflow  framing.Outflow
	told     bool        // answered has got its one, or will when nothing more has arrived
	upload   io.Closer   // what a goroutine sends of the request; nil: no goroutine does
	sent     bool        // all of the request is on its way
	peerDone bool        // the server has sent all of the answer
	bodyless bool        // whatever the answer's header says of its length
	stop     func() bool // of watching the caller's context; nil: nobody does
}

// smallBody is the largest request that its caller sends, header and body in one piece.
const smallBody = 32 << 10

// roundTrip makes a request. It closes the request's body, unless it returns an unsentError without bodyUsed.
func (c *conn) roundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	if err := c.mayBegin(req); err != nil {
		closeBody(req)
		return nil, err
	}
	st := &stream{conn: c, request: req, answered: make(chan struct{}, 1), inflow: framing.NewInflow(streamWindow)}
	st.wake.L = &c.mu
	st.body.stream = st
	var payload []byte
	inMemory := req.ContentLength > 0 && req.ContentLength <= smallBody && req.GetBody != nil
	if inMemory {
		buffer, err := readBody(req)
		if err != nil {
			return nil, err
		}
		defer framing.PutBuffer(buffer)
		payload = *buffer
	}
	if err := c.begin(st, payload, inMemory || !hasBody(req)); err != nil {
		return nil, err
	}
	select {
	case <-st.answered:
	case <-ctx.Done():
		_ = st.body.Close()
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.response == nil {
		return nil, st.err
	}
	if ctx.Done() != nil && !st.peerDone && st.err == nil {
		st.stop = context.AfterFunc(ctx, func() { st.giveUp(ctx.Err()) })
	}
	return st.response, nil
}

// begin opens a stream and sends what may be sent at once.
func (c *conn) begin(st *stream, payload []byte, whole bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.takesMore() {
		return c.unsent(payload != nil)
	}
	st.id, st.outflow = c.nextID, framing.Outflow(c.peerWindow)
	c.nextID += 2
	c.streams[st.id] = st
	c.putHeader(st.request, st.id, whole && len(payload) == 0)
	switch n := len(payload); {
	case whole && c.out.Room(n, st.outflow) == n:
		if n > 0 {
			_ = c.out.PutData(st, st.id, &st.outflow, payload, true) // nothing to wait for
		}
		st.sent = true
	case whole:
		c.pump(st, io.NopCloser(bytes.NewReader(bytes.Clone(payload))))
	default:
		c.pump(st, st.request.Body)
	}
	if c.pumps > 0 { // the way may be full, and the caller must see the end of its context
		c.out.FlushAside()
	} else {
		c.out.Flush()
	}
	return nil
}

// mayBegin lets the first request begin at once, and others when the server has said how many it takes.
func (c *conn) mayBegin(req *http.Request) error {
	if err := check(req); err != nil {
		return err
	}
	if c.heardGreeting() || c.claimed.CompareAndSwap(false, true) {
		return nil
	}
	select {
	case <-c.greeted:
		return nil
	case <-req.Context().Done():
		return req.Context().Err()
	}
}

// takesMore says whether the connection takes another request. c.mu is held.
func (c *conn) takesMore() bool {
	switch {
	case c.leaving != nil:
	case c.peerStreams == 0:
		c.leaving = errNone
	case len(c.streams) >= int(c.peerStreams) || c.nextID > framing.MaxStreamID:
		c.leaving = errFull
	}
	return c.leaving == nil
}

// unsent is the error of a request that another connection may take. c.mu is held.
func (c *conn) unsent(bodyUsed bool) error {
	chosen := errors.Is(c.leaving, errClosed) || errors.Is(c.leaving, errFull) // by this side
	return &unsentError{cause: c.leaving, bodyUsed: bodyUsed, useless: !c.useful && !chosen}
}

// pump has a goroutine send the body of a request. c.mu is held.
func (c *conn) pump(st *stream, body io.ReadCloser) {
	st.upload = body
	c.pumps++
	go st.pump(body)
}

// giveUp ends a stream whose caller has no more use for it.
func (st *stream) giveUp(err error) {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancel(st, err)
	c.out.FlushAside()
}

// cancel tells the server that nobody waits for the answer any more. c.mu is held.
func (c *conn) cancel(st *stream, err error) { c.reset(st, http2.ErrCodeCancel, err) }

// reset ends a stream before its time, if it has not ended. c.mu is held.
func (c *conn) reset(st *stream, code http2.ErrCode, err error) {
	if c.streams[st.id] == st {
		_ = c.out.Control.WriteRSTStream(st.id, code)
		c.abort(st, err)
	}
}

// abort ends a stream that the server has forgotten. c.mu is held.
func (c *conn) abort(st *stream, err error) {
	st.err = err
	st.body.end(err)
	c.forget(st)
	if !st.told {
		st.told = true
		st.answered <- struct{}{}
	}
}

// forget is the end of a stream, whether good or bad. c.mu is held.
func (c *conn) forget(st *stream) {
	delete(c.streams, st.id)
	if st.stop != nil {
		st.stop()
	}
	if st.upload != nil && !st.sent {
		st.sent = true
		go st.upload.Close() //nolint:errcheck // so that the pump, which may wait for it, ends
		c.out.Wake()
	}
	st.wake.Broadcast()
	c.closeIfUnused()
}

// check says what is wrong with a request, as far as nobody else would.
func check(req *http.Request) error {
	switch {
	case req.Context().Err() != nil:
		return req.Context().Err()
	case len(req.Trailer) > 0:
		return errors.New("h2: requests have no trailers here")
	case !validFields(req.Header):
		return errors.New("h2: the request's header has an invalid field")
	}
	return nil
}

func hasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// readBody reads and closes a body whose length is known.
func readBody(req *http.Request) (*[]byte, error) {
	defer closeBody(req)
	n := int(req.ContentLength)
	buffer := framing.GetBuffer(n + 1)
	*buffer = (*buffer)[:n+1]
	got, err := io.ReadFull(req.Body, *buffer)
	if got == n && errors.Is(err, io.ErrUnexpectedEOF) {
		*buffer = (*buffer)[:n]
		return buffer, nil
	}
	framing.PutBuffer(buffer)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("h2: reading the request's body: %w", err)
	}
	return nil, errLength
}
