package mask

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/cpu"
	"pgregory.net/rapid"
)

// first is leapVectors without vectors.
func first(c *class, text []byte) int {
	if at := slices.IndexFunc(text, func(b byte) bool { return c.has[b] }); at >= 0 {
		return at
	}
	return len(text)
}

func withVectors(t testing.TB) {
	t.Helper()
	if !cpu.X86.HasAVX2 {
		t.Skip("the processor has no AVX2")
	}
}

// Each byte is looked at, wherever a text lies and whatever stands before and after it.
func TestLeapOfEveryLength(t *testing.T) {
	t.Parallel()
	withVectors(t)
	c := new(class)
	c.add('x')
	around := slices.Repeat([]byte("x"), 400)
	for length := vector; length <= 300; length++ {
		for offset := range vector {
			text := around[offset : offset+length]
			for i := range text {
				text[i] = '.'
			}
			if got := leapVectors(text, &c.rows); got != length {
				t.Fatalf("at %d of %d bytes with nothing: got %d", offset, length, got)
			}
			for at := length - 1; at >= 0; at-- {
				text[at] = 'x'
				if got := leapVectors(text, &c.rows); got != at {
					t.Fatalf("at %d of %d bytes: got %d, want %d", offset, length, got, at)
				}
			}
		}
	}
}

// Each byte is told from each other.
func TestLeapOverEveryByte(t *testing.T) {
	t.Parallel()
	withVectors(t)
	for member := range 256 {
		c := new(class)
		c.add(byte(member))
		for b := range 256 {
			text := slices.Repeat([]byte{byte(b)}, vector)
			if got, want := leapVectors(text, &c.rows), first(c, text); got != want {
				t.Fatalf("byte %#x, class of %#x: got %d, want %d", b, member, got, want)
			}
		}
	}
}

// Classes of every size, texts with few and many of their bytes.
func TestLeapOverAnyClass(t *testing.T) {
	t.Parallel()
	withVectors(t)
	rapid.Check(t, func(t *rapid.T) {
		all := make([]byte, 256)
		for i := range all {
			all[i] = byte(i)
		}
		all = rapid.Permutation(all).Draw(t, "bytes")
		c, size := new(class), rapid.IntRange(0, 256).Draw(t, "size")
		for _, b := range all[:size] {
			c.add(b)
		}
		text := rapid.SliceOfN(rapid.Byte(), vector, 400).Draw(t, "text")
		if size < len(all) { // a part without any of them
			for i := range rapid.IntRange(0, len(text)).Draw(t, "without") {
				text[i] = all[size+int(text[i])%(len(all)-size)]
			}
		}
		if got, want := leapVectors(text, &c.rows), first(c, text); got != want {
			t.Fatalf("got %d, want %d", got, want)
		}
	})
}

func BenchmarkLeap(b *testing.B) {
	withVectors(b)
	c := new(class)
	c.add('x')
	for _, size := range []int{vector, 1 << 10, chunk} {
		text := make([]byte, size)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				leapVectors(text, &c.rows)
			}
		})
	}
}
