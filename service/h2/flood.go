package h2

import "time"

// bucket bounds how often the peer may do what costs the server more than itself. It starts full and fills up again with
// time, so that what happens now and then never adds up.
type bucket struct {
	size, perSecond, spent float64
	at                     time.Time // when spent was right
}

// spend says whether the peer may once more.
func (b *bucket) spend(now time.Time) bool {
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-b.perSecond*now.Sub(b.at).Seconds())
	}
	b.at = now
	b.spent++
	return b.spent <= b.size
}

// resets bounds streams that end before their time, whoever ends them: a peer that opens and resets streams in a row makes
// the server begin work that nobody waits for. Canceling all streams at once, twice, is no attack.
func newResets(streams uint32) bucket {
	return bucket{size: 2*float64(streams) + 100, perSecond: float64(streams)}
}

// trifles bounds frames that bring nothing: pings, settings, priorities, empty data, data for streams that are gone, and
// windows of a few bytes. Clients that measure the line ping once per round trip, which is often on a short one.
func newTrifles() bucket { return bucket{size: 20_000, perSecond: 10_000} }

// ended remembers streams that have ended of late: what the peer had sent before it knew is no error then.
type ended struct {
	streams [64]endedStream
	next    int
}

type endedStream struct {
	id  uint32
	cut bool // this side has reset it, so more may still come
}

func (e *ended) add(id uint32, cut bool) {
	e.streams[e.next%len(e.streams)] = endedStream{id, cut}
	e.next++
}

// find says whether the stream has ended of late, and whether this side has cut it off.
func (e *ended) find(id uint32) (known, cut bool) {
	for _, s := range e.streams {
		if s.id == id {
			return true, s.cut
		}
	}
	return false, false
}
