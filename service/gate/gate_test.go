package gate

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	certificate() // with the real clock
	synctest.Test(t, f)
}

func TestConnectionsThroughTheGate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, Limits{})
		for _, certificates := range [][]tls.Certificate{nil, {certificate()}} {
			c, err := w.dial("192.0.2.1", certificates...)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			server := w.served[len(w.served)-1].(*tls.Conn)
			if got := len(server.ConnectionState().PeerCertificates); got != len(certificates) {
				t.Fatalf("the server sees %d certificates", got)
			}
			time.Sleep(time.Hour) // the deadline of the handshake must be gone
			go func() { _, _ = io.WriteString(c, "hello") }()
			got := make([]byte, 5)
			if _, err := io.ReadFull(server, got); err != nil || string(got) != "hello" {
				t.Fatalf("read %q, %v", got, err)
			}
		}
		if len(w.refused) != 0 {
			t.Fatalf("refused: %v", w.refused)
		}
	})
}

// Hundreds that connect and say nothing: each has an end after the time of a handshake, at most a share is served at a time, and
// others come in meanwhile as if nothing were.
func TestHalfOpenHandshakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, Limits{Handshakes: 80, Waiting: 400})
		var silent []net.Conn
		for range 500 {
			silent = append(silent, w.connect("192.0.2.66"))
		}
		synctest.Wait()
		if w.gate.shaking != 10 {
			t.Fatalf("%d handshakes of one address are under way, want its share of 10", w.gate.shaking)
		}
		if n := w.refusedNow(TooManyWaiting); n != 100 || !ended(silent[400]) || !ended(silent[499]) {
			t.Fatalf("%d were refused at once, want 100", n)
		}
		for i := range 20 {
			start := time.Now()
			if _, err := w.dial(fmt.Sprintf("192.0.2.%d", i), certificate()); err != nil {
				t.Fatalf("another one could not connect: %v", err)
			}
			if waited := time.Since(start); waited > time.Second {
				t.Fatalf("another one had to wait %v", waited)
			}
		}
		time.Sleep(5*time.Second + time.Millisecond)
		if n := w.refusedNow(HandshakeLate); n != 400 {
			t.Fatalf("%d were cut off for lateness, want 400", n)
		}
		for i, c := range silent {
			if !ended(c) {
				t.Fatalf("the silent connection %d is still open", i)
			}
		}
		if n := strings.Count(w.log.String(), "connections were refused"); n != 1 {
			t.Fatalf("the log says %d times that connections were refused", n)
		}
		w.connect("192.0.2.66")
		time.Sleep(10 * time.Second)
		if n := strings.Count(w.log.String(), "since_last_said="); n != 2 || !strings.Contains(w.log.String(), "since_last_said=500 ") {
			t.Fatalf("the log is\n%s", w.log)
		}
	})
}

// A client that sends its part of a handshake byte by byte has no more time than others.
func TestSlowHandshake(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, Limits{})
		c := w.connect("192.0.2.66")
		start := time.Now()
		for _, b := range []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on") {
			if _, err := c.Write([]byte{b}); err != nil {
				break
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(start); !ended(c) || d > 6*time.Second || w.refusedNow(HandshakeLate) != 1 {
			t.Fatalf("it was still served after %v: %v", d, w.refused)
		}
	})
}

func TestLimits(t *testing.T) {
	cases := []struct {
		name   string
		limits Limits
		proven bool
		from   func(i int) string
		room   int
		reason Reason
	}{
		{"in all", Limits{Connections: 5}, true, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, 5, TooMany},
		{"of one address", Limits{PerAddress: 4}, true, func(int) string { return "192.0.2.1" }, 4, TooManyOfAddress},
		{"strangers of one address", Limits{Strangers: 3}, false, func(int) string { return "192.0.2.1" }, 3, TooManyStrangers},
		{"of one /64", Limits{PerAddress: 4}, true, func(i int) string { return fmt.Sprintf("2001:db8::%d", i) }, 4, TooManyOfAddress},
		{"of one address in two forms", Limits{PerAddress: 4}, true, func(i int) string { return []string{"192.0.2.1", "::ffff:192.0.2.1"}[i%2] }, 4, TooManyOfAddress},
		{"strangers of many addresses", Limits{Strangers: 3}, false, func(i int) string { return fmt.Sprintf("2001:db8:0:%d::", i) }, 20, ""},
		{"with certificates", Limits{Strangers: 3}, true, func(int) string { return "192.0.2.1" }, 20, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, c.limits)
				var certificates []tls.Certificate
				if c.proven {
					certificates = append(certificates, certificate())
				}
				for round := range 3 { // when they have left there is room again
					for i := range 20 {
						if _, err := w.dial(c.from(i), certificates...); (err == nil) != (i < c.room) {
							t.Fatalf("round %d, connection %d: %v", round, i, err)
						}
					}
					if n := w.servedNow(); n != c.room {
						t.Fatalf("%d are served, want %d", n, c.room)
					}
					if n := w.refusedNow(c.reason); c.reason != "" && n != (round+1)*(20-c.room) {
						t.Fatalf("%d were refused in round %d", n, round)
					}
					w.closeServed()
				}
			})
		})
	}
}

