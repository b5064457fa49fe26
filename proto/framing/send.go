package framing

import (
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// Empty says that nothing is to be sent.
func (o *Out) Empty() bool { return o.buffer == nil }

// Flush writes what is there, unless somebody is writing: they will take it along. It may write for others too, for a while.
func (o *Out) Flush() {
	if !o.sending && o.buffer != nil {
		o.sending = true
		o.send(rounds)
	}
}

// FlushAside is Flush for those who must not wait for the network.
func (o *Out) FlushAside() {
	if !o.sending && o.buffer != nil {
		o.sending = true
		o.aside(o.sendRest)
	}
}

func (o *Out) sendRest() {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.send(-1)
}

// send writes until nothing is left, or hands on after some rounds.
func (o *Out) send(times int) {
	for ; o.buffer != nil; times-- {
		if times == 0 {
			o.aside(o.sendRest)
			return
		}
		buffer := o.buffer
		o.buffer, o.control = nil, 0
		o.written.Broadcast()
		o.lock.Unlock()
		err := o.write(*buffer)
		PutBuffer(buffer)
		o.lock.Lock()
		if err != nil {
			o.Close()
			o.broken(err)
		}
	}
	o.sending = false
	o.written.Broadcast()
}

// write writes p in pieces of which each has the whole time: a slow peer is no dead one.
func (o *Out) write(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), FrameSize)
		o.setDeadline()
		if _, err := o.net.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// setDeadline moves the deadline when an eighth of the time is gone, since moving it costs something, or when the time is another.
func (o *Out) setDeadline() {
	for limit := time.Duration(o.limit.Load()); limit > 0; limit = time.Duration(o.limit.Load()) {
		now := time.Now()
		if limit == o.untilBy && o.until.Sub(now) >= limit-limit/8 {
			return
		}
		o.until, o.untilBy = now.Add(limit), limit
		_ = o.net.SetWriteDeadline(o.until)
	}
}

// Hurry gives what is being written and what still will be less time.
func (o *Out) Hurry(limit time.Duration) {
	if now := time.Duration(o.limit.Load()); now <= 0 || now > limit {
		o.limit.Store(int64(limit))
		_ = o.net.SetWriteDeadline(time.Now().Add(limit))
	}
}

// Drain waits until all is written, or never will be.
func (o *Out) Drain() {
	o.Flush()
	for o.sending && !o.closed {
		o.written.Wait()
	}
}

// Close drops what is not yet written, and all that is put later. Those who wait are woken.
func (o *Out) Close() {
	o.closed, o.control = true, 0
	if o.buffer != nil {
		PutBuffer(o.buffer)
		o.buffer = nil
	}
	o.Wake()
}

// Wake has those look again who wait in WaitForRoom or for a window, because their stream may have ended.
func (o *Out) Wake() {
	o.written.Broadcast()
	o.turn.Broadcast()
}

// Sender is a stream that sends data.
type Sender interface {
	// Ended is why nothing more is sent; nil: something is.
	Ended() error
	// WaitForWindow waits, without the lock, until turn is signaled: the connection's window may have opened. Where turn is nil,
	// it waits until the stream's own window may have opened, or the stream has ended.
	WaitForWindow(turn *sync.Cond)
	// Trickle is told that windows let out only a few bytes at once, which costs more than it brings.
	Trickle()
}

// WaitForRoom waits while too much waits for the network. It returns why the stream has ended, if it has.
func (o *Out) WaitForRoom(s Sender) error {
	for s.Ended() == nil && o.full() {
		if o.sending {
			o.written.Wait()
		} else {
			o.Flush()
		}
	}
	if err := s.Ended(); err != nil {
		o.passOn()
		return err
	}
	return nil
}

// full says that much waits for the network.
func (o *Out) full() bool { return o.buffer != nil && len(*o.buffer) >= backlog }

// Room is how much of n bytes PutData takes in one frame of a stream with a window, without waiting.
func (o *Out) Room(n int, window Outflow) int {
	if o.full() {
		return 0
	}
	return min(n, FrameSize, o.PeerFrame, int(max(0, min(o.Window, window))))
}

// PutData puts a piece of a stream, and waits for windows and for room in the buffer. end: it is the last. It returns why the
// stream has ended, if it has.
func (o *Out) PutData(s Sender, id uint32, window *Outflow, p []byte, end bool) error {
	for {
		if err := o.WaitForRoom(s); err != nil {
			return err
		}
		n := o.Room(len(p), *window)
		if n == 0 && len(p) > 0 {
			o.Flush()
			o.waitForWindow(s, window)
			continue
		}
		if 0 < n && n < min(len(p), smallWindow) {
			if s.Trickle(); s.Ended() != nil {
				continue
			}
		}
		o.Window -= Outflow(n)
		*window -= Outflow(n)
		o.PutFrame(http2.FrameData, endFlag(end && n == len(p)), id, p[:n])
		if p = p[n:]; len(p) == 0 {
			o.passOn()
			return nil
		}
	}
}

// waitForWindow waits if there still is no window.
func (o *Out) waitForWindow(s Sender, window *Outflow) {
	switch {
	case s.Ended() != nil || min(o.Window, *window) > 0:
	case *window > 0:
		s.WaitForWindow(&o.turn)
	default:
		o.passOn()
		s.WaitForWindow(nil)
	}
}

// Open lets the peer take n more bytes on the connection; false: that is more than a window may have.
func (o *Out) Open(n int64) bool {
	ok := o.Window.Add(n)
	o.passOn()
	return ok
}

// passOn wakes the next stream that waits for the connection's window. They wait in line, and each wakes the one behind it if
// something is left, since waking all for a window that serves a few would cost more than sending.
func (o *Out) passOn() {
	if o.Window > 0 {
		o.turn.Signal()
	}
}
