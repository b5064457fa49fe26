package h2

import "time"

// watch is the clock of a connection: one timer for all that may take too long. conn.mu guards it.
type watch struct {
	timer     *time.Timer
	at        time.Time // when the timer fires; zero: it does not
	over      bool
	idleSince time.Time // of use when nothing runs
	pinged    time.Time // when the peer was asked for a sign of life; zero: it was not
}

// lookAgainBy has look called at a time, or earlier. c.mu is held.
func (c *conn) lookAgainBy(at time.Time) {
	w := &c.watch
	if w.over || at.IsZero() || !w.at.IsZero() && !at.Before(w.at) {
		return
	}
	w.at = at
	if w.timer == nil {
		w.timer = time.AfterFunc(time.Until(at), c.look)
		return
	}
	w.timer.Reset(time.Until(at))
}

// becomeIdle is called when the last stream has ended. c.mu is held.
func (c *conn) becomeIdle() {
	if c.departure.final {
		c.stopReading()
	}
	c.watch.idleSince = time.Now()
	if limit := c.limits.idle; limit > 0 {
		c.lookAgainBy(c.watch.idleSince.Add(limit))
	}
}

// look ends what takes too long.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watch.at = time.Time{}
	if c.watch.over || c.dead != nil || c.departure.done {
		return
	}
	now := time.Now()
	if !c.greeted {
		if by := c.started.Add(c.limits.preface); now.Before(by) {
			c.lookAgainBy(by)
		} else {
			c.fail(errClosed)
		}
		return
	}
	if !c.lookForRest(now) {
		c.fail(errClosed)
		return
	}
	c.lookForBodies(now)
	c.lookForIdle(now)
	c.lookForLife(now)
	c.out.Flush()
}

// lookForRest says whether there is time for the rest of a frame. c.mu is held.
func (c *conn) lookForRest(now time.Time) bool {
	begun := c.begun.Load()
	if begun == 0 {
		return true
	}
	by := c.started.Add(time.Duration(begun) + c.limits.frameTime)
	c.lookAgainBy(by)
	return now.Before(by)
}

// lookForBodies starts the handlers that have waited long enough for small bodies, which get an error in the place of the rest.
// c.mu is held.
func (c *conn) lookForBodies(now time.Time) {
	for _, st := range c.streams {
		if st.handed || st.started {
			continue
		}
		if by := c.bodyBy(st); now.Before(by) {
			c.lookAgainBy(by)
			continue
		}
		st.body.end(errDeadline)
		st.started = true
		c.srv.workers.run(st)
	}
}

// bodyBy is until when a stream may wait for a small body.
func (c *conn) bodyBy(st *stream) time.Time { return c.started.Add(st.opened + c.limits.frameTime) }

// lookForIdle lets an idle peer leave, and tells a leaving one the last stream though it did not answer. c.mu is held.
func (c *conn) lookForIdle(now time.Time) {
	switch {
	case c.departure.final:
	case c.departure.announced:
		if now.Before(c.departure.finalBy) {
			c.lookAgainBy(c.departure.finalBy)
			return
		}
		c.finalize()
	case c.running == 0 && c.limits.idle > 0:
		by := c.watch.idleSince.Add(c.limits.idle)
		if now.Before(by) {
			c.lookAgainBy(by)
			return
		}
		c.finalize()
	}
}

// lookForLife asks a silent peer for a sign of life, and gives up one that gave none. c.mu is held.
func (c *conn) lookForLife(now time.Time) {
	l := c.limits
	if l.pingAfter <= 0 {
		return
	}
	heard := c.started.Add(time.Duration(c.heard.Load()))
	if !heard.Before(c.watch.pinged) {
		c.watch.pinged = time.Time{}
	}
	switch {
	case !c.watch.pinged.IsZero():
		if by := c.watch.pinged.Add(l.pingTimeout); now.Before(by) {
			c.lookAgainBy(by)
		} else {
			c.fail(errClosed)
		}
	case now.Before(heard.Add(l.pingAfter)):
		c.lookAgainBy(heard.Add(l.pingAfter))
	default:
		_ = c.out.Control.WritePing(false, [8]byte{})
		c.watch.pinged = now
		c.lookAgainBy(now.Add(l.pingTimeout))
	}
}
