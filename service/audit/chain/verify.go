package chain

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
)

// Verify reads an export of a trail, lines of records with checkpoints in their places, and checkpoints that were kept apart (nil:
// there are none), and reports every trace of a change. The export may begin with any record, and ends with a checkpoint that says
// where it begins and ends. It takes the memory of a few lines. The error is one of reading, or that no key was given.
//
// What is shown: the records up to Report.Vouched are those that the server had written when it signed. A server whose key is in
// wrong hands, or an end that was cut off together with its checkpoints, show only against checkpoints that were kept elsewhere.
func Verify(records, checkpoints io.Reader, keys ...ed25519.PublicKey) (Report, error) {
	if len(keys) == 0 {
		return Report{}, errors.New("no public key was given, without which checkpoints say nothing")
	}
	v := verifier{keys: keys}
	if checkpoints != nil {
		v.apart.lines = newLines(checkpoints)
		if err := v.nextApart(); err != nil {
			return v.report, fmt.Errorf("reading the checkpoints: %w", err)
		}
	}
	in := newLines(records)
	for {
		line, whole, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return v.report, fmt.Errorf("reading the records: %w", err)
		}
		if err := v.take(line, whole); err != nil {
			return v.report, fmt.Errorf("reading the checkpoints: %w", err)
		}
	}
	if err := v.finish(); err != nil {
		return v.report, fmt.Errorf("reading the checkpoints: %w", err)
	}
	return v.report, nil
}

// lines reads lines of bounded length.
type lines struct{ in *bufio.Reader }

func newLines(r io.Reader) *lines { return &lines{bufio.NewReaderSize(r, 2*MaxLine)} }

// next returns a line without its end, until io.EOF. Of one that is too long it returns the beginning, which still is too long for
// a record. whole is whether the line had an end. The line is valid until the next call.
func (l *lines) next() (line []byte, whole bool, err error) {
	line, err = l.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.in.ReadSlice('\n')
		}
	}
	if err == nil {
		return bytes.TrimSuffix(line, []byte{'\n'}), true, nil
	}
	if errors.Is(err, io.EOF) && len(line) > 0 {
		return line, false, nil
	}
	return nil, false, err
}
