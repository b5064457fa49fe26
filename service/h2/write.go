package h2

import (
	"sync"
	"time"
)

// roundsOfOthers is how often a handler that writes goes on with what others have put there meanwhile.
const roundsOfOthers = 2

// outbox takes frames that are to be sent. conn.mu is held.
type outbox conn

// Write keeps a control frame until it is sent; it does not fail.
func (o *outbox) Write(frame []byte) (int, error) {
	c := (*conn)(o)
	if c.dead == nil {
		c.answers++
		out := c.outgoing(len(frame))
		*out = append(*out, frame...)
	}
	return len(frame), nil
}

// outgoing is the buffer of what is to be sent, with room for n more bytes. c.mu is held.
func (c *conn) outgoing(n int) *[]byte {
	switch {
	case c.out == nil:
		c.out = getBuffer(n)
	case len(*c.out)+n > cap(*c.out):
		c.out = largerBuffer(c.out, n)
	}
	return c.out
}

// sender is a worker that writes what is there.
type sender conn

func (s *sender) run(*scratch) {
	c := (*conn)(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sendAll(-1)
}

// leaver is a worker that begins to leave.
type leaver conn

func (l *leaver) run(*scratch) { (*conn)(l).leave() }

// flush writes what is there, unless somebody is writing: they will take it along. c.mu is held, but not while writing.
func (c *conn) flush() {
	if !c.sending && c.out != nil {
		c.sending = true
		c.sendAll(roundsOfOthers)
	}
}

// sendAll writes until nothing is left, or hands on to a worker after some rounds. c.mu is held, but not while writing.
func (c *conn) sendAll(rounds int) {
	for ; c.out != nil && c.dead == nil; rounds-- {
		if rounds == 0 {
			c.srv.workers.run((*sender)(c))
			return
		}
		buffer := c.out
		c.out, c.answers = nil, 0
		hurry := c.departure.done
		c.room.Broadcast()
		c.mu.Unlock()
		err := c.write(*buffer, hurry)
		putBuffer(buffer)
		c.mu.Lock()
		if err != nil {
			c.fail(err)
		}
	}
	c.sending = false
	c.room.Broadcast()
	if c.dead != nil && c.out != nil {
		putBuffer(c.out)
		c.out = nil
	}
}

// write writes p in pieces of which each has the whole time: a slow peer is no dead one.
func (c *conn) write(p []byte, hurry bool) error {
	for len(p) > 0 {
		n := min(len(p), frameSize)
		c.setWriteDeadline(hurry)
		if _, err := c.net.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// setWriteDeadline moves the deadline only when an eighth of the time is gone, since moving it costs something.
func (c *conn) setWriteDeadline(hurry bool) {
	limit := c.srv.limits.write
	if hurry && (limit <= 0 || limit > lingerTime) {
		limit = lingerTime
	}
	if limit <= 0 {
		return
	}
	now := time.Now()
	if hurry || c.writeUntil.Sub(now) < limit-limit/8 {
		c.writeUntil = now.Add(limit)
		_ = c.net.SetWriteDeadline(c.writeUntil)
	}
}

// Buffers are kept by size, so that what waits takes about as much memory as it needs.
const (
	smallestBuffer = 10 // bits
	largestBuffer  = 18
)

var buffers [largestBuffer + 1]sync.Pool

// getBuffer returns an empty buffer with room for at least n bytes.
func getBuffer(n int) *[]byte {
	bits := smallestBuffer
	for n > 1<<bits && bits < largestBuffer {
		bits++
	}
	if b, ok := buffers[bits].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, max(n, 1<<bits))
	return &b
}

// largerBuffer moves a buffer's content to one that has room for n more bytes.
func largerBuffer(b *[]byte, n int) *[]byte {
	larger := getBuffer(max(2*cap(*b), len(*b)+n))
	*larger = append(*larger, *b...)
	putBuffer(b)
	return larger
}

// putBuffer takes a buffer back that nobody uses any more.
func putBuffer(b *[]byte) {
	bits := largestBuffer
	for bits >= smallestBuffer && cap(*b) < 1<<bits {
		bits--
	}
	if bits < smallestBuffer || cap(*b) > 2<<largestBuffer {
		return
	}
	*b = (*b)[:0]
	buffers[bits].Put(b)
}
