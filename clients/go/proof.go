package hodei

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"strconv"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// ErrDamagedLog says that a log is not what its job wrote.
var ErrDamagedLog = errors.New("the log is damaged")

// whole reports whether all of an attempt's log is asked for.
func (o *LogOptions) whole() bool {
	return o.Offset == "" && o.Step == "" && o.Stream == 0 && o.Tail == 0 && o.Line == 0 && o.Since.IsZero() && o.Until.IsZero()
}

// proof hashes the streams of an attempt as they are read, to be compared with what the agent computed when they were written.
type proof struct {
	attempt int32
	streams map[logStream]*streamSum
}

type logStream struct {
	step   string
	stream hodeiv1.LogStream
}

type streamSum struct {
	bytes uint64
	hash  hash.Hash
}

func (p *proof) add(c *hodeiv1.LogChunk) {
	if c.GetAttempt() != p.attempt || p.streams == nil {
		p.attempt, p.streams = c.GetAttempt(), make(map[logStream]*streamSum)
	}
	key := logStream{c.GetStep(), c.GetStream()}
	sum := p.streams[key]
	if sum == nil {
		sum = &streamSum{hash: sha256.New()}
		p.streams[key] = sum
	}
	sum.bytes += uint64(len(c.GetData()))
	_, _ = sum.hash.Write(c.GetData()) // never fails
}

// check returns ErrDamagedLog when a complete log is another one than was written. A log without hashes is taken as it is.
func (p *proof) check(id string, completeness *hodeiv1.LogCompleteness) error {
	if completeness.GetState() != hodeiv1.LogState_LOG_STATE_COMPLETE {
		return nil
	}
	for _, total := range completeness.GetStreams() {
		got := p.streams[logStream{total.GetStep(), total.GetStream()}]
		if got == nil {
			got = &streamSum{hash: sha256.New()}
		}
		if strconv.FormatUint(got.bytes, 10) != total.GetBytes() || string(got.hash.Sum(nil)) != string(total.GetSha256()) {
			return fmt.Errorf("%w: of step %q of job %s %s bytes were written with the SHA-256 %x, and %d were read with %x",
				ErrDamagedLog, total.GetStep(), id, total.GetBytes(), total.GetSha256(), got.bytes, got.hash.Sum(nil))
		}
	}
	return nil
}
