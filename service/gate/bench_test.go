package gate

import (
	"log/slog"
	"net"
	"testing"
)

// What a connection costs that is refused: over loopback, with both ends and the kernel, and what the gate itself does for it.
func BenchmarkRefusedConnection(b *testing.B) {
	b.Run("loopback", func(b *testing.B) {
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		g := New(inner, serverTLS(), Limits{Waiting: 1}, nil, slog.New(slog.DiscardHandler))
		defer g.Close()
		go func() { _, _ = g.Accept() }()
		first, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		defer first.Close()
		b.ReportAllocs()
		for b.Loop() {
			c, err := net.Dial("tcp", inner.Addr().String())
			if err == nil {
				_, _ = c.Read(make([]byte, 1))
				_ = c.Close()
			}
		}
	})
	b.Run("alone", func(b *testing.B) {
		g := New(newWires(), serverTLS(), Limits{Waiting: 1}, func(Reason) {}, slog.New(slog.DiscardHandler))
		near, far := net.Pipe()
		defer far.Close()
		defer g.Close()
		from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
		g.admit(&pipe{Conn: near, from: from})
		refused, other := net.Pipe()
		_ = other.Close()
		b.ReportAllocs()
		for b.Loop() {
			g.admit(&pipe{Conn: refused, from: from})
		}
	})
}
