package api

import (
	"io"
	"runtime"
	"sync"

	"connectrpc.com/connect/v2/connectgzip"
)

// inflater is gzip, of which only so much is inflated at the same time: a small message can become a large one, and many at once
// would be in memory before anybody has looked at them. More at once would not be faster.
type inflater struct {
	*connectgzip.Compressor
	turns chan struct{}
}

func newInflater() *inflater {
	return &inflater{connectgzip.New(), make(chan struct{}, 2*runtime.GOMAXPROCS(0))}
}

// Decompress waits for its turn, which ends when the reader is closed. src is in memory, so nobody holds a turn who waits for the
// network.
func (i *inflater) Decompress(src io.Reader) (io.ReadCloser, error) {
	i.turns <- struct{}{}
	r, err := i.Compressor.Decompress(src)
	if err != nil {
		<-i.turns
		return nil, err
	}
	return &turn{ReadCloser: r, over: func() { <-i.turns }}, nil
}

type turn struct {
	io.ReadCloser
	once sync.Once
	over func()
}

// Close ends the turn.
func (t *turn) Close() error {
	defer t.once.Do(t.over)
	return t.ReadCloser.Close()
}