// Strangers do not keep those out who have a certificate.
func TestStrangersAndOthersOfOneAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, Limits{Strangers: 2})
		for range 10 {
			_, _ = w.dial("192.0.2.1")
		}
		for range 50 {
			if _, err := w.dial("192.0.2.1", certificate()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestClosing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWorld(t, Limits{Handshakes: 8})
		var open []net.Conn
		for range 10 {
			open = append(open, w.connect("192.0.2.1"))
		}
		served, err := w.dial("192.0.2.2", certificate())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.gate.Close(); err != nil {
			t.Fatal(err)
		}
		for i, c := range open {
			if !ended(c) {
				t.Fatalf("connection %d is open", i)
			}
		}
		if ended(served) {
			t.Fatal("closing the gate has ended a connection that is served")
		}
		if _, err := w.gate.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if err := w.gate.Close(); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if len(w.refused) > 0 {
			t.Fatalf("who was closed by the server counts as refused: %v", w.refused)
		}
	})
}

// A listener that fails for a while, as when there are no file descriptors: the caller of Accept is told, and it goes on.
func TestErrorsOfTheListener(t *testing.T) {
	bubble(t, func(t *testing.T) {
		inner := newWires()
		g := New(inner, serverTLS(), Limits{}, nil, nil)
		broken := errors.New("no file descriptors")
		inner.conns <- broken
		if _, err := g.Accept(); !errors.Is(err, broken) {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		inner.conns <- &pipe{Conn: near, from: &net.UnixAddr{}}
		go func() { _ = tls.Client(far, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context()) }()
		c, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		_ = g.Close()
	})
}

func TestWhatIsNoTLS(t *testing.T) {
	for said, answered := range map[string]bool{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n": true, "POST /hodei HTTP/1.1\r\n\r\n": true, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": false,
		"SSH-2.0-OpenSSH\r\n": false, strings.Repeat("\x00", 1000): false, strings.Repeat("\xff", 1000): false,
	} {
		t.Run(fmt.Sprintf("%.10q", said), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWorld(t, Limits{})
				c := w.connect("192.0.2.1")
				go func() { _, _ = io.WriteString(c, said) }()
				got, _ := io.ReadAll(c)
				if strings.Contains(string(got), "400 Bad Request") != answered || w.servedNow() != 0 || w.refusedNow(HandshakeFailed) != 1 {
					t.Fatalf("the answer is %q, %v", got, w.refused)
				}
			})
		})
	}
}

// Whatever happens in whatever order, the limits hold, and at the end nothing is left.
func TestLimitsAlwaysHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		limits := Limits{Connections: 30, PerAddress: 10, Strangers: 4, Waiting: 6, Handshakes: 16}
		w := newWorld(t, limits)
		random := rand.New(rand.NewPCG(1, 2))
		for range 1000 {
			from := fmt.Sprintf("192.0.2.%d", random.IntN(5)*random.IntN(2))
			switch random.IntN(6) {
			case 0:
				go func() { _, _ = w.dial(from, certificate()) }()
			case 1:
				go func() { _, _ = w.dial(from) }()
			case 2:
				c := w.connect(from)
				time.AfterFunc(time.Duration(random.IntN(8000))*time.Millisecond, func() { _ = c.Close() })
			case 3:
				time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
			default:
				w.mu.Lock()
				if n := len(w.served); n > 0 {
					i := random.IntN(n)
					go w.served[i].Close() // it waits for a peer that may not read
					w.served[i], w.served = w.served[n-1], w.served[:n-1]
				}
				w.mu.Unlock()
			}
			w.gate.check(t)
		}
		for _, r := range []Reason{TooMany, TooManyOfAddress, TooManyStrangers, TooManyWaiting, HandshakeLate} {
			if w.refusedNow(r) == 0 {
				t.Errorf("nobody was refused for %q, so the test shows less than it should", r)
			}
		}
		time.Sleep(2 * time.Minute)
	})
}

// check ends the test if a count is wrong or beyond its limit.
func (g *Gate) check(t *testing.T) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	open, shaking := 0, 0
	for _, a := range g.addresses {
		open, shaking = open+a.open, shaking+a.shaking
		if a.open < 1 || a.open > g.limits.PerAddress || a.strangers > g.limits.Strangers ||
			len(a.line)+a.shaking > g.limits.Waiting || a.shaking > g.limits.share() || a.strangers+a.shaking+len(a.line) > a.open {
			t.Fatalf("an address has %d connections, %d of them strangers, %d waiting, %d in their handshake", a.open, a.strangers, len(a.line), a.shaking)
		}
		if len(a.line) > 0 && a.shaking < g.limits.share() && !a.inTurn {
			t.Fatal("connections wait and nobody thinks of them")
		}
	}
	if open != g.open || shaking != g.shaking || shaking != len(g.pending) || open > g.limits.Connections || shaking > g.limits.Handshakes {
		t.Fatalf("%d connections are counted as %d, %d handshakes as %d", open, g.open, shaking, g.shaking)
	}
}
