package framing

import (
	"bytes"
	"math/bits"
	"testing"

	"pgregory.net/rapid"
)

// What GetBuffer returns is empty, has room, and is not much larger than was asked, whatever was put back before.
func TestBuffersFitWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	near := rapid.Custom(func(t *rapid.T) int { // a power of two is a limit
		return max(0, 1<<rapid.IntRange(0, largestBuffer+2).Draw(t, "bits")+rapid.IntRange(-1, 1).Draw(t, "beside"))
	})
	rapid.Check(t, func(t *rapid.T) {
		for range rapid.IntRange(1, 30).Draw(t, "length") {
			n := near.Draw(t, "size")
			if rapid.Bool().Draw(t, "foreign") {
				b := pattern(0, n)
				PutBuffer(&b)
				continue
			}
			b := GetBuffer(n)
			if len(*b) != 0 || cap(*b) < n {
				t.Fatalf("a buffer for %d bytes has %d and room for %d", n, len(*b), cap(*b))
			}
			if most := mostFor(n); cap(*b) > most {
				t.Fatalf("a buffer for %d bytes takes %d, more than %d", n, cap(*b), most)
			}
			if rapid.Bool().Draw(t, "used") {
				*b = append(*b, pattern(0, n)...)
				PutBuffer(b)
			}
		}
	})
}

// mostFor is the most memory that a buffer for n bytes may take: less than twice the size of its kind.
func mostFor(n int) int {
	kind := max(smallestBuffer, bits.Len(uint(max(n, 1)-1)))
	if kind >= largestBuffer {
		return max(n, 2<<largestBuffer)
	}
	return 2<<kind - 1
}

// Buffers that are too small or too large to be kept are let go, and harm nobody.
func TestForeignBuffersAreNotKept(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1<<smallestBuffer - 1, 2<<largestBuffer + 1, 8 << largestBuffer} {
		b := make([]byte, n)
		PutBuffer(&b)
		if len(b) != n {
			t.Errorf("a buffer of %d bytes was taken", n)
		}
	}
}

func TestRoomIsMadeWithoutLoss(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var b *[]byte
		var want []byte
		for range rapid.IntRange(1, 30).Draw(t, "length") {
			p := pattern(len(want), sizes().Draw(t, "size"))
			before := b
			fits := b != nil && len(*b)+len(p) <= cap(*b)
			b = withRoom(b, len(p))
			if cap(*b)-len(*b) < len(p) {
				t.Fatalf("no room for %d bytes after %d of %d", len(p), len(*b), cap(*b))
			}
			if fits && b != before {
				t.Fatal("there is another buffer in the place of one with room")
			}
			*b = append(*b, p...)
			if want = append(want, p...); !bytes.Equal(*b, want) {
				t.Fatalf("%d bytes are there, want %d, or they differ", len(*b), len(want))
			}
		}
		PutBuffer(b)
	})
}
