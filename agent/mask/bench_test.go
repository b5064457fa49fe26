package mask

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
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
	b.Run("100 secrets, no byte of them", func(b *testing.B) { benchmark(b, hundred(), bytes.Repeat([]byte("GHIJ KLMN\n"), len(plain)/10)) })
}

func BenchmarkAdd(b *testing.B) {
	for b.Loop() {
		hundred()
	}
}
