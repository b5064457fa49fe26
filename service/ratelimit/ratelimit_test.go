package ratelimit

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestBurstThenRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := New(10, 3, 100)
		for i := range 3 {
			if retry, ok := r.Allow("a", time.Now()); !ok || retry != 0 {
				t.Fatalf("call %d of the burst was refused for %v", i, retry)
			}
		}
		retry, ok := r.Allow("a", time.Now())
		if ok || retry < 99*time.Millisecond || retry > 100*time.Millisecond {
			t.Fatalf("beyond the burst: %v, %v; want a refusal for 100ms", retry, ok)
		}
		if _, ok := r.Allow("b", time.Now()); !ok {
			t.Fatal("another key was refused")
		}
		time.Sleep(retry - 10*time.Millisecond)
		if _, ok := r.Allow("a", time.Now()); ok {
			t.Fatal("allowed before the time that was told")
		}
		time.Sleep(10 * time.Millisecond)
		if retry, ok := r.Allow("a", time.Now()); !ok {
			t.Fatalf("refused for %v after the time that was told", retry)
		}
		if _, ok := r.Allow("a", time.Now()); ok {
			t.Fatal("refused calls should not have gathered")
		}
		time.Sleep(time.Hour)
		for i := range 4 {
			if _, ok := r.Allow("a", time.Now()); ok != (i < 3) {
				t.Fatalf("call %d after an hour: %v", i, ok)
			}
		}
	})
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	for _, r := range []*Rates{nil, New(0, 10, 10), New(-1, 10, 10)} {
		for range 1000 {
			if _, ok := r.Allow("a", time.Unix(0, 0)); !ok {
				t.Fatal("refused without a limit")
			}
		}
	}
	if _, ok := New(1, 0, 0).Allow("a", time.Unix(0, 0)); !ok {
		t.Fatal("with a burst of nothing, nothing would ever be allowed")
	}
}

// Whatever the times of the calls, also when they go back: in any span no more than burst + rate * span are allowed, a caller
// that waits as long as it was told is allowed, and one key has nothing to do with another.
func TestNeverMoreThanBurstAndRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.Float64Range(0.1, 1000).Draw(t, "rate")
		burst := rapid.IntRange(1, 50).Draw(t, "burst")
		r := New(perSecond, burst, 64*3)
		now := time.Unix(1_000_000, 0)
		latest := map[string]time.Time{}
		allowed := map[string][]time.Time{}
		for range rapid.IntRange(1, 300).Draw(t, "calls") {
			key := rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "key")
			now = now.Add(time.Duration(rapid.Int64Range(-int64(time.Second), int64(2*time.Second)).Draw(t, "step")))
			if rapid.Bool().Draw(t, "again") {
				now = latest[key]
			}
			at := latest[key]
			if now.After(at) {
				at = now
			}
			latest[key] = at
			retry, ok := r.Allow(key, now)
			if ok {
				allowed[key] = append(allowed[key], at)
				continue
			}
			if retry <= 0 || retry > time.Duration(1.01/perSecond*float64(time.Second)) {
				t.Fatalf("refused for %v at %v a second", retry, perSecond)
			}
			if rapid.Bool().Draw(t, "wait") {
				now = at.Add(retry + time.Microsecond)
				if _, ok := r.Allow(key, now); !ok {
					t.Fatalf("refused after %v, which was told", retry)
				}
				allowed[key], latest[key] = append(allowed[key], now), now
			}
		}
		for key, times := range allowed {
			for i := range times {
				for j := i; j < len(times); j++ {
					most := float64(burst) + perSecond*times[j].Sub(times[i]).Seconds()
					if n := float64(j - i + 1); n > most+1e-3 {
						t.Fatalf("%v calls of %q in %v, want at most %v", n, key, times[j].Sub(times[i]), most)
					}
				}
			}
		}
	})
}

func TestCallsAtOnce(t *testing.T) {
	t.Parallel()
	const burst = 1000
	r := New(1e-9, burst, 100)
	var allowed atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range burst {
				if _, ok := r.Allow("a", time.Unix(5, 0)); ok {
					allowed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if allowed.Load() != burst {
		t.Fatalf("%d calls were allowed, want %d", allowed.Load(), burst)
	}
}

// The table forgets who has not called for longest, and remembers who calls.
func TestTableIsBounded(t *testing.T) {
	t.Parallel()
	const entries = 6400
	r := New(1e-9, 1, entries)
	now := time.Unix(0, 0)
	r.Allow("busy", now)
	for i := range 20 * entries {
		r.Allow(fmt.Sprint(i), now)
		if i%50 == 0 {
			if _, ok := r.Allow("busy", now); ok {
				t.Fatalf("a caller was forgotten that calls all the time, after %d others", i)
			}
		}
	}
	n := 0
	for i := range r.parts {
		n += len(r.parts[i].buckets)
		if r.parts[i].recent.Len() != len(r.parts[i].buckets) {
			t.Fatal("the list and the map differ")
		}
	}
	if n > entries {
		t.Fatalf("%d keys are remembered, want at most %d", n, entries)
	}
	if _, ok := r.Allow("0", now); !ok {
		t.Fatal("the first one should have been forgotten")
	}
}

// Long keys cost nothing but the time of reading them.
func TestLongKeysAreNotKept(t *testing.T) {
	t.Parallel()
	r := New(1, 1, 1000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 100 {
		r.Allow(fmt.Sprint(i)+strings.Repeat("x", 1<<20), time.Unix(0, 0))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 50<<20 {
		t.Fatalf("%d MiB are kept", grown>>20)
	}
	runtime.KeepAlive(r)
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"192.0.2.1:443":                          "192.0.2.1",
		"[::ffff:192.0.2.1]:443":                 "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:443":             "2001:db8:1:2::",
		"[2001:db8:1:2:ffff:ffff:ffff:ffff]:443": "2001:db8:1:2::",
		"[2001:db8:1:3::]:443":                   "2001:db8:1:3::",
		"[fe80::1%eth0]:443":                     "fe80::",
		"":                                       "unknown",
		"@":                                      "unknown",
		"192.0.2.1":                              "192.0.2.1",
	} {
		if got := OriginOf(remote); got != want {
			t.Errorf("the origin of %q is %q, want %q", remote, got, want)
		}
	}
	if Origin(netip.MustParseAddr("::ffff:1.2.3.4")) != Origin(netip.MustParseAddr("1.2.3.4")) {
		t.Error("an address has two origins")
	}
}

func FuzzOriginOf(f *testing.F) {
	for _, seed := range []string{"1.2.3.4:5", "[::1]:5", "[fe80::1%x]:1", "", "[", "a:b", "[::ffff:1.2.3.4]:80"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, remote string) {
		origin := OriginOf(remote)
		if origin != "unknown" && !netip.MustParseAddr(origin).IsValid() {
			t.Fatalf("%q has the origin %q", remote, origin)
		}
	})
}

func BenchmarkAllow(b *testing.B) {
	for _, keys := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprint(keys, " keys"), func(b *testing.B) {
			r := New(10_000, 20_000, 100_000)
			names := make([]string, keys)
			for i := range names {
				names[i] = fmt.Sprint("agent/wkr_01jxxxxxxxxxxxxxxxxxxxxxxx", i)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					r.Allow(names[i%keys], time.Now())
				}
			})
		})
	}
	b.Run("refused", func(b *testing.B) {
		r := New(1e-9, 1, 100)
		now := time.Now()
		for range b.N {
			r.Allow("a", now)
		}
	})
}
