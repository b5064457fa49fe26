// Package wiretest is a connection in memory for tests of HTTP/2, and what an end of it says frame by frame.
package wiretest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// wire is one direction of a connection in memory. It holds some bytes, like a socket's buffer.
type wire struct {
	mu     sync.Mutex
	change sync.Cond
	bytes  []byte
	limit  int
	closed bool // nothing more will be written
	broken bool // nobody reads
}

func newWire(limit int) *wire {
	w := &wire{limit: limit}
	w.change.L = &w.mu
	return w
}

// deadline wakes who waits on a wire.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(w *wire, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), w.wake)
	}
	w.change.Broadcast()
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (w *wire) wake() {
	w.mu.Lock()
	w.change.Broadcast()
	w.mu.Unlock()
}

// End is one end of two wires.
type End struct {
	in, out         *wire
	readBy, writeBy deadline
	writes          int
}

// New are both ends of a connection; each direction holds some bytes.
func New(toServer, toClient int) (server, client *End) {
	a, b := newWire(toServer), newWire(toClient)
	return &End{in: a, out: b}, &End{in: b, out: a}
}

// Read waits for bytes of the other end, until the deadline.
func (e *End) Read(p []byte) (int, error) {
	w := e.in
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.broken:
			return 0, net.ErrClosed
		case e.readBy.over():
			return 0, os.ErrDeadlineExceeded
		case len(w.bytes) > 0:
			n := copy(p, w.bytes)
			w.bytes = w.bytes[n:]
			w.change.Broadcast()
			return n, nil
		case w.closed:
			return 0, io.EOF
		}
		w.change.Wait()
	}
}

// Write waits until all bytes are on the wire, until the deadline.
func (e *End) Write(p []byte) (int, error) {
	w := e.out
	w.mu.Lock()
	defer w.mu.Unlock()
	e.writes++
	written := 0
	for len(p) > 0 {
		switch {
		case w.closed:
			return written, net.ErrClosed
		case w.broken:
			return written, io.ErrClosedPipe
		case e.writeBy.over():
			return written, os.ErrDeadlineExceeded
		case len(w.bytes) < w.limit:
			n := min(len(p), w.limit-len(w.bytes))
			w.bytes = append(w.bytes, p[:n]...)
			p, written = p[n:], written+n
			w.change.Broadcast()
			continue
		}
		w.change.Wait()
	}
	return written, nil
}

// Written is how often was written.
func (e *End) Written() int {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	return e.writes
}

// takeAll is what has come, without waiting.
func (e *End) takeAll() (p []byte, ended bool) {
	w := e.in
	w.mu.Lock()
	defer w.mu.Unlock()
	p, w.bytes = w.bytes, nil
	w.change.Broadcast()
	return p, w.closed
}

// CloseWrite says that nothing more will be written; what is on the wire can still be read.
func (e *End) CloseWrite() error {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	e.out.closed = true
	e.out.change.Broadcast()
	return nil
}

// Close ends both directions; what is on the wire can still be read at the other end.
func (e *End) Close() error {
	_ = e.CloseWrite()
	e.in.mu.Lock()
	e.in.broken = true
	e.in.change.Broadcast()
	e.in.mu.Unlock()
	return e.SetDeadline(time.Time{})
}

// SetReadDeadline is as that of a net.Conn.
func (e *End) SetReadDeadline(at time.Time) error { e.readBy.set(e.in, at); return nil }

// SetWriteDeadline is as that of a net.Conn.
func (e *End) SetWriteDeadline(at time.Time) error { e.writeBy.set(e.out, at); return nil }

// SetDeadline sets both.
func (e *End) SetDeadline(at time.Time) error {
	e.readBy.set(e.in, at)
	e.writeBy.set(e.out, at)
	return nil
}

// LocalAddr is some address.
func (e *End) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// RemoteAddr is another.
func (e *End) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 55555} }
