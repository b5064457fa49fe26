package lines

import (
	"bytes"
	"slices"
	"time"
)

// Piece is a part of an attempt's output, as a log keeps it.
type Piece struct {
	Offset uint64    // of its first byte in the attempt
	Step   int32     // counted from 0
	Stream uint8     // never 0, which in a query means all
	Time   time.Time // when the agent read it
	Data   []byte    // neither changed nor kept
}

// channel is a stream of a step.
type channel struct {
	step   int32
	stream uint8
}

// maxChannels is how many channels are known at a time. Steps come one after another, so more do not speak at once; of more, the
// one that has been silent for longest is taken to have ended.
const maxChannels = 64

// channels are the states of channels, that which spoke last first.
type channels[T any] []*state[T]

// state is what is known of a channel.
type state[T any] struct {
	channel
	of T
}

// get returns the state of a channel. When it had to make room for it, it returns what it has forgotten, too.
func (c *channels[T]) get(of channel) (known, forgotten *state[T]) {
	at := slices.IndexFunc(*c, func(s *state[T]) bool { return s.channel == of })
	if at < 0 {
		if len(*c) == maxChannels {
			forgotten = (*c)[maxChannels-1]
			*c = (*c)[:maxChannels-1]
		}
		at = len(*c)
		*c = append(*c, &state[T]{channel: of})
	}
	known = (*c)[at]
	copy((*c)[1:at+1], (*c)[:at])
	(*c)[0] = known
	return known, forgotten
}

var lineEnd = []byte{'\n'}

// withoutReturn is a line without the '\r' before its end.
func withoutReturn(line []byte) []byte { return bytes.TrimSuffix(line, []byte{'\r'}) }
