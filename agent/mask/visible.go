package mask

import (
	"bytes"
	"slices"
)

const (
	escape = 0x1b
	// longestSequence is the longest ANSI sequence that is seen through, in bytes.
	longestSequence = 64
)

// visible is a text without its ANSI sequences, and knows where its bytes were.
type visible struct {
	text      []byte
	sequences []span
	pieces    []piece
}

// span is a part of a text.
type span struct{ start, end int }

// piece says that what follows from a place of the visible text was at another of the whole one.
type piece struct{ at, origin int }

func (v *visible) reset() { v.text, v.sequences, v.pieces = v.text[:0], v.sequences[:0], v.pieces[:0] }

// read takes a text apart. It returns where a sequence begins that has no end yet; the length of the text when there is none.
func (v *visible) read(text []byte) int {
	for at := 0; ; {
		v.pieces = append(v.pieces, piece{len(v.text), at})
		next := bytes.IndexByte(text[at:], escape)
		if next < 0 {
			v.text = append(v.text, text[at:]...)
			return len(text)
		}
		v.text = append(v.text, text[at:at+next]...)
		at += next
		switch n, whole := sequence(text[at:]); {
		case !whole:
			return at
		case n == 0: // a lone escape character is a byte like others
			v.pieces = append(v.pieces, piece{len(v.text), at})
			v.text = append(v.text, escape)
			at++
		default:
			v.sequences = append(v.sequences, span{at, at + n})
			at += n
		}
	}
}

// sequence returns the length of the ANSI sequence with which a text begins: zero when it begins with none. whole is false
// when more bytes must come to tell. A sequence is "ESC [" or ESC, parameters, intermediate bytes and a final one (ECMA-48, 5.4).
func sequence(text []byte) (n int, whole bool) {
	n = 1
	control := n < len(text) && text[n] == '['
	if control {
		for n++; n < len(text) && text[n] >= 0x30 && text[n] <= 0x3f; n++ {
		}
	}
	intermediates := n
	for ; n < len(text) && text[n] >= 0x20 && text[n] <= 0x2f; n++ {
	}
	switch {
	case n >= longestSequence:
		return 0, true
	case n == len(text):
		return 0, false
	case control && text[n] >= 0x40 && text[n] <= 0x7e, n > intermediates && !control && text[n] >= 0x30 && text[n] <= 0x7e:
		return n + 1, true
	}
	return 0, true
}

// origin is where a byte of the visible text was.
func (v *visible) origin(at int) int {
	i, found := slices.BinarySearchFunc(v.pieces, at, func(p piece, at int) int { return p.at - at })
	if !found {
		i--
	}
	for i+1 < len(v.pieces) && v.pieces[i+1].at == at { // of pieces without bytes the last counts
		i++
	}
	return v.pieces[i].origin + at - v.pieces[i].at
}

// before moves a place that lies inside a sequence to where that begins.
func (v *visible) before(at int) int {
	for _, q := range v.sequences {
		if q.start < at && at < q.end {
			return q.start
		}
	}
	return at
}
