package identity

import (
	"crypto/tls"
	"net"
	"testing"
)

// BenchmarkHandshake is a connection of an agent with its certificate, over memory: both sides together.
func BenchmarkHandshake(b *testing.B) {
	now := newClock()
	a := openAuthority(b, b.TempDir(), now.Now)
	server, client := a.ServerTLS(nil), trusting(b, a, now.Now, agent(b, a))
	b.ReportAllocs()
	for b.Loop() {
		serverConn, clientConn := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- tls.Server(serverConn, server).HandshakeContext(b.Context()) }()
		if err := tls.Client(clientConn, client).HandshakeContext(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		_, _ = serverConn.Close(), clientConn.Close()
	}
}
