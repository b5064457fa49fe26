package mask

import "golang.org/x/sys/cpu"

// vector is how many bytes the processor looks at together.
const vector = 32

// leap returns how many bytes with which a text begins are not in the class; or zero, where looking them up in a filter is faster.
func (c *class) leap(text []byte) int {
	if len(text) < vector || !cpu.X86.HasAVX2 {
		return 0
	}
	return leapVectors(text, &c.rows)
}

// leapVectors is leap for texts that are no shorter than a vector, on processors with AVX2.
//
//go:noescape
func leapVectors(text []byte, rows *[2][16]uint8) int
