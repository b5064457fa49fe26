package h2

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frameHeader is the size of what comes before each frame's payload.
const frameHeader = 9

// smallWindow is a window that a peer opens only to cost more than it gets.
const smallWindow = 256

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
	if err := c.waitForRoom(st); err != nil {
		return err
	}
	trailers := last && r.hasTrailers()
	bodyless := r.stream.request.Method == http.MethodHead || !bodyAllowed(r.status)
	if !st.headerSent {
		st.headerSent = true
		end := bodyless || last && !trailers && len(kept)+len(p) == 0
		r.putHeader(kept, p, last, end)
		if end && !last { // a HEAD request that was flushed
			c.flush()
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
		if err := st.putData(kept, end && len(p) == 0); err != nil {
			return err
		}
	}
	if len(p) > 0 {
		if err := st.putData(p, end); err != nil {
			return err
		}
	}
	if trailers {
		r.putTrailers()
	}
	if !last { // else finish does
		c.flush()
	}
	return st.err
}

// waitForRoom waits while too much waits for the network. c.mu is held, but not while waiting.
func (c *conn) waitForRoom(st *stream) error {
	for st.err == nil && c.out != nil && len(*c.out) >= backlog {
		if c.sending {
			c.room.Wait()
		} else {
			c.flush()
		}
	}
	if st.err != nil {
		c.passOn()
	}
	return st.err
}

// putData puts a piece of the answer into what is to be sent, and waits for windows. conn.mu is held, but not while waiting.
func (st *stream) putData(p []byte, end bool) error {
	c := st.conn
	for {
		if err := c.waitForRoom(st); err != nil {
			return err
		}
		n := min(len(p), frameSize, c.peerFrame, int(max(0, min(c.outflow, st.outflow))))
		if 0 < n && n < min(len(p), smallWindow) && !c.trifles.spend(time.Now()) {
			c.reset(st, http2.ErrCodeEnhanceYourCalm, http2.StreamError{StreamID: st.id, Code: http2.ErrCodeEnhanceYourCalm})
			continue
		}
		if n > 0 || len(p) == 0 {
			c.outflow -= outflow(n)
			st.outflow -= outflow(n)
			c.putFrame(http2.FrameData, endFlag(end && n == len(p)), st.id, p[:n])
			if p = p[n:]; len(p) == 0 {
				c.passOn()
				return nil
			}
			continue
		}
		c.flush()
		st.waitForWindow()
	}
}

// waitForWindow waits if there still is no window. conn.mu is held, but not while waiting.
func (st *stream) waitForWindow() {
	c := st.conn
	if st.err != nil || min(c.outflow, st.outflow) > 0 {
		return
	}
	if limit := c.srv.limits.write; st.completing && limit > 0 {
		st.setTimer(&st.stallTimer, time.Now().Add(limit), st.writeTimeout)
	}
	if st.outflow > 0 {
		c.window.Wait()
	} else {
		c.passOn()
		st.wake.Wait()
	}
}

// passOn wakes the next stream that waits for the connection's window. They wait in line, and each wakes the one behind it if
// something is left, since waking all for a window that serves a few would cost more than sending. c.mu is held.
func (c *conn) passOn() {
	if c.outflow > 0 {
		c.window.Signal()
	}
}

func endFlag(end bool) http2.Flags {
	if end {
		return http2.FlagDataEndStream // the same bit as in HEADERS
	}
	return 0
}

// putFrame puts a frame into what is to be sent. c.mu is held.
func (c *conn) putFrame(kind http2.FrameType, flags http2.Flags, id uint32, payload []byte) {
	if c.dead != nil {
		return
	}
	n := len(payload)
	b := append(*c.outgoing(frameHeader + n), byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags))
	b = binary.BigEndian.AppendUint32(b, id)
	*c.out = append(b, payload...)
}

// beginHeader begins a block of headers; 0: without a status. c.mu is held until endHeader.
func (c *conn) beginHeader(status int) {
	c.block.Reset()
	if status != 0 {
		c.putField(":status", statusText(status))
	}
}

func (c *conn) putField(name, value string) {
	_ = c.headers.WriteField(hpack.HeaderField{Name: name, Value: value}) // into memory
}

// endHeader puts the block into as many frames as it needs.
func (c *conn) endHeader(id uint32, end bool) {
	kind, flags, block := http2.FrameHeaders, endFlag(end), c.block.Bytes()
	for {
		n := min(len(block), c.peerFrame, frameSize)
		if n == len(block) {
			flags |= http2.FlagHeadersEndHeaders
		}
		c.putFrame(kind, flags, id, block[:n])
		if block = block[n:]; len(block) == 0 {
			return
		}
		kind, flags = http2.FrameContinuation, 0
	}
}

// putHeader sends the header as it was when it was written, and what the handler has left out. conn.mu is held.
func (r *response) putHeader(kept, p []byte, last, end bool) {
	c := r.stream.conn
	c.beginHeader(r.status)
	for _, f := range r.scratch.fields {
		c.putField(f.Name, f.Value)
	}
	allowed := bodyAllowed(r.status)
	size := len(kept) + len(p)
	head := r.stream.request.Method == http.MethodHead
	switch {
	case r.declared >= 0:
		c.putField("content-length", strconv.FormatInt(r.declared, 10))
	case last && allowed && (size > 0 || !head):
		c.putField("content-length", strconv.Itoa(size))
	}
	if allowed && !r.ownType && !r.encoded && size > 0 {
		start := kept
		if len(start) == 0 {
			start = p
		}
		c.putField("content-type", http.DetectContentType(start))
	}
	if !r.ownDate {
		c.putField("date", date())
	}
	c.endHeader(r.stream.id, end)
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
	c.beginHeader(status)
	for _, f := range r.scratch.fields {
		c.putField(f.Name, f.Value)
	}
	c.endHeader(r.stream.id, false)
	c.flush()
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
	c.beginHeader(0)
	for _, name := range r.trailers {
		lower := r.scratch.lower.of(name)
		for _, v := range r.header[name] {
			if httpguts.ValidHeaderFieldValue(v) {
				c.putField(lower, v)
			}
		}
	}
	c.endHeader(r.stream.id, true)
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
