package h2

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing"
)

// stream is a request and its answer. It is not used again, because handlers may keep the request.
type stream struct {
	conn    *conn
	id      uint32
	opened  time.Duration // after the connection
	handler http.Handler
	request *http.Request
	cancel  context.CancelFunc
	body    body
	answer  response

	// conn.mu guards the rest.
	wake        sync.Cond // somebody waits for a body, a window or the end
	err         error     // why nothing is read or written any more
	inflow      framing.Inflow
	outflow     framing.Outflow
	handed      bool // the handler starts when nothing more has arrived
	started     bool // the handler runs, or never will
	peerDone    bool // the peer has ended its side
	headerSent  bool
	completing  bool // the handler has returned, and its worker waits for the peer to take the rest
	readTimer   *time.Timer
	writeTimer  *time.Timer
	stallTimer  *time.Timer // a peer that takes nothing any more must not hold a worker
	unavailable bool        // the handler has returned
}

// run serves the request on a worker.
func (st *stream) run(s *scratch) {
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit
			st.logPanic(recover())
			st.conn.resetByHandler(st)
		}
		st.finish()
	}()
	st.answer.scratch = s
	st.handler.ServeHTTP(&st.answer, st.request)
	st.answer.complete()
	returned = true
}

func (st *stream) logPanic(reason any) {
	if reason == nil || reason == http.ErrAbortHandler { //nolint:errorlint // the value itself is the agreement
		return
	}
	stack := make([]byte, 64<<10)
	stack = stack[:runtime.Stack(stack, false)]
	st.conn.srv.logf("h2: panic serving %v: %v\n%s", st.conn.remote, reason, stack)
}

// finish frees what the request has used.
func (st *stream) finish() {
	if st.request.MultipartForm != nil {
		_ = st.request.MultipartForm.RemoveAll()
	}
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := st.answer.scratch; s != nil {
		clear(s.fields) // an idle worker keeps nothing of a call
		s.body = s.body[:0]
		st.answer.scratch = nil
	}
	st.over()
	c.out.Flush()
}

// over is the end of the handler. c.mu is held.
func (st *stream) over() {
	if st.unavailable {
		return
	}
	c := st.conn
	st.unavailable = true
	st.cancel()
	st.body.drop()
	if st.err == nil {
		if !st.peerDone { // what the peer still wants to send, nobody reads
			_ = c.out.Control.WriteRSTStream(st.id, http2.ErrCodeNo)
		}
		st.err = http.ErrBodyReadAfterClose
		c.forget(st, !st.peerDone)
	}
	st.stopTimers()
	c.left()
}

func (st *stream) stopTimers() {
	for _, timer := range [...]*time.Timer{st.readTimer, st.writeTimer, st.stallTimer} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// forget ends a stream for the peer. c.mu is held.
func (c *conn) forget(st *stream, cut bool) {
	delete(c.streams, st.id)
	c.ended.add(st.id, cut)
}

// left counts a stream that needs nothing any more. c.mu is held.
func (c *conn) left() {
	c.running--
	if c.running == 0 {
		c.becomeIdle()
		c.report(http.StateIdle)
	}
}

// abort ends a stream before its time. c.mu is held.
func (c *conn) abort(st *stream, err error, cut bool) {
	if st.err != nil {
		return
	}
	st.err = err
	c.forget(st, cut)
	st.body.drop()
	if !st.started { // and never will be
		st.started, st.unavailable = true, true
		st.stopTimers()
		c.left()
	}
	st.cancel()
	st.wake.Broadcast()
	c.out.Wake()
}

// reset tells the peer that a stream ends before its time, if it has not ended. c.mu is held.
func (c *conn) reset(st *stream, code http2.ErrCode, err error) {
	if st.err == nil {
		_ = c.out.Control.WriteRSTStream(st.id, code)
		c.abort(st, err, true)
	}
}

func (c *conn) resetByHandler(st *stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(st, http2.ErrCodeInternal, http2.StreamError{StreamID: st.id, Code: http2.ErrCodeInternal})
}

// readTimeout ends reading; answers can still be written.
func (st *stream) readTimeout() {
	c := st.conn
	c.mu.Lock()
	st.body.end(errDeadline)
	c.mu.Unlock()
	c.start(st) // in case it waits for its body
}

// writeTimeout ends the stream, since nobody knows how much of the answer was sent.
func (st *stream) writeTimeout() {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reset(st, http2.ErrCodeInternal, errDeadline)
	c.out.Flush()
}

// setTimer sets, moves or stops one of a stream's timers. c.mu is held.
func (st *stream) setTimer(timer **time.Timer, deadline time.Time, expire func()) {
	switch {
	case st.unavailable:
	case deadline.IsZero():
		if *timer != nil {
			(*timer).Stop()
		}
	case *timer == nil:
		*timer = time.AfterFunc(time.Until(deadline), expire)
	default:
		(*timer).Reset(time.Until(deadline))
	}
}
