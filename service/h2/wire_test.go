package h2

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

// wireEnd is one end of two wires.
type wireEnd struct {
	in, out         *wire
	readBy, writeBy deadline
	writes          int
}

// newWires are both ends of a connection; each direction holds some bytes.
func newWires(toServer, toClient int) (server, client *wireEnd) {
	a, b := newWire(toServer), newWire(toClient)
	return &wireEnd{in: a, out: b}, &wireEnd{in: b, out: a}
}

func (e *wireEnd) Read(p []byte) (int, error) {
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

func (e *wireEnd) Write(p []byte) (int, error) {
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

// written is how often was written.
func (e *wireEnd) written() int {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	return e.writes
}

// takeAll is what has come, without waiting.
func (e *wireEnd) takeAll() (p []byte, ended bool) {
	w := e.in
	w.mu.Lock()
	defer w.mu.Unlock()
	p, w.bytes = w.bytes, nil
	w.change.Broadcast()
	return p, w.closed
}

func (e *wireEnd) CloseWrite() error {
	e.out.mu.Lock()
	defer e.out.mu.Unlock()
	e.out.closed = true
	e.out.change.Broadcast()
	return nil
}

func (e *wireEnd) Close() error {
	_ = e.CloseWrite()
	e.in.mu.Lock()
	e.in.broken = true
	e.in.change.Broadcast()
	e.in.mu.Unlock()
	return e.SetDeadline(time.Time{})
}

func (e *wireEnd) SetReadDeadline(at time.Time) error  { e.readBy.set(e.in, at); return nil }
func (e *wireEnd) SetWriteDeadline(at time.Time) error { e.writeBy.set(e.out, at); return nil }
func (e *wireEnd) SetDeadline(at time.Time) error {
	e.readBy.set(e.in, at)
	e.writeBy.set(e.out, at)
	return nil
}

func (e *wireEnd) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (e *wireEnd) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 55555} }
