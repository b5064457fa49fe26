package hodei

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// A client that has never reached its server gives up at once, because the address is likely wrong; one that has, waits for
// the server to come back, also when the first call after a pause meets nobody.
func TestServerThatWasReachedIsWaitedFor(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	reset := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNRESET)}
	c := &Client{transport: &transport{}}
	for _, err := range []error{refused, reset} {
		if !c.hopeless(err, 0) {
			t.Errorf("a server that was never reached is called again after %v", err)
		}
	}
	c.transport.reached.Store(true)
	for _, err := range []error{refused, reset, syscall.EPIPE} {
		if c.hopeless(err, 0) || c.hopeless(err, 100) {
			t.Errorf("a server that was reached before is given up after %v", err)
		}
	}
	if !c.hopeless(errors.New("something else"), 0) {
		t.Error("any error is taken for one that passes")
	}
}
