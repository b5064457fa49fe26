package h2

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hodei-jobs/hodei/proto/framing"
)

var (
	errClosed = errors.New("h2: the connection is closed")
	errFull   = errors.New("h2: the connection has as many requests as the server takes")
	errNone   = errors.New("h2: the server takes no requests")
	errFlood  = errors.New("h2: the server sends a header without end")
	errSilent = errors.New("h2: the server gives no sign of life")
	// errPeer is the cause of errors that the other end has sent; the words are those of net/http.
	errPeer = errors.New("received from peer")
)

const (
	// streamWindow and connWindow are what the server may send before it was read: of one answer, and of all.
	streamWindow = 1 << 20
	connWindow   = 1 << 30
	// headerList bounds the header of an answer.
	headerList = 1 << 20
	// blockBytes is what may be read before a frame is complete: one frame, or a header block with all that belongs to it.
	blockBytes = 2 << 20
	// lastWords is how long is read on after the server has closed its side for writing.
	lastWords = time.Second
)

// longAgo is a deadline that wakes who reads.
var longAgo = time.Unix(1, 0)

// conn is a connection to a server.
type conn struct {
	net     net.Conn
	tls     *tls.ConnectionState // nil: none, in tests
	onClose func(*conn)
	started time.Time
	heard   atomic.Int64 // nanoseconds after started: when something was read last

	// Of the goroutine that reads.
	in      *bufio.Reader
	unread  int // bytes read from the network since the last frame was complete
	readErr error
	frames  *http2.Framer
	names   framing.Names
	ready   []*stream // whose callers are woken before the reader waits for more

	claimed atomic.Bool   // the first request has begun
	greeted chan struct{} // closed when the server has said how many requests it takes, or never will

	mu      sync.Mutex
	dead    error // why nothing is read or written any more
	leaving error // why no request is taken any more
	streams map[uint32]*stream
	nextID  uint32 // of the stream that is opened next
	useful  bool   // an answer has come
	pumps   int    // requests whose bodies are sent by goroutines of their own
	out     framing.Out
	lower   framing.Names // names of headers as they are sent
	inflow  framing.Inflow
	// What the server has set: the initial window of streams, and how many.
	peerWindow  int64
	peerStreams uint32

	pingAfter, pingTimeout time.Duration
	pinged                 time.Time // when the server was asked for a sign of life; zero: it was not
	watch                  *time.Timer
}

func newConn(connection net.Conn, config *http.HTTP2Config, onClose func(*conn)) *conn {
	c := &conn{
		net: connection, onClose: onClose, started: time.Now(),
		names: framing.CanonicalNames(), lower: framing.LowerNames(),
		nextID: 1, streams: make(map[uint32]*stream), inflow: framing.NewInflow(connWindow),
		peerWindow: framing.InitialWindow, greeted: make(chan struct{}), peerStreams: framing.MaxStreamID,
	}
	if secured, ok := connection.(*tls.Conn); ok {
		state := secured.ConnectionState()
		c.tls = &state
	}
	c.in = bufio.NewReader((*arrivals)(c))
	c.frames = http2.NewFramer(io.Discard, c.in)
	c.frames.SetReuseFrames()
	c.frames.SetMaxReadFrameSize(framing.InitialFrame)
	c.frames.MaxHeaderListSize = headerList
	c.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.out.Init(connection, &c.mu, 0, func(send func()) { go send() }, c.unwritable)
	c.greet()
	if config != nil && config.SendPingTimeout > 0 {
		c.pingAfter, c.pingTimeout = config.SendPingTimeout, config.PingTimeout
		if c.pingTimeout <= 0 {
			c.pingTimeout = 15 * time.Second
		}
		c.watch = time.AfterFunc(c.pingAfter, c.look)
	}
	return c
}

// greet puts what a client says first in front of the first request.
func (c *conn) greet() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.Put([]byte(http2.ClientPreface))
	_ = c.out.Control.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: headerList},
	)
	_ = c.out.Control.WriteWindowUpdate(0, connWindow-framing.InitialWindow)
}

// arrivals reads from the network. It is asked only when all that has come was used, which is the time to wake callers.
type arrivals conn

// Read reads what comes next, after what has come so far was handed on.
func (a *arrivals) Read(p []byte) (int, error) {
	c := (*conn)(a)
	c.settle()
	if c.unread > blockBytes {
		return 0, errFlood
	}
	n, err := c.net.Read(p)
	if n > 0 {
		c.unread += n
		c.heard.Store(int64(time.Since(c.started)))
	}
	if err != nil {
		c.readErr = err
	}
	return n, err
}

