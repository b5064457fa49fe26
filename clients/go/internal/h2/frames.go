package h2

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/net/http2"
)

// take does what a frame asks for. An error is one of a stream, or of the connection.
func (c *conn) take(frame http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if !c.heardGreeting() {
		if f, ok := frame.(*http2.SettingsFrame); !ok || f.IsAck() {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		defer c.hear()
	}
	switch f := frame.(type) {
	case *http2.DataFrame:
		err = c.takeData(f)
	case *http2.MetaHeadersFrame:
		err = c.takeHeaders(f)
	case *http2.SettingsFrame:
		err = c.takeSettings(f)
	case *http2.WindowUpdateFrame:
		err = c.takeWindow(f)
	case *http2.RSTStreamFrame:
		err = c.takeReset(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			err = c.out.Control.WritePing(true, f.Data)
		}
	case *http2.GoAwayFrame:
		c.takeGoAway(f)
	case *http2.PushPromiseFrame:
		err = http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if err == nil && c.out.Overrun() {
		err = http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return err
}

// unopened says that this side has never opened the stream. c.mu is held.
func (c *conn) unopened(id uint32) bool { return id%2 == 0 || id >= c.nextID }

// takeData gives a piece of an answer to its stream. Its room on the connection comes back whatever happens to it.
func (c *conn) takeData(f *http2.DataFrame) error {
	data, n := f.Data(), int(f.Length)
	if c.unopened(f.StreamID) || !c.inflow.Take(n) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := c.streams[f.StreamID]
	if st == nil { // it was on its way when this side ended the stream
		c.used(nil, n)
		return nil
	}
	b := &st.body
	malformed := st.response == nil || st.bodyless || b.declared >= 0 && b.got+int64(len(data)) > b.declared
	if malformed || !st.inflow.Take(n) {
		c.used(nil, n)
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol, Cause: errors.New("the answer is malformed")}
	}
	if len(data) > 0 {
		b.add(data)
	}
	c.used(st, n-len(data))
	if f.StreamEnded() {
		return c.endAnswer(st)
	}
	return nil
}

// endAnswer is the end of what the server sends. c.mu is held.
func (c *conn) endAnswer(st *stream) error {
	if b := &st.body; b.declared >= 0 && b.got != b.declared && !st.bodyless {
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol, Cause: io.ErrUnexpectedEOF}
	}
	st.peerDone = true
	st.body.end(io.EOF)
	if !st.sent {
		_ = c.out.Control.WriteRSTStream(st.id, http2.ErrCodeNo) // the server wants no more of the request
	}
	c.forget(st)
	return nil
}

func (c *conn) takeSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
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
	switch s.ID { //nolint:exhaustive // the others ask nothing of a client
	case http2.SettingHeaderTableSize:
		c.out.SetTable(s.Val)
	case http2.SettingMaxFrameSize:
		c.out.PeerFrame = int(s.Val)
	case http2.SettingMaxConcurrentStreams:
		c.peerStreams = s.Val
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
	case c.unopened(f.StreamID):
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

func (c *conn) takeReset(f *http2.RSTStreamFrame) error {
	st := c.streams[f.StreamID]
	if st == nil && c.unopened(f.StreamID) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if st != nil {
		c.abort(st, http2.StreamError{StreamID: st.id, Code: f.ErrCode, Cause: errPeer})
	}
	return nil
}

// takeGoAway gives the requests back that the server has not begun, and ends when the others have ended.
func (c *conn) takeGoAway(f *http2.GoAwayFrame) {
	left := fmt.Errorf("h2: the server has left (%v, last stream %d) %s", f.ErrCode, f.LastStreamID, f.DebugData())
	if c.leaving == nil || f.ErrCode != http2.ErrCodeNo {
		c.leaving = left
	}
	for id, st := range c.streams {
		if id > f.LastStreamID {
			c.abort(st, c.unsent(true))
		}
	}
	c.closeIfUnused()
}
