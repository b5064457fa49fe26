package hodei

import (
	"crypto/sha256"
	"errors"
	"testing"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func TestReadersCompareWhatTheyReadWithWhatWasWritten(t *testing.T) {
	t.Parallel()
	chunk := func(attempt int32, stream hodeiv1.LogStream, data string) *hodeiv1.LogChunk {
		return &hodeiv1.LogChunk{Attempt: attempt, Step: "s", Stream: stream, Data: []byte(data)}
	}
	total := func(bytes, data string) *hodeiv1.LogStreamTotal {
		sum := sha256.Sum256([]byte(data))
		return &hodeiv1.LogStreamTotal{Step: "s", Stream: 1, Bytes: bytes, Sha256: sum[:]}
	}
	for name, c := range map[string]struct {
		chunks  []*hodeiv1.LogChunk
		streams []*hodeiv1.LogStreamTotal
		state   hodeiv1.LogState
		damaged bool
	}{
		"what was written":        {[]*hodeiv1.LogChunk{chunk(1, 1, "a"), chunk(1, 2, "x"), chunk(1, 1, "b")}, []*hodeiv1.LogStreamTotal{total("2", "ab")}, 2, false},
		"of the last attempt":     {[]*hodeiv1.LogChunk{chunk(1, 1, "a"), chunk(2, 1, "ab")}, []*hodeiv1.LogStreamTotal{total("2", "ab")}, 2, false},
		"another byte":            {[]*hodeiv1.LogChunk{chunk(1, 1, "ac")}, []*hodeiv1.LogStreamTotal{total("2", "ab")}, 2, true},
		"a byte less":             {[]*hodeiv1.LogChunk{chunk(1, 1, "a")}, []*hodeiv1.LogStreamTotal{total("2", "ab")}, 2, true},
		"nothing at all":          {nil, []*hodeiv1.LogStreamTotal{total("2", "ab")}, 2, true},
		"a stream without a hash": {[]*hodeiv1.LogChunk{chunk(1, 1, "a")}, nil, 2, false},
		"a log that goes on":      {[]*hodeiv1.LogChunk{chunk(1, 1, "a")}, []*hodeiv1.LogStreamTotal{total("2", "ab")}, 1, false},
	} {
		p := new(proof)
		for _, chunk := range c.chunks {
			p.add(chunk)
		}
		err := p.check("job_1", &hodeiv1.LogCompleteness{State: c.state, Streams: c.streams})
		if errors.Is(err, ErrDamagedLog) != c.damaged {
			t.Errorf("%s: %v", name, err)
		}
	}
}
