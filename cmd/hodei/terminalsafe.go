package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminalSafe returns a writer to a file. If that is a terminal, it leaves out what output could use to do things to the terminal:
// set its title, write to its clipboard, have it answer as if somebody typed. Colours and the movement of the cursor stay.
func terminalSafe(f *os.File) io.Writer {
	if term.IsTerminal(int(f.Fd())) {
		return &sequenceFilter{w: f}
	}
	return f
}

// sequenceFilter leaves out control sequences. Those that are cut over two writes are found too.
type sequenceFilter struct {
	w     io.Writer
	state sequenceState
	held  []byte // of a sequence that may be kept
	out   []byte
}

type sequenceState uint8

const (
	inText       sequenceState = iota
	inEscape                   // after ESC
	inControl                  // after ESC [, until its last byte
	inString                   // of ESC ] and its like, until BEL or ESC \
	inStringEnds               // after an ESC in it
	inCharset                  // after ESC ( and its like, for one byte
)

// maxControl bounds a sequence that may be kept.
const maxControl = 64

// Write implements io.Writer. It reports all of p as written.
func (f *sequenceFilter) Write(p []byte) (int, error) {
	f.out = f.out[:0]
	for _, b := range p {
		f.take(b)
	}
	if _, err := f.w.Write(f.out); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *sequenceFilter) take(b byte) {
	const escape, bell = 0x1b, 0x07
	switch f.state {
	case inText:
		switch {
		case b == escape:
			f.state, f.held = inEscape, append(f.held[:0], b)
		case b >= ' ' && b != 0x7f, b == '\n', b == '\r', b == '\t', b == '\b', b == bell:
			f.out = append(f.out, b)
		}
	case inEscape:
		f.held = append(f.held, b)
		switch b {
		case '[':
			f.state = inControl
		case ']', 'P', 'X', '^', '_':
			f.state = inString
		case '(', ')', '*', '+', '#', '%', ' ':
			f.state = inCharset
		default:
			f.state = inText
		}
	case inControl:
		f.held = append(f.held, b)
		switch {
		case b >= 0x40 && b <= 0x7e:
			if f.state = inText; keeps(f.held) {
				f.out = append(f.out, f.held...)
			}
		case b < ' ': // no sequence: it ends here
			f.state = inText
			f.take(b)
		case len(f.held) > maxControl:
			f.state = inText
		}
	case inString:
		switch b {
		case bell:
			f.state = inText
		case escape:
			f.state = inStringEnds
		}
	case inStringEnds:
		switch b {
		case '\\':
			f.state = inText
		case escape:
		default:
			f.state = inString
		}
	case inCharset:
		f.state = inText
	}
}

// keeps reports whether a sequence that begins with ESC [ sets colours, erases or moves the cursor.
func keeps(sequence []byte) bool {
	for _, b := range sequence[2 : len(sequence)-1] {
		if (b < '0' || b > '9') && b != ';' && b != ':' {
			return false
		}
	}
	last := sequence[len(sequence)-1]
	return last == 'm' || last >= 'A' && last <= 'K'
}
