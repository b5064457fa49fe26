package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A few frames after a quiet time go at once, many are frameTime apart, and the end of the session does not wait.
func TestPaceHoldsBackOnlyWhoIsBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := pace{every: frameTime}
		for range 3 { // three jobs with a pause between them
			start := time.Now()
			for range burst {
				p.gather(t.Context())
			}
			if waited := time.Since(start); waited != 0 {
				t.Errorf("a short job waited for %v", waited)
			}
			time.Sleep(burst * frameTime)
		}
		start := time.Now()
		for range burst + 100 {
			p.gather(t.Context())
		}
		if took := time.Since(start); took != 100*frameTime {
			t.Errorf("%d frames took %v", burst+100, took)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		start = time.Now()
		p.gather(over)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the end waited for %v", waited)
		}
	})
}
