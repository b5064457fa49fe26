package h2

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
)

// send sends what was kept and p, and before that the header; last: it is all of the answer. Everything that the windows
// allow goes out in one piece.
func (r *response) send(p []byte, last bool) error {
	st := r.stream
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s := r.scratch
	if s == nil { // somebody writes beyond the call
		return errReturned
	}
	st.completing = last
	kept := s.body
	s.body = kept[:0]
	if err := c.out.WaitForRoom(st); err != nil {
		return err
	}
	trailers := last && r.hasTrailers()
	bodyless := r.stream.request.Method == http.MethodHead || !bodyAllowed(r.status)
	if !st.headerSent {
		st.headerSent = true
		end := bodyless || last && !trailers && len(kept)+len(p) == 0
		r.putHeader(kept, p, last, end)
		if end && !last { // a HEAD request that was flushed
			c.out.Flush()
			return nil
		}
		if end {
			return nil // finish does the rest
		}
	} else if bodyless {
		return nil
	}
	end := last && !trailers
	if len(kept) > 0 || end && len(p) == 0 {
		if err := c.out.PutData(st, st.id, &st.outflow, kept, end && len(p) == 0); err != nil {
			return err
		}
	}
	if len(p) > 0 {
		if err := c.out.PutData(st, st.id, &st.outflow, p, end); err != nil {
			return err
		}
	}
	if trailers {
		r.putTrailers()
	}
	if !last { // else finish does
		c.out.Flush()
	}
	return st.err
}

// Ended is why nothing more is sent. conn.mu is held.
func (st *stream) Ended() error { return st.err }

// WaitForWindow waits for the window of the connection or of the stream. A peer that takes nothing of an answer must not hold a
// worker for ever. conn.mu is held, but not while waiting.
func (st *stream) WaitForWindow(turn *sync.Cond) {
	if limit := st.conn.limits.write; limit > 0 {
		st.setTimer(&st.stallTimer, time.Now().Add(limit), st.writeTimeout)
	}
	if turn == nil {
		turn = &st.wake
	}
	turn.Wait()
	if st.stallTimer != nil && !st.completing { // the handler may take its time until it writes again
		st.stallTimer.Stop()
	}
}

// Trickle counts a window of a few bytes, and ends the stream of a peer that has opened too many. conn.mu is held.
func (st *stream) Trickle() {
	if c := st.conn; !c.trifles.spend(time.Now()) {
		c.reset(st, http2.ErrCodeEnhanceYourCalm, http2.StreamError{StreamID: st.id, Code: http2.ErrCodeEnhanceYourCalm})
	}
}

// putHeader sends the header as it was when it was written, and what the handler has left out. conn.mu is held.
func (r *response) putHeader(kept, p []byte, last, end bool) {
	c := r.stream.conn
	c.out.Field(":status", statusText(r.status))
	for _, f := range r.scratch.fields {
		c.out.Field(f.Name, f.Value)
	}
	allowed := bodyAllowed(r.status)
	size := len(kept) + len(p)
	head := r.stream.request.Method == http.MethodHead
	switch {
	case r.declared >= 0:
		c.out.Field("content-length", strconv.FormatInt(r.declared, 10))
	case last && allowed && (size > 0 || !head):
		c.out.Field("content-length", strconv.Itoa(size))
	}
	if allowed && !r.ownType && !r.encoded && size > 0 {
		start := kept
		if len(start) == 0 {
			start = p
		}
		c.out.Field("content-type", http.DetectContentType(start))
	}
	if !r.ownDate {
		c.out.Field("date", date())
	}
	c.out.EndHeader(r.stream.id, end)
	if r.closing {
		c.announceDeparture()
	}
}

// sendInformation sends a header of 1xx.
func (r *response) sendInformation(status int) {
	c := r.stream.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.stream.err != nil || r.stream.headerSent {
		return
	}
	if status == http.StatusContinue {
		r.stream.body.expected = false
	}
	c.out.Field(":status", statusText(status))
	for _, f := range r.scratch.fields {
		c.out.Field(f.Name, f.Value)
	}
	c.out.EndHeader(r.stream.id, false)
	c.out.Flush()
}

func (r *response) hasTrailers() bool {
	for _, name := range r.trailers {
		if _, ok := r.header[name]; ok {
			return true
		}
	}
	return false
}

// putTrailers ends the answer. conn.mu is held.
func (r *response) putTrailers() {
	c := r.stream.conn
	for _, name := range r.trailers {
		lower := r.scratch.lower.Of(name)
		for _, v := range r.header[name] {
			if httpguts.ValidHeaderFieldValue(v) {
				c.out.Field(lower, v)
			}
		}
	}
	c.out.EndHeader(r.stream.id, true)
}

// statusText avoids making the text of the usual ones.
func statusText(status int) string {
	switch status {
	case http.StatusOK:
		return "200"
	case http.StatusNotFound:
		return "404"
	}
	return strconv.Itoa(status)
}

// dateNow is the text of the second that it is.
type dateNow struct {
	second int64
	text   string
}

var lastDate atomic.Pointer[dateNow]

func date() string {
	now := time.Now()
	if d := lastDate.Load(); d != nil && d.second == now.Unix() {
		return d.text
	}
	d := &dateNow{second: now.Unix(), text: now.UTC().Format(http.TimeFormat)}
	lastDate.Store(d)
	return d.text
}
