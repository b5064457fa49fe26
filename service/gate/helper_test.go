package gate

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// wires is a listener to which the test connects without a network.
type wires struct {
	conns  chan any // net.Conn or error
	closed chan struct{}
}

func newWires() *wires { return &wires{conns: make(chan any, 1), closed: make(chan struct{})} }

func (w *wires) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		if err, ok := c.(error); ok {
			return nil, err
		}
		return c.(net.Conn), nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wires) Close() error   { close(w.closed); return nil }
func (w *wires) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7443} }

// pipe is the server's end of a connection from some address.
type pipe struct {
	net.Conn
	from net.Addr
}

func (p *pipe) RemoteAddr() net.Addr { return p.from }

// world is a gate, and a server behind it that keeps every connection until the test closes it.
type world struct {
	t       *testing.T
	gate    *Gate
	wires   *wires
	log     *lockedBuffer
	mu      sync.Mutex
	served  []net.Conn
	refused map[Reason]int
}

func newWorld(t *testing.T, limits Limits) *world {
	t.Helper()
	w := &world{t: t, wires: newWires(), refused: make(map[Reason]int), log: new(lockedBuffer)}
	w.gate = New(w.wires, serverTLS(), limits, func(r Reason) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.refused[r]++
	}, slog.New(slog.NewTextHandler(w.log, nil)))
	go func() {
		for {
			c, err := w.gate.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			w.served = append(w.served, c)
			w.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = w.gate.Close()
		w.closeServed()
		synctest.Wait()
		w.gate.mu.Lock()
		defer w.gate.mu.Unlock()
		if g := w.gate; g.open != 0 || g.shaking != 0 || len(g.addresses) != 0 || len(g.turns) != 0 || len(g.pending) != 0 {
			t.Errorf("at the end %d connections count, %d handshakes, %d addresses, %d turns", g.open, g.shaking, len(g.addresses), len(g.turns))
		}
	})
	return w
}

func (w *world) closeServed() {
	w.mu.Lock()
	served := w.served
	w.served = nil
	w.mu.Unlock()
	for _, c := range served {
		_ = c.Close()
	}
}

// servedNow is how many connections the server has got, when nothing happens any more.
func (w *world) servedNow() int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.served)
}

func (w *world) refusedNow(r Reason) int {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.refused[r]
}

// connect opens a connection and says nothing.
func (w *world) connect(from string) net.Conn {
	near, far := net.Pipe()
	w.wires.conns <- &pipe{Conn: near, from: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 1000))}
	w.t.Cleanup(func() { _ = far.Close() })
	return far
}

// dial opens a connection and makes the handshake.
func (w *world) dial(from string, certificates ...tls.Certificate) (*tls.Conn, error) {
	c := tls.Client(w.connect(from), &tls.Config{InsecureSkipVerify: true, Certificates: certificates, MinVersion: tls.VersionTLS13})
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	err := c.HandshakeContext(ctx)
	if err == nil { // TLS 1.3 tells a client of a refusal only when it reads
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err = c.Read(make([]byte, 1)); isTimeout(err) {
			err = nil
		}
		_ = c.SetReadDeadline(time.Time{})
	}
	return c, err
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error) //nolint:errorlint // crypto/tls returns it as it is
	return ok && e.Timeout()
}

// ended says whether the other end has closed a connection.
func ended(c net.Conn) bool {
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	_ = c.SetReadDeadline(time.Time{})
	return err != nil && !isTimeout(err)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// certificate is good for a server and a client, at any time.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) //nolint:forbidigo // there is no test to end
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err) //nolint:forbidigo // as above
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

func serverTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(certificate().Leaf)
	return &tls.Config{
		Certificates: []tls.Certificate{certificate()}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven,
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
	}
}
