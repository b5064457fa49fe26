package h2

import (
	"io"
	"time"

	"golang.org/x/net/http2"
)

// take does what a frame asks for. An error is one of the stream, or of the connection.
func (c *conn) take(frame http2.Frame) error {
	if f, ok := frame.(*http2.MetaHeadersFrame); ok && c.greeted {
		return c.takeHeaders(f)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := frame.Header().StreamID
	if !c.greeted {
		if f, ok := frame.(*http2.SettingsFrame); !ok || f.IsAck() {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.greeted = true
		c.lookForIdle(time.Now())
		c.lookForLife(time.Now())
	}
	var err error
	switch f := frame.(type) {
	case *http2.DataFrame:
		err = c.takeData(f)
	case *http2.SettingsFrame:
		err = c.takeSettings(f)
	case *http2.WindowUpdateFrame:
		err = c.takeWindow(f)
	case *http2.RSTStreamFrame:
		err = c.takeReset(f)
	case *http2.PingFrame:
		err = c.takePing(f)
	case *http2.GoAwayFrame:
		c.announceDeparture()
	case *http2.PriorityFrame:
		if err = c.trifle(); err == nil && f.StreamDep == id {
			err = c.errorOf(id, http2.ErrCodeProtocol)
		}
	case *http2.PushPromiseFrame:
		err = http2.ConnectionError(http2.ErrCodeProtocol)
	default: // what is unknown is ignored
		err = c.trifle()
	}
	if err == nil && c.out.Overrun() {
		err = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return err
}

// trifle counts a frame that brings nothing. c.mu is held.
func (c *conn) trifle() error {
	if !c.trifles.spend(time.Now()) {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// unopened says that the peer has never opened the stream. c.mu is held.
func (c *conn) unopened(id uint32) bool { return id%2 == 0 || id > c.lastID }

// ignored says that the peer was told that this stream comes too late. c.mu is held.
func (c *conn) ignored(id uint32) bool { return c.departure.final && id%2 == 1 && id > c.lastID }

// errorOf is an error of a stream; where there is no stream, it is one of the connection. c.mu is held.
func (c *conn) errorOf(id uint32, code http2.ErrCode) error {
	if c.unopened(id) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return http2.StreamError{StreamID: id, Code: code}
}

// takeData gives a piece of a body to its stream. Its room on the connection comes back whatever happens to it.
func (c *conn) takeData(f *http2.DataFrame) error {
	data, n := f.Data(), int(f.Length)
	if c.unopened(f.StreamID) && !c.ignored(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if !c.inflow.Take(n) {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	if n == 0 && !f.StreamEnded() {
		if err := c.trifle(); err != nil {
			return err
		}
	}
	st := c.streams[f.StreamID]
	if st == nil || st.peerDone {
		c.used(nil, n)
		return c.lateData(st, f.StreamID)
	}
	if !st.inflow.Take(n) {
		c.used(nil, n)
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	}
	if b := &st.body; b.declared >= 0 && b.got+int64(len(data)) > b.declared {
		c.used(nil, n)
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol, Cause: io.ErrUnexpectedEOF}
	}
	st.peerDone = f.StreamEnded()
	if len(data) > 0 {
		st.body.add(data)
	}
	c.used(st, n-len(data)) // the padding; and looks whether what is owed is to be announced now
	return c.bodyGrew(st)
}

// lateData is for a stream that takes no more. What was on its way when this side ended the stream is no error.
func (c *conn) lateData(st *stream, id uint32) error {
	if st != nil {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
	}
	if _, cut := c.ended.find(id); !cut && !c.ignored(id) {
		_ = c.out.Control.WriteRSTStream(id, http2.ErrCodeStreamClosed)
	}
	return c.trifle()
}

// bodyGrew ends the body if the peer has ended its side, and starts a handler that waits for the body. c.mu is held.
func (c *conn) bodyGrew(st *stream) error {
	if st.peerDone {
		if b := &st.body; b.declared >= 0 && b.got != b.declared {
			return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol, Cause: io.ErrUnexpectedEOF}
		}
		st.body.end(io.EOF)
	}
	if !st.started && !st.handed && st.body.complete() {
		st.handed = true
		c.ready = append(c.ready, st)
	}
	return nil
}

func (c *conn) takeSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		c.unacknowledged--
		if c.unacknowledged < 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil
	}
	if err := c.trifle(); err != nil {
		return err
	}
	if f.NumSettings() > settingsAtOnce {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	if err := f.ForeachSetting(c.set); err != nil {
		return err
	}
	return c.out.Control.WriteSettingsAck()
}

func (c *conn) set(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return err
	}
	switch s.ID { //nolint:exhaustive // the others ask nothing of a server
	case http2.SettingHeaderTableSize:
		c.out.SetTable(s.Val)
	case http2.SettingMaxFrameSize:
		c.out.PeerFrame = int(s.Val)
	case http2.SettingInitialWindowSize:
		return c.setWindows(int64(s.Val))
	}
	return nil
}

// setWindows moves the windows of all streams by what the initial window has changed.
func (c *conn) setWindows(initial int64) error {
	change := initial - c.peerWindow
	c.peerWindow = initial
	for _, st := range c.streams {
		if !st.outflow.Add(change) {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		st.wake.Broadcast()
	}
	return nil
}

func (c *conn) takeWindow(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if !c.out.Open(int64(f.Increment)) {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		return nil
	}
	st := c.streams[f.StreamID]
	switch {
	case st != nil && !st.outflow.Add(int64(f.Increment)):
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeFlowControl}
	case st != nil:
		st.wake.Broadcast()
	case c.unopened(f.StreamID) && !c.ignored(f.StreamID):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

func (c *conn) takeReset(f *http2.RSTStreamFrame) error {
	st := c.streams[f.StreamID]
	if st == nil {
		if c.unopened(f.StreamID) && !c.ignored(f.StreamID) {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return c.trifle()
	}
	c.abort(st, http2.StreamError{StreamID: st.id, Code: f.ErrCode}, false)
	return c.countReset()
}

// countReset ends the connection of a peer whose streams end before their time too often. c.mu is held.
func (c *conn) countReset() error {
	if !c.resets.spend(time.Now()) {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

func (c *conn) takePing(f *http2.PingFrame) error {
	if f.IsAck() {
		if f.Data == departurePing && c.departure.announced {
			c.finalize()
		}
		return nil
	}
	if err := c.trifle(); err != nil {
		return err
	}
	return c.out.Control.WritePing(true, f.Data)
}

// refuseStream tells the peer that a stream was in error. What it returns is an error of the connection.
func (c *conn) refuseStream(e http2.StreamError) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.streams[e.StreamID]; st != nil {
		if e.Cause == nil {
			c.reset(st, e.Code, e)
		} else {
			c.reset(st, e.Code, e.Cause)
		}
		return c.countReset()
	}
	if c.ignored(e.StreamID) {
		return c.trifle()
	}
	if e.StreamID > c.lastID { // the framer found the fault, so nobody has seen the stream yet
		if e.Cause == nil || e.StreamID%2 == 0 {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.lastID = e.StreamID
	}
	c.ended.add(e.StreamID, true)
	if err := c.out.Control.WriteRSTStream(e.StreamID, e.Code); err != nil {
		return err
	}
	return c.countReset()
}
