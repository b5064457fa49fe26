package gate

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// address is what is known of one that has connections. Gate.mu guards it.
type address struct {
	origin    netip.Prefix
	open      int // connections, whatever they do
	strangers int // of these, without a client certificate
	shaking   int // of these, in their handshake
	line      []*connection
	inTurn    bool // it is in Gate.turns
}

// connection is a connection that counts until it is closed.
type connection struct {
	net.Conn
	gate     *Gate
	address  *address
	since    time.Time
	stranger bool
	closing  sync.Once
}

// Close closes the connection, which counts no more then.
func (c *connection) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		err = c.Conn.Close()
		c.gate.release(c)
	})
	return err
}

// drop ends a connection of which nobody should know any more: the network keeps nothing of it either.
func (c *connection) drop() {
	reset(c.Conn)
	_ = c.Close()
}

// reset has a connection end without an orderly end, which would keep its place for a minute.
func reset(c net.Conn) {
	if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
}

// admit puts a new connection in its line, or refuses it.
func (g *Gate) admit(c net.Conn) {
	origin := originOf(c.RemoteAddr())
	g.mu.Lock()
	reason := g.refuses(origin)
	if reason == none {
		a := g.addresses[origin]
		if a == nil {
			a = &address{origin: origin}
			g.addresses[origin] = a
		}
		g.open++
		a.open++
		a.line = append(a.line, &connection{Conn: c, gate: g, address: a, since: time.Now()})
		g.takeTurn(a)
	}
	late := g.next()
	g.mu.Unlock()
	g.dropAll(late)
	if reason != none {
		reset(c)
		_ = c.Close()
		g.refusals.add(reason, origin)
	}
}

// refuses says why there is no room for a connection, if there is none. g.mu is held.
func (g *Gate) refuses(origin netip.Prefix) Reason {
	a := g.addresses[origin]
	switch {
	case g.closed:
		return closing
	case g.open >= g.limits.Connections:
		return TooMany
	case a == nil:
		return none
	case a.open >= g.limits.PerAddress:
		return TooManyOfAddress
	case len(a.line)+a.shaking >= g.limits.Waiting:
		return TooManyWaiting
	}
	return none
}

// release forgets a connection that was closed.
func (g *Gate) release(c *connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a := c.address
	g.open--
	a.open--
	if c.stranger {
		a.strangers--
	}
	if a.open == 0 {
		delete(g.addresses, a.origin)
	}
}

// originOf is the address by which a connection counts. All that have none of the internet count as one.
func originOf(remote net.Addr) netip.Prefix {
	if tcp, ok := remote.(*net.TCPAddr); ok {
		return ratelimit.Origin(tcp.AddrPort().Addr())
	}
	return netip.Prefix{}
}