// settle wakes the callers whose answers have begun, and has answers to the server written that nobody has taken along.
func (c *conn) settle() {
	for i, st := range c.ready {
		c.ready[i] = nil
		st.answered <- struct{}{}
	}
	c.ready = c.ready[:0]
	c.mu.Lock()
	if c.nextID > 1 { // the first request takes the greeting along
		c.out.FlushAside()
	}
	c.mu.Unlock()
}

// serve reads until the connection ends.
func (c *conn) serve() {
	for {
		frame, err := c.frames.ReadFrame()
		if err == nil {
			c.unread = c.in.Buffered()
			err = c.take(frame)
		}
		if err != nil && !c.survives(err) {
			return
		}
	}
}

// survives deals with an error, and says whether the connection goes on.
func (c *conn) survives(err error) bool {
	var streamError http2.StreamError
	var connError http2.ConnectionError
	code := http2.ErrCodeProtocol
	switch {
	case c.readErr != nil:
		c.close(c.whyEnded(c.readErr))
		return false
	case errors.As(err, &streamError):
		c.mu.Lock()
		defer c.mu.Unlock()
		if st := c.streams[streamError.StreamID]; st != nil {
			c.reset(st, streamError.Code, streamError)
		}
		return true
	case errors.As(err, &connError):
		code = http2.ErrCode(connError)
	case errors.Is(err, http2.ErrFrameTooLarge):
		code = http2.ErrCodeFrameSize
	case errors.Is(err, errFlood):
		code = http2.ErrCodeEnhanceYourCalm
	}
	c.mu.Lock()
	_ = c.out.Control.WriteGoAway(0, code, nil)
	c.out.Hurry(lastWords)
	c.out.Drain()
	c.mu.Unlock()
	c.close(err)
	return false
}

// whyEnded is the reason why reading has failed, as well as it is known.
func (c *conn) whyEnded(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	said := !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded)
	switch {
	case c.dead != nil:
		return c.dead
	case said:
		return err
	case c.leaving != nil: // by a write that failed, or by the server's word
		return c.leaving
	}
	return io.ErrUnexpectedEOF
}

// close ends all that the connection has.
func (c *conn) close(err error) {
	c.mu.Lock()
	c.fail(err)
	c.mu.Unlock()
	_ = c.net.Close()
	c.onClose(c)
}

// fail ends all streams, because the connection is of no use any more. c.mu is held.
func (c *conn) fail(err error) {
	if c.dead != nil {
		return
	}
	c.dead, c.leaving = err, err
	for _, st := range c.streams {
		c.abort(st, err)
	}
	c.out.Close()
	c.hear()
	if c.watch != nil {
		c.watch.Stop()
	}
	_ = c.net.SetDeadline(longAgo) // the reader sees it and closes
}

// hear lets those go on who wait for the server's greeting. c.mu is held.
func (c *conn) hear() {
	if !c.heardGreeting() {
		close(c.greeted)
	}
}

func (c *conn) heardGreeting() bool {
	select {
	case <-c.greeted:
		return true
	default:
		return false
	}
}

// unwritable is called when writing has failed. What the server had to say, its reason perhaps, may still be read. c.mu is held.
func (c *conn) unwritable(err error) {
	if c.dead == nil {
		c.leaving = err
		_ = c.net.SetReadDeadline(time.Now().Add(lastWords))
	}
}

// retire closes the connection when the requests that it has have ended.
func (c *conn) retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving == nil {
		c.leaving = errClosed
	}
	c.closeIfUnused()
}

// closeIfUnused ends a connection that takes no requests and has none. c.mu is held.
func (c *conn) closeIfUnused() {
	if c.leaving != nil && len(c.streams) == 0 && c.dead == nil {
		c.fail(c.leaving)
	}
}

// look asks a silent server for a sign of life, and gives up one that gave none.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return
	}
	now, heard := time.Now(), c.started.Add(time.Duration(c.heard.Load()))
	if !heard.Before(c.pinged) {
		c.pinged = time.Time{}
	}
	switch {
	case !c.pinged.IsZero() && !now.Before(c.pinged.Add(c.pingTimeout)):
		c.fail(errSilent)
		return
	case !c.pinged.IsZero():
		c.watch.Reset(c.pinged.Add(c.pingTimeout).Sub(now))
		return
	case now.Before(heard.Add(c.pingAfter)):
		c.watch.Reset(heard.Add(c.pingAfter).Sub(now))
		return
	}
	c.pinged = now
	c.watch.Reset(c.pingTimeout)
	_ = c.out.Control.WritePing(false, [8]byte{})
	c.out.FlushAside()
}
