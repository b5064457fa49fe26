package h2

import (
	"io"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/proto/framing"
)

// departure is how far the connection has come in ending. First the peer is told to open no more streams; when it has heard
// that, it is told which the last one was; when that has ended, the connection is closed. So no request is lost.
type departure struct {
	announced bool
	final     bool      // the peer knows the last stream; what comes for later ones is ignored
	finalBy   time.Time // when the peer is told at the latest
	done      bool      // the reader shall end
}

// departurePing comes back when the peer has read that it should leave.
var departurePing = [8]byte{'h', 'o', 'd', 'e', 'i', 'b', 'y', 'e'}

// leave begins to end the connection.
func (c *conn) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announceDeparture()
	c.out.Flush()
}

// announceDeparture is leave without writing. c.mu is held.
func (c *conn) announceDeparture() {
	if c.departure.announced {
		return
	}
	c.departure.announced = true
	_ = c.out.Control.WriteGoAway(framing.MaxStreamID, http2.ErrCodeNo, nil)
	_ = c.out.Control.WritePing(false, departurePing)
	c.departure.finalBy = time.Now().Add(lingerTime)
	c.lookAgainBy(c.departure.finalBy)
}

// finalize tells the peer which stream was the last one. c.mu is held.
func (c *conn) finalize() {
	if c.departure.final {
		return
	}
	c.departure.announced, c.departure.final = true, true
	_ = c.out.Control.WriteGoAway(c.lastID, http2.ErrCodeNo, nil)
	if c.running == 0 {
		c.stopReading()
	}
}

// stopReading wakes the reader, which then departs. c.mu is held.
func (c *conn) stopReading() {
	c.departure.done = true
	_ = c.net.SetReadDeadline(longAgo)
}

// depart ends the connection and tells the peer why; it is called by the reader. Whatever runs is canceled.
func (c *conn) depart(code http2.ErrCode) {
	c.mu.Lock()
	if !c.departure.final || code != http2.ErrCodeNo {
		_ = c.out.Control.WriteGoAway(c.lastID, code, nil) // the last frame: what follows is without use to the peer
	}
	c.departure.announced, c.departure.final, c.departure.done = true, true, true
	for _, st := range c.streams {
		c.abort(st, http2.ConnectionError(code), true)
	}
	c.out.Hurry(lingerTime)
	c.out.Drain()
	c.mu.Unlock()
	c.linger()
}

// linger lets the peer read what was written last: if this side closed while something of the peer was unread, the network
// would throw it away.
func (c *conn) linger() {
	if half, ok := c.net.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = c.net.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.Copy(io.Discard, c.net)
}

// refuse ends a connection before it is served.
func (c *conn) refuse(code http2.ErrCode) {
	c.depart(code)
	c.close()
}
