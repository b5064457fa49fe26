package h2

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing"
)

// takeHeaders begins a stream, or ends one by trailers.
func (c *conn) takeHeaders(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.mu.Lock()
	st := c.streams[id]
	if st != nil {
		defer c.mu.Unlock()
		return c.takeTrailers(st, f)
	}
	err := c.mayOpen(f)
	c.mu.Unlock()
	if err != nil {
		if errors.Is(err, errIgnore) {
			return nil
		}
		return err
	}
	st, err = c.newStream(f)
	if err != nil {
		return err
	}
	c.open(st)
	return nil
}

// errIgnore says that nothing is wrong, and nothing to be done.
var errIgnore = errors.New("h2: ignored")

// mayOpen says whether a header may begin a stream. c.mu is held.
func (c *conn) mayOpen(f *http2.MetaHeadersFrame) error {
	id := f.StreamID
	if c.ignored(id) {
		return c.ignoredHeaders()
	}
	if id <= c.lastID {
		return c.lateHeaders(f)
	}
	c.lastID = id
	if f.HasPriority() && f.Priority.StreamDep == id {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	}
	if c.running >= int(c.limits.streams) {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	}
	return nil
}

func (c *conn) ignoredHeaders() error {
	if err := c.trifle(); err != nil {
		return err
	}
	return errIgnore
}

// lateHeaders is for a stream that has ended. Trailers may have been on their way when this side ended it. c.mu is held.
func (c *conn) lateHeaders(f *http2.MetaHeadersFrame) error {
	switch known, cut := c.ended.find(f.StreamID); {
	case cut || !known && f.PseudoValue("method") == "":
		return c.ignoredHeaders()
	case known:
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	return http2.ConnectionError(http2.ErrCodeProtocol)
}

// newStream makes a stream from a request. Only the reader sees it yet.
func (c *conn) newStream(f *http2.MetaHeadersFrame) (*stream, error) {
	ctx, cancel := context.WithCancel(c.ctx)
	st := &stream{
		conn: c, id: f.StreamID, handler: c.handler, cancel: cancel, peerDone: f.StreamEnded(),
		inflow: framing.NewInflow(c.limits.streamWindow), opened: time.Duration(c.heard.Load()),
	}
	st.wake.L = &c.mu
	st.body.stream, st.answer.stream = st, st
	if f.Truncated {
		st.handler, st.started = http.HandlerFunc(headerTooLarge), false
	}
	if err := st.readRequest(ctx, f); err != nil {
		cancel()
		return nil, err
	}
	return st, nil
}

func headerTooLarge(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "the header is too large", http.StatusRequestHeaderFieldsTooLarge)
}

// open begins a stream, and hands it over unless it waits for its body.
func (c *conn) open(st *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st.outflow = framing.Outflow(c.peerWindow)
	c.streams[st.id] = st
	if c.running++; c.running == 1 {
		c.report(http.StateActive)
	}
	if l := c.limits; l.readStream > 0 || l.writeStream > 0 {
		st.limitTime(l)
	}
	b := &st.body
	if wait := b.declared > 0 && b.declared <= waitForBody && !b.expected && !st.peerDone; !wait {
		st.handed = true
		c.ready = append(c.ready, st)
	} else {
		c.lookAgainBy(c.bodyBy(st))
	}
}

// limitTime sets the http.Server's limits for whole requests, if it has some.
func (st *stream) limitTime(l *limits) {
	if l.readStream > 0 {
		st.setTimer(&st.readTimer, time.Now().Add(l.readStream), st.readTimeout)
	}
	if l.writeStream > 0 {
		st.setTimer(&st.writeTimer, time.Now().Add(l.writeStream), st.writeTimeout)
	}
}

// takeTrailers ends the body of a stream, and keeps the trailers that were announced. c.mu is held.
func (c *conn) takeTrailers(st *stream, f *http2.MetaHeadersFrame) error {
	if st.peerDone {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeStreamClosed}
	}
	malformed := http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	if !f.StreamEnded() || f.Truncated || len(f.PseudoFields()) > 0 || f.HasPriority() && f.Priority.StreamDep == st.id {
		return malformed
	}
	for _, field := range f.RegularFields() {
		name := c.names.Of(field.Name)
		if !httpguts.ValidTrailerHeader(name) {
			return malformed
		}
		if _, announced := st.body.announced[name]; announced {
			if st.body.trailer == nil {
				st.body.trailer = make(http.Header)
			}
			st.body.trailer[name] = append(st.body.trailer[name], field.Value)
		}
	}
	st.peerDone = true
	return c.bodyGrew(st)
}
