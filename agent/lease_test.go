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
			l.renew()
		}
		synctest.Wait()
		if len(fenced) != 0 {
			t.Fatalf("fenced after %v although the server was heard", <-fenced)
		}
		if at := <-fenced; at != 112*time.Second {
			t.Errorf("the server was last heard at 100 s of a lease of 15 s; fenced at %v", at)
		}
		l.renew()
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
