// Package gate stands before a TLS server: it bounds how many connections there are, in all and from one address, and how many are
// still making their handshake. Whoever is beyond a limit is refused at once, before the server has done any work for them.
//
// A connection costs a goroutine and memory only from the moment its handshake begins. Until then it waits in a line of its
// address, and the addresses take turns: one of them cannot keep the others out.
package gate

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits bound the connections of a server. Every zero field has the default that is named beside it.
type Limits struct {
	Connections int // in all; 20,000
	PerAddress  int // from one address; 16,000, since thousands of agents may be behind one
	// Strangers is how many connections from one address may be open of those that have shown no client certificate; 256.
	Strangers int
	// Waiting is how many connections from one address may wait for their handshake, or be making it; 1,000.
	Waiting int
	// Handshakes is how many are made at the same time, and for one address at most an eighth of them; 512.
	Handshakes    int
	HandshakeTime time.Duration // from the beginning of a connection; 5 s
}

// WithDefaults returns the limits with the defaults in the place of zeros.
func (l Limits) WithDefaults() Limits {
	for field, usual := range map[*int]int{
		&l.Connections: 20_000, &l.PerAddress: 16_000, &l.Strangers: 256, &l.Waiting: 1000, &l.Handshakes: 512,
	} {
		if *field <= 0 {
			*field = usual
		}
	}
	if l.HandshakeTime <= 0 {
		l.HandshakeTime = 5 * time.Second
	}
	return l
}

// share is how many handshakes one address may make at the same time.
func (l *Limits) share() int { return max(l.Handshakes/8, 1) }

// Gate is a net.Listener whose connections are *tls.Conn with their handshakes made. Make it with New.
type Gate struct {
	inner    net.Listener
	tls      *tls.Config
	limits   Limits
	refusals refusals

	accepted chan acceptance
	closing  chan struct{}
	start    sync.Once

	mu        sync.Mutex
	closed    bool
	open      int // connections
	shaking   int // of these, in their handshake
	addresses map[netip.Prefix]*address
	turns     []*address               // that have somebody waiting and a share left, in turn
	pending   map[*connection]struct{} // in their handshake
}

// acceptance is what Accept returns.
type acceptance struct {
	conn net.Conn
	err  error
}

// New puts a gate before a listener. refused, which may be nil, is told of every connection that was refused, and of every
// handshake that came to nothing; it is called from any goroutine and must not wait. The log says at most every ten seconds that
// some were.
func New(inner net.Listener, security *tls.Config, limits Limits, refused func(Reason), logger *slog.Logger) *Gate {
	return &Gate{
		inner: inner, tls: security, limits: limits.WithDefaults(), refusals: refusals{count: refused, logger: logger},
		accepted: make(chan acceptance), closing: make(chan struct{}),
		addresses: make(map[netip.Prefix]*address), pending: make(map[*connection]struct{}),
	}
}

// Accept returns the next connection whose handshake was made.
func (g *Gate) Accept() (net.Conn, error) {
	g.start.Do(func() { go g.acceptAll() })
	select {
	case a := <-g.accepted:
		return a.conn, a.err
	case <-g.closing:
		return nil, net.ErrClosed
	}
}

// acceptAll lets connections in until the listener is closed. The caller of Accept is told of errors, and that it comes again
// after a pause gives this goroutine the same pause.
func (g *Gate) acceptAll() {
	for {
		c, err := g.inner.Accept()
		if err == nil {
			g.admit(c)
			continue
		}
		if !g.hand(acceptance{err: err}) || errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// hand gives something to the caller of Accept; false: the gate is closed.
func (g *Gate) hand(a acceptance) bool {
	select {
	case g.accepted <- a:
		return true
	case <-g.closing:
		return false
	}
}

// Close closes the listener, and the connections that Accept has not returned.
func (g *Gate) Close() error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.closed = true
	close(g.closing)
	var left []*connection
	for c := range g.pending {
		left = append(left, c)
	}
	for _, a := range g.addresses {
		left = append(left, a.line...)
		a.line = nil
	}
	g.turns = nil
	g.mu.Unlock()
	for _, c := range left {
		_ = c.Close()
	}
	return g.inner.Close()
}

// Addr is the listener's address.
func (g *Gate) Addr() net.Addr { return g.inner.Addr() }
