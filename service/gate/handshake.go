package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"time"
)

// takeTurn puts an address at the end of those whose handshakes are made next, if it may make one. g.mu is held.
func (g *Gate) takeTurn(a *address) {
	if !a.inTurn && len(a.line) > 0 && a.shaking < g.limits.share() {
		a.inTurn = true
		g.turns = append(g.turns, a)
	}
}

// next begins handshakes while some may begin. It returns the connections whose time was over before their turn came; the
// caller drops them when it has let g.mu go, which is held.
func (g *Gate) next() (late []*connection) {
	now := time.Now()
	for g.shaking < g.limits.Handshakes && len(g.turns) > 0 {
		a := g.turns[0]
		g.turns[0] = nil
		g.turns = g.turns[1:]
		a.inTurn = false
		c := a.line[0]
		a.line[0] = nil
		a.line = a.line[1:]
		if now.Sub(c.since) >= g.limits.HandshakeTime {
			late = append(late, c)
		} else {
			g.shaking++
			a.shaking++
			g.pending[c] = struct{}{}
			go g.shake(c)
		}
		g.takeTurn(a)
	}
	return late
}

func (g *Gate) dropAll(late []*connection) {
	for _, c := range late {
		c.drop()
		g.refusals.add(HandshakeLate, c.address.origin)
	}
}

// shake makes the handshake of a connection and hands it to the server.
func (g *Gate) shake(c *connection) {
	ready := tls.Server(c, g.tls)
	_ = c.SetDeadline(c.since.Add(g.limits.HandshakeTime))
	err := ready.HandshakeContext(context.Background())
	_ = c.SetDeadline(time.Time{})
	reason := g.shaken(c, ready, err)
	switch reason {
	case none:
		if !g.hand(acceptance{conn: ready}) {
			_ = ready.Close()
		}
		return
	case HandshakeFailed:
		g.refusals.logger.Debug("a handshake failed", "remote", c.RemoteAddr().String(), "error", err)
		answerPlainly(err)
		_ = c.Close() // in order, so that the other end can read why
	default:
		c.drop()
	}
	g.refusals.add(reason, c.address.origin)
}

// shaken makes room for the next handshake, and says why this one was in vain.
func (g *Gate) shaken(c *connection, ready *tls.Conn, err error) Reason {
	g.mu.Lock()
	a := c.address
	g.shaking--
	a.shaking--
	delete(g.pending, c)
	var reason Reason
	switch {
	case g.closed:
		reason = closing
	case errors.Is(err, os.ErrDeadlineExceeded):
		reason = HandshakeLate
	case err != nil:
		reason = HandshakeFailed
	case len(ready.ConnectionState().VerifiedChains) > 0:
	case a.strangers >= g.limits.Strangers:
		reason = TooManyStrangers
	default:
		c.stranger = true
		a.strangers++
	}
	g.takeTurn(a)
	late := g.next()
	g.mu.Unlock()
	g.dropAll(late)
	return reason
}

// answerPlainly tells those who speak HTTP without TLS what is wrong.
func answerPlainly(err error) {
	var header tls.RecordHeaderError
	if !errors.As(err, &header) || header.Conn == nil {
		return
	}
	switch string(header.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		_ = header.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(header.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"+
			"this port speaks TLS; use https://\n")
	}
}
