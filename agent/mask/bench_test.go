package mask

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// hundred is a set of a hundred secrets of the usual kinds.
func hundred() *Set {
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	s := new(Set)
	var all []Secret
	for i := range 100 {
		value := make([]byte, 12+random.IntN(12))
		for j := range value {
			value[j] = byte(random.Uint32())
		}
		all = append(all, Secret{fmt.Sprint("S", i), []byte(hex.EncodeToString(value))})
	}
	s.Add(all...)
	return s
}

// build is the output of a build, coloured or not.
func build(colours bool) []byte {
	var out bytes.Buffer
	for i := 0; out.Len() < 64<<20; i++ {
		if colours {
			fmt.Fprintf(&out, "\x1b[32m[%d/2000]\x1b[0m ", i%2000)
		}
		fmt.Fprintf(&out, "compiling src/module%d/file_%x.cc: warning: unused variable 'x%d' [-Wunused-variable] (%d ms)\n", i%77, i*2654435761, i, i%991)
	}
	return out.Bytes()
}

const chunk = 32 << 10

func benchmark(b *testing.B, s *Set, text []byte) {
	stream := s.Stream()
	sink := make([]byte, 0, 2*chunk)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		for at := 0; at < len(text); at += chunk {
			sink = append(sink[:0], stream.Write(text[at:min(at+chunk, len(text))])...)
		}
	}
}

func BenchmarkMask(b *testing.B) {
	plain, coloured := build(false), build(true)
	b.Run("no secrets", func(b *testing.B) { benchmark(b, new(Set), plain) })
	b.Run("one secret", func(b *testing.B) { benchmark(b, newSet("hunter2-secret"), plain) })
	b.Run("100 secrets", func(b *testing.B) { benchmark(b, hundred(), plain) })
	b.Run("100 secrets, coloured", func(b *testing.B) { benchmark(b, hundred(), coloured) })
	b.Run("100 secrets, no hexadecimal", func(b *testing.B) { benchmark(b, hundred(), bytes.Repeat([]byte("GHIJ KLMN\n"), len(plain)/10)) })
}

// outside is a text in which a set has nothing to look for, of all the bytes of which there may be one.
func outside(s *Set, length int) []byte {
	var letters []byte
	for b, begins := range s.matcher.Load().begins.has {
		if !begins {
			letters = append(letters, byte(b))
		}
	}
	return bytes.Repeat(letters, length/len(letters)+1)[:length]
}

// BenchmarkPassThrough compares masking and copying with copying alone, in turn and by the best of their times, where no byte of the
// text is one with which a secret begins. The text comes from memory, or, of one chunk, from the processor's caches.
func BenchmarkPassThrough(b *testing.B) {
	const total = 64 << 20
	for _, length := range []int{total, chunk} {
		for _, c := range []struct {
			name string
			set  *Set
		}{{"one secret", newSet("hunter2-secret")}, {"a long secret", newSet(strings.Repeat("a line of a key\n", 200))}, {"100 secrets", hundred()}} {
			b.Run(fmt.Sprintf("%s, %d KiB", c.name, length>>10), func(b *testing.B) {
				text, sink := outside(c.set, length), make([]byte, 0, chunk)
				pass := func(stream *Stream) float64 {
					began := time.Now()
					for range total / length {
						for at := 0; at < length; at += chunk {
							sink = append(sink[:0], stream.Write(text[at:at+chunk])...)
						}
					}
					return total / 1e6 / time.Since(began).Seconds()
				}
				copied, masked := 0.0, 0.0
				for b.Loop() {
					copied, masked = max(copied, pass(new(Set).Stream())), max(masked, pass(c.set.Stream()))
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(copied, "copy-MB/s")
				b.ReportMetric(masked, "mask-MB/s")
				b.ReportMetric(100*masked/copied, "%of-copy")
			})
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for b.Loop() {
		hundred()
	}
}
