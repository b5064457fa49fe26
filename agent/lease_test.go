package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLeaseRunsOutBeforeTheServersDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLease()
		fenced := make(chan time.Duration, 100)
		start := time.Now()
		go l.guard(t.Context(), func() { fenced <- time.Since(start) })
		for range 20 { // renewed in time, nothing happens for longer than a lease
			time.Sleep(5 * time.Second)
			l.ask()
			l.answered()
		}
		synctest.Wait()
		if len(fenced) != 0 {
			t.Fatalf("fenced after %v although the server was heard", <-fenced)
		}
		if at := <-fenced; at != 112*time.Second {
			t.Errorf("the server last answered at 100 s of a lease of 15 s; fenced at %v", at)
		}
		l.ask()
		l.answered()
		l.set(4 * time.Second) // a shorter lease counts at once
		before := time.Since(start)
		for len(fenced) > 0 {
			<-fenced
		}
		if at := <-fenced; at-before > 4*time.Second {
			t.Errorf("with a lease of 4 s fenced after %v", at-before)
		}
	})
}

// What counts is when a heartbeat was sent, not when its answer came: the server may have heard nothing since.
func TestLeaseCountsFromWhenTheHeartbeatWasSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLease()
		l.ask()
		time.Sleep(10 * time.Second)
		l.ask()
		l.answered() // late
		l.answered() // at once
		l.answered() // to nothing
		time.Sleep(time.Second)
		if left := l.left(); left != 11*time.Second {
			t.Errorf("one second after a heartbeat that was answered %v are left of 15 less 3", left)
		}
		l.ask()
		l.begin() // its answer will never come
		l.answered()
		time.Sleep(time.Second)
		if left := l.left(); left != 10*time.Second {
			t.Errorf("an answer without a question left %v", left)
		}
	})
}
