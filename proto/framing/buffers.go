package framing

import "sync"

// Buffers are kept by size, so that what waits takes about as much memory as it needs.
const (
	smallestBuffer = 10 // bits
	largestBuffer  = 18
)

var buffers [largestBuffer + 1]sync.Pool

// GetBuffer returns an empty buffer with room for at least n bytes.
func GetBuffer(n int) *[]byte {
	bits := smallestBuffer
	for n > 1<<bits && bits < largestBuffer {
		bits++
	}
	if b, ok := buffers[bits].Get().(*[]byte); ok && cap(*b) >= n {
		return b
	}
	b := make([]byte, 0, max(n, 1<<bits))
	return &b
}

// PutBuffer takes a buffer back that nobody uses any more.
func PutBuffer(b *[]byte) {
	bits := largestBuffer
	for bits >= smallestBuffer && cap(*b) < 1<<bits {
		bits--
	}
	if bits < smallestBuffer || cap(*b) > 2<<largestBuffer {
		return
	}
	*b = (*b)[:0]
	buffers[bits].Put(b)
}

// withRoom returns a buffer with b's content and room for n more bytes: b itself, or a larger one in its place.
func withRoom(b *[]byte, n int) *[]byte {
	if b == nil {
		return GetBuffer(n)
	}
	if len(*b)+n <= cap(*b) {
		return b
	}
	larger := GetBuffer(max(2*cap(*b), len(*b)+n))
	*larger = append(*larger, *b...)
	PutBuffer(b)
	return larger
}
