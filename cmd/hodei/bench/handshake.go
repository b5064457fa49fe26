package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// greeting is how a client of HTTP/2 begins: the preface, and settings that say nothing.
const greeting = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// shake makes one full handshake, and waits for the server's first bytes: only then it has checked the client's certificate.
func shake(address string, security *tls.Config) error {
	c, err := tls.Dial("tcp", address, security) //nolint:noctx // the other end is on this machine
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the handshake is what counts
	if _, err := io.WriteString(c, greeting); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, 9))
	return err
}

// goHandshakes measures how many handshakes a second crypto/tls makes with itself, both ends in this process.
func goHandshakes(client, server *tls.Config, dialers int, d time.Duration) (float64, error) {
	listener, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		return 0, err
	}
	var serving errgroup.Group
	serving.Go(func() error {
		for {
			c, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			if err != nil {
				return err
			}
			serving.Go(func() error { return greet(c) })
		}
	})
	shook, err := repeat(context.Background(), dialers, d, func() error { return shake(listener.Addr().String(), client) })
	return shook.rate, errors.Join(err, listener.Close(), serving.Wait())
}

// greet answers a client as a server of HTTP/2 begins.
func greet(c net.Conn) error {
	defer c.Close() //nolint:errcheck // the handshake is what counts
	if _, err := io.ReadFull(c, make([]byte, len(greeting))); err != nil {
		return err
	}
	if _, err := io.WriteString(c, greeting[len(greeting)-9:]); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, c)
	return err
}

// pace is how often something was done.
type pace struct {
	n    int64
	rate float64 // a second
}

// repeat does something again and again, in several goroutines.
func repeat(ctx context.Context, goroutines int, d time.Duration, do func() error) (pace, error) {
	group, ctx := errgroup.WithContext(ctx)
	var n atomic.Int64
	begin := time.Now()
	for range goroutines {
		group.Go(func() error {
			for time.Since(begin) < d && ctx.Err() == nil {
				if err := do(); err != nil {
					return err
				}
				n.Add(1)
			}
			return ctx.Err()
		})
	}
	err := group.Wait()
	return pace{n.Load(), float64(n.Load()) / time.Since(begin).Seconds()}, err
}
