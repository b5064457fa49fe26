// Package ratelimit bounds how often each of many callers may do something, in a fixed amount of memory.
package ratelimit

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// shards is over how many locks the keys are spread, so that callers on several processors seldom wait for each other.
const shards = 64

// Rates has a token bucket for each key. Its methods may be called from several goroutines at once. A nil *Rates allows everything.
type Rates struct {
	limit rate.Limit
	burst int
	seed  maphash.Seed
	parts [shards]part
}

// part is one shard of the table. What was used least of late goes when there is no room.
type part struct {
	mu      sync.Mutex
	room    int
	buckets map[uint64]*list.Element // of *bucket, by the hash of the key: keys may be long, and who calls chooses them
	recent  list.List                // the one that was used last is in front
}

type bucket struct {
	key     uint64
	limiter *rate.Limiter
	last    time.Time
}

// New returns rates of perSecond on average and burst at once for each key; perSecond of zero or less: everything is allowed. It
// remembers as many keys as entries says, rounded up to a multiple of 64. A key that was forgotten begins with a full bucket again.
func New(perSecond float64, burst, entries int) *Rates {
	if perSecond <= 0 {
		return nil
	}
	r := &Rates{limit: rate.Limit(perSecond), burst: max(burst, 1), seed: maphash.MakeSeed()}
	for i := range r.parts {
		r.parts[i].room = max((entries+shards-1)/shards, 1)
		r.parts[i].buckets = make(map[uint64]*list.Element)
	}
	return r
}

// Allow takes a token of a key. Without one, ok is false and retryAfter says in what time there is one, if nobody else takes it; a
// refused call takes nothing. A time before the last one of the key counts as that one.
func (r *Rates) Allow(key string, now time.Time) (retryAfter time.Duration, ok bool) {
	return r.take(key, now, 1)
}

// Left is Allow without taking the token: for what counts only when it has failed.
func (r *Rates) Left(key string, now time.Time) (retryAfter time.Duration, ok bool) {
	return r.take(key, now, 0)
}

// take takes so many tokens, 1 or 0, if there is at least one.
func (r *Rates) take(key string, now time.Time, n int) (retryAfter time.Duration, ok bool) {
	if r == nil {
		return 0, true
	}
	hash := maphash.String(r.seed, key)
	p := &r.parts[hash%shards]
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.find(hash, r)
	if now.Before(b.last) { // the limiter would give the time between twice
		now = b.last
	}
	b.last = now
	missing := 1 - b.limiter.TokensAt(now)
	if missing <= 0 && b.limiter.AllowN(now, n) {
		return 0, true
	}
	return max(time.Duration(missing/float64(r.limit)*float64(time.Second)), time.Nanosecond), false
}

// find is the bucket of a key. p.mu is held.
func (p *part) find(key uint64, r *Rates) *bucket {
	if e, ok := p.buckets[key]; ok {
		p.recent.MoveToFront(e)
		return e.Value.(*bucket) //nolint:forcetypeassert // nothing else is in the list
	}
	var e *list.Element
	if p.recent.Len() < p.room {
		e = p.recent.PushFront(new(bucket))
	} else {
		e = p.recent.Back()
		delete(p.buckets, e.Value.(*bucket).key) //nolint:forcetypeassert // as above
		p.recent.MoveToFront(e)
	}
	b := e.Value.(*bucket) //nolint:forcetypeassert // as above
	*b = bucket{key: key, limiter: rate.NewLimiter(r.limit, r.burst)}
	p.buckets[key] = e
	return b
}
