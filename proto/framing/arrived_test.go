package framing

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// pattern is n bytes that differ from those before and after them, so that nothing is exchanged unnoticed.
func pattern(from, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte((from + i) % 251)
	}
	return p
}

// sizes are mostly small, and sometimes larger than a buffer.
func sizes() *rapid.Generator[int] {
	return rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(0, 3000), rapid.IntRange(0, 20_000))
}

// What has arrived is read as from a bytes.Buffer, and takes memory for what waits, not for all that ever came.
func TestArrivedIsAQueueOfBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a Arrived
		var want bytes.Buffer
		came, most := 0, 0
		for range rapid.IntRange(0, 80).Draw(t, "length") {
			switch rapid.SampledFrom([]string{"add", "add", "read", "read", "drop"}).Draw(t, "event") {
			case "add":
				p := pattern(came, sizes().Draw(t, "size"))
				came += len(p)
				a.Add(p)
				want.Write(p)
				clear(p) // it is the caller's again
				most = max(most, want.Len())
			case "read":
				p := make([]byte, sizes().Draw(t, "size"))
				n := a.Read(p)
				if next := want.Next(len(p)); !bytes.Equal(p[:n], next) {
					t.Fatalf("read %d bytes, want %d, or they differ", n, len(next))
				}
			case "drop":
				if n := a.Drop(); n != want.Len() {
					t.Fatalf("dropped %d bytes of %d", n, want.Len())
				}
				want.Reset()
			}
			if a.Empty() != (want.Len() == 0) {
				t.Fatalf("Empty says %t with %d bytes", a.Empty(), want.Len())
			}
			if a.data != nil && cap(*a.data) > max(2<<smallestBuffer, 8*most) {
				t.Fatalf("%d bytes of memory for at most %d", cap(*a.data), most)
			}
		}
	})
}

// A body of any length takes little memory if it is read about as fast as it comes, though there always is a rest.
func TestArrivedUsesItsMemoryAgain(t *testing.T) {
	t.Parallel()
	var a Arrived
	const step, rest = 1000, 100
	a.Add(pattern(0, rest))
	for at := rest; at < 10<<20; at += step {
		a.Add(pattern(at, step))
		p := make([]byte, step)
		if n := a.Read(p); n != step || !bytes.Equal(p, pattern(at-rest, step)) {
			t.Fatalf("read %d bytes at %d, or they differ", n, at-rest)
		}
		if n := cap(*a.data); n > 8*(step+rest) {
			t.Fatalf("after %d bytes %d are kept for %d", at, n, rest)
		}
	}
	if n := a.Drop(); n != rest || !a.Empty() || a.Drop() != 0 {
		t.Fatalf("dropped %d bytes, want %d", n, rest)
	}
}

func TestArrivedOfNothing(t *testing.T) {
	t.Parallel()
	var a Arrived
	a.Add(nil)
	if !a.Empty() || a.Read(make([]byte, 10)) != 0 || a.Drop() != 0 {
		t.Error("something has come from nothing")
	}
	a.Add([]byte("x"))
	if n := a.Read(nil); n != 0 || a.Empty() {
		t.Errorf("a read of no bytes took %d", n)
	}
}
