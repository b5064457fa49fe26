package h2

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/hodei-jobs/hodei/proto/framing"
)

var (
	errClosed = errors.New("h2: the connection is closed")
	errFlood  = errors.New("h2: the peer sends a header without end")
)

// longAgo is a deadline that wakes who reads.
var longAgo = time.Unix(1, 0)

// conn is a connection of a client.
type conn struct {
	srv     *server
	limits  *limits
	net     net.Conn
	handler http.Handler
	tls     *tls.ConnectionState // nil: none, in tests
	remote  string
	started time.Time
	heard   atomic.Int64 // nanoseconds after started: when something was read last
	begun   atomic.Int64 // the same: since when the rest of a frame is waited for; 0: it is not

	ctx    context.Context //nolint:containedctx // the parent of its requests' contexts
	cancel context.CancelFunc

	// Of the goroutine that reads.
	in      *bufio.Reader
	waiting bool  // begun is set
	unread  int   // bytes read from the network since the last frame was complete
	readErr error // why the network gives no more
	frames  *http2.Framer
	names   framing.Names
	ready   []*stream // their handlers start before the reader waits for more

	mu      sync.Mutex
	greeted bool  // the peer's first settings have come
	dead    error // why nothing can be written any more
	streams map[uint32]*stream
	ended   ended
	lastID  uint32 // the largest stream that the peer has opened
	running int    // streams whose handlers have not returned
	out     framing.Out
	inflow  framing.Inflow
	// peerWindow is the initial window of streams that the peer has set.
	peerWindow int64
	// unacknowledged counts settings of this side.
	unacknowledged int

	resets, trifles bucket
	departure       departure
	watch           watch
}

func newConn(ctx context.Context, s *server, l *limits, connection net.Conn, handler http.Handler) *conn {
	c := &conn{
		srv: s, limits: l, net: connection, handler: handler, remote: connection.RemoteAddr().String(), started: time.Now(),
		names:   framing.CanonicalNames(),
		streams: make(map[uint32]*stream), inflow: framing.NewInflow(l.connWindow), peerWindow: framing.InitialWindow,
		resets: newResets(l.streams), trifles: newTrifles(),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.in = bufio.NewReader((*arrivals)(c))
	c.frames = http2.NewFramer(io.Discard, c.in)
	c.frames.SetReuseFrames()
	c.frames.SetMaxReadFrameSize(l.frame)
	c.frames.MaxHeaderListSize = l.headerList
	c.frames.ReadMetaHeaders = hpack.NewDecoder(l.decoderTable, nil)
	c.out.Init(connection, &c.mu, l.write, func(send func()) { s.workers.run(sending(send)) }, c.fail)
	c.out.LimitTable(l.encoderTable)
	c.greet()
	return c
}

// arrivals reads from the network. It is asked only when all that has come was used, which is the time to start handlers.
type arrivals conn

// Read reads what comes next, after what has come so far was handed on.
func (a *arrivals) Read(p []byte) (int, error) {
	c := (*conn)(a)
	c.settle()
	if c.unread > blockBytes {
		return 0, errFlood
	}
	if c.unread > 0 {
		c.waitForRest()
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

// waitForRest has the connection end if the rest of a frame, or of a header in several, does not come in time.
func (c *conn) waitForRest() {
	if c.waiting {
		return
	}
	c.waiting = true
	c.begun.Store(max(c.heard.Load(), 1))
	c.mu.Lock()
	c.lookAgainBy(time.Now().Add(c.limits.frameTime))
	c.mu.Unlock()
}

// settle starts the handlers of what has arrived, and has answers to the peer written that nobody has taken along.
func (c *conn) settle() {
	for i, st := range c.ready {
		c.ready[i] = nil
		c.start(st)
	}
	c.ready = c.ready[:0]
	c.mu.Lock()
	c.out.FlushAside()
	c.mu.Unlock()
}

// start has the handler of a stream run, unless it does or the stream was reset.
func (c *conn) start(st *stream) {
	c.mu.Lock()
	started := st.started
	st.started = true
	c.mu.Unlock()
	if !started {
		c.srv.workers.run(st)
	}
}

// serve reads until the connection ends.
func (c *conn) serve() {
	defer c.close()
	c.mu.Lock()
	c.watch.idleSince = c.started
	c.lookAgainBy(c.started.Add(c.limits.preface))
	c.mu.Unlock()
	if err := c.readPreface(); err != nil {
		return
	}
	c.report(http.StateActive)
	c.report(http.StateIdle)
	for {
		frame, err := c.frames.ReadFrame()
		if err == nil {
			c.unread = c.in.Buffered()
			if c.waiting {
				c.waiting = false
				c.begun.Store(0)
			}
			err = c.take(frame)
		}
		if err != nil && !c.survives(err) {
			return
		}
	}
}

// greet sends the settings of this side, before anything else.
func (c *conn) greet() {
	l := c.limits
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Control.WriteSettings(
		http2.Setting{ID: http2.SettingMaxFrameSize, Val: l.frame},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: l.streams},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: l.headerList},
		http2.Setting{ID: http2.SettingHeaderTableSize, Val: l.decoderTable},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(l.streamWindow)},
	)
	if more := l.connWindow - framing.InitialWindow; more > 0 {
		_ = c.out.Control.WriteWindowUpdate(0, uint32(more))
	}
	c.unacknowledged++
}

func (c *conn) readPreface() error {
	got := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.in, got); err != nil {
		return err
	}
	if string(got) != http2.ClientPreface {
		c.depart(http2.ErrCodeProtocol)
		return errClosed
	}
	return nil
}

// survives deals with an error, and says whether the connection goes on.
func (c *conn) survives(err error) bool {
	var streamError http2.StreamError
	var connError http2.ConnectionError
	switch {
	case c.readErr != nil: // nobody to tell, unless the read was ended to leave
		c.mu.Lock()
		done := c.departure.done
		c.mu.Unlock()
		if done {
			c.depart(http2.ErrCodeNo)
		}
		return false
	case errors.As(err, &streamError):
		if err = c.refuseStream(streamError); err == nil {
			return true
		}
		return c.survives(err)
	case errors.As(err, &connError):
		c.depart(http2.ErrCode(connError))
	case errors.Is(err, http2.ErrFrameTooLarge):
		c.depart(http2.ErrCodeFrameSize)
	case errors.Is(err, errFlood):
		c.depart(http2.ErrCodeEnhanceYourCalm)
	default: // a frame too short for what it must have
		c.depart(http2.ErrCodeProtocol)
	}
	return false
}

// close ends all that the connection has had.
func (c *conn) close() {
	c.mu.Lock()
	c.fail(errClosed)
	if c.watch.timer != nil {
		c.watch.timer.Stop()
	}
	c.watch.over = true
	c.mu.Unlock()
	c.cancel()
	_ = c.net.Close()
}

// fail ends all streams, because nothing can be written any more. c.mu is held.
func (c *conn) fail(err error) {
	if c.dead != nil {
		return
	}
	c.dead = err
	for _, st := range c.streams {
		c.abort(st, err, true)
	}
	c.out.Close()
	_ = c.net.SetReadDeadline(longAgo) // the reader sees it and ends
}

// report tells the hook of the http.Server, to which net/http itself reports that a connection is new and that it is closed.
func (c *conn) report(state http.ConnState) {
	if hook := c.srv.http.ConnState; hook != nil {
		hook(c.net, state)
	}
}
