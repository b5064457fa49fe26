package framing

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

var errTest = errors.New("as the test wants it")

// What many put while one writes goes out in one piece, and none of them waits for the network.
func TestWhatIsPutMeanwhileGoesOutTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWay(t, 0)
		w.conn.hold()
		const others = 100
		flushed := make(chan bool, others+1)
		put := func(i int) {
			w.put(uint32(2*i+1), 50)
			flushed <- true
		}
		go put(0)
		synctest.Wait()
		for i := range others {
			go put(i + 1)
		}
		synctest.Wait()
		must(t, "those that have not waited", len(flushed), others)
		w.conn.open()
		synctest.Wait()
		must(t, "those that have ended", len(flushed), others+1)
		if got, want := w.conn.sizes(), []int{frameHeader + 50, others * (frameHeader + 50)}; !slices.Equal(got, want) {
			t.Fatalf("the writes had %d bytes, want %d", got, want)
		}
		ids := make(map[uint32]bool)
		frames, err := w.conn.frames()
		for _, f := range frames {
			ids[f.StreamID] = true
		}
		if err != nil || len(ids) != others+1 {
			t.Fatalf("frames of %d streams were written, %v", len(ids), err)
		}
	})
}

// Who writes for others does so only for a while, because its own caller waits too.
func TestWhoWritesHandsOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWay(t, 0)
		w.conn.hold()
		flushed := make(chan bool, 1)
		go func() {
			w.put(1, 10)
			flushed <- true
		}()
		synctest.Wait()
		for i := range uint32(rounds) {
			w.put(2*i+3, 10)
			must(t, "ended", done(flushed), false)
			w.conn.let()
			w.expect(fmt.Sprintf("DATA %d 10", 2*i+1))
		}
		must(t, "ended after some rounds", done(flushed), true)
		w.locked(func() { must(t, "goroutines", w.asides, 1) })
		for i := range uint32(5) { // the other has nobody who waits, and goes on
			w.put(2*i+101, 10)
			w.conn.let()
			w.said()
		}
		w.conn.open()
		w.expect("DATA 109 10")
		w.locked(func() {
			must(t, "goroutines", w.asides, 1)
			must(t, "empty", w.Empty(), true)
		})
		w.put(1, 10) // and the next begins anew
		w.expect("DATA 1 10")
		w.locked(func() { must(t, "goroutines", w.asides, 1) })
	})
}

// FlushAside writes on another goroutine, unless there is nothing to do or somebody does it already.
func TestFlushAsideDoesNotWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWay(t, 0)
		var sends []func()
		w.aside = func(send func()) { sends = append(sends, send) }
		w.mu.Lock()
		must(t, "empty", w.Empty(), true)
		w.FlushAside()
		must(t, "goroutines for nothing", len(sends), 0)
		for range 3 {
			w.PutFrame(http2.FrameData, 0, 1, pattern(0, 10))
			w.FlushAside()
			must(t, "goroutines", len(sends), 1)
			w.Flush() // somebody will
			must(t, "empty", w.Empty(), false)
		}
		w.mu.Unlock()
		w.expect()
		sends[0]()
		w.expect("DATA 1 10", "DATA 1 10", "DATA 1 10")
		must(t, "writes", len(w.conn.sizes()), 1)
		w.locked(w.Flush)
		w.locked(w.FlushAside)
		must(t, "goroutines for nothing", len(sends), 1)
		must(t, "writes of nothing", len(w.conn.sizes()), 0)
	})
}

// A piece of what is written has a size, so that each can have a time.
func TestLongWritesAreDivided(t *testing.T) {
	t.Parallel()
	for n, want := range map[int][]int{
		1: {1}, FrameSize: {FrameSize}, FrameSize + 1: {FrameSize, 1}, 40_000: {FrameSize, FrameSize, 40_000 - 2*FrameSize},
	} {
		w := newWay(t, 0)
		w.locked(func() { w.Put(pattern(0, n)); w.Flush() })
		if got := w.conn.sizes(); !slices.Equal(got, want) {
			t.Errorf("%d bytes were written as %d, want %d", n, got, want)
		}
	}
}

// Who wants to send waits while 64 KiB wait for the network, and goes on when they are being written.
func TestWaitForRoom(t *testing.T) {
	t.Parallel()
	waiting := func(w *way, s *sender) <-chan error {
		ended := make(chan error, 1)
		go w.locked(func() { ended <- w.WaitForRoom(s) })
		return ended
	}
	t.Run("while somebody writes", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.conn.hold()
			go w.put(1, 10)
			synctest.Wait()
			s := w.sender(3, 0)
			w.put(1, backlog-frameHeader-1)
			must(t, "there is room", done(waiting(w, s)), true)
			w.locked(func() { w.Put([]byte{0}) })
			first, second := waiting(w, s), waiting(w, s)
			must(t, "there is room", done(first) || done(second), false)
			w.conn.let() // of the first write; now the rest is being written
			must(t, "both go on", done(first) && done(second), true)
			must(t, "the error", <-first, nil)
			w.conn.open()
			synctest.Wait()
		})
	})
	t.Run("while nobody writes", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.locked(func() { w.Put(pattern(0, backlog)) })
			must(t, "it has written itself", done(waiting(w, w.sender(1, 0))), true)
			must(t, "writes", len(w.conn.sizes()), backlog/FrameSize)
			must(t, "goroutines", w.asides, 0)
		})
	})
	t.Run("until the stream ends", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.conn.hold()
			go w.put(1, 10)
			synctest.Wait()
			w.locked(func() { w.Put(pattern(0, backlog)) })
			s := w.sender(1, 0)
			ended := waiting(w, s)
			must(t, "there is room", done(ended), false)
			s.end(errTest)
			must(t, "the error", <-ended, errTest)
			must(t, "the error at once", <-waiting(w, s), errTest)
			w.conn.open()
			synctest.Wait()
		})
	})
}

// When writing has failed, this is told once, and all that is put later is dropped.
func TestWritingFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWay(t, 0)
		w.conn.hold()
		w.conn.err = errTest
		go w.put(1, 100_000) // in pieces, of which only the first is tried
		synctest.Wait()
		w.put(3, 10)
		drained := make(chan bool, 1)
		go w.locked(func() { w.Drain(); drained <- true })
		must(t, "drained", done(drained), false)
		w.conn.open()
		must(t, "drained", done(drained), true)
		w.locked(func() {
			must(t, "empty", w.Empty(), true)
			w.Put([]byte("x"))
			w.PutFrame(http2.FrameData, 0, 1, []byte("x"))
			w.putHeader(1, true, header(10))
			if err := w.Control.WritePing(false, [8]byte{}); err != nil {
				t.Error(err)
			}
			s := w.sender(5, 10)
			must(t, "the error of putting data", w.PutData(s, 5, &s.window, []byte("x"), true), nil)
			must(t, "empty", w.Empty(), true)
			w.Flush()
			w.FlushAside()
			w.Drain()
			if !slices.Equal(w.broken, []error{errTest}) {
				t.Errorf("told was %v", w.broken)
			}
		})
		w.expect()
		w.conn.err = nil
		w.put(1, 10) // it stays closed
		w.expect()
	})
}

// Drain returns when all is written, whoever writes it.
func TestDrain(t *testing.T) {
	t.Parallel()
	drain := func(w *way) <-chan bool {
		drained := make(chan bool, 1)
		go w.locked(func() { w.Drain(); drained <- true })
		return drained
	}
	t.Run("nothing", func(t *testing.T) {
		bubble(t, func(t *testing.T) { must(t, "drained", done(drain(newWay(t, 0))), true) })
	})
	t.Run("by itself", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.locked(func() { w.Put(pattern(0, 100)) })
			must(t, "drained", done(drain(w)), true)
			must(t, "writes", len(w.conn.sizes()), 1)
		})
	})
	t.Run("by another", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.conn.hold()
			w.locked(func() { w.Put(pattern(0, 100)); w.FlushAside() })
			synctest.Wait()
			w.put(1, 10)
			drained := drain(w)
			must(t, "drained", done(drained), false)
			w.conn.let()
			must(t, "drained", done(drained), false)
			w.conn.let()
			must(t, "drained", done(drained), true)
		})
	})
	t.Run("not after all", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			w := newWay(t, 0)
			w.conn.hold()
			w.locked(func() { w.Put(pattern(0, 100)); w.FlushAside() })
			synctest.Wait()
			w.put(1, 10)
			drained := drain(w)
			w.locked(w.Close)
			must(t, "drained", done(drained), true)
			w.conn.open()
			synctest.Wait()
			must(t, "writes", len(w.conn.sizes()), 1) // what was under way when it was closed
			w.locked(func() { must(t, "told", len(w.broken), 0) })
		})
	})
}

// Moving a deadline costs something, so it is moved when an eighth of the time is gone.
func TestDeadlinesAreMovedSeldom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const limit = 8 * time.Second
		w := newWay(t, limit)
		write := func(want ...time.Duration) {
			t.Helper()
			w.put(1, 10)
			if got := w.conn.set(); !slices.Equal(got, want) {
				t.Fatalf("deadlines were set to %v from now, want %v", got, want)
			}
		}
		write(limit)
		write()
		time.Sleep(time.Second)
		write()
		time.Sleep(time.Nanosecond)
		write(limit)
		time.Sleep(time.Hour)
		write(limit)
		write()
	})
}

// Each piece has the whole time: a peer that takes a little now and then is slow, not dead.
func TestEachPieceHasItsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const limit = 8 * time.Second
		w := newWay(t, limit)
		w.conn.hold()
		go w.put(1, 3*FrameSize)
		for range 4 {
			synctest.Wait()
			if got := w.conn.set(); !slices.Equal(got, []time.Duration{limit}) {
				t.Fatalf("deadlines were set to %v from now", got)
			}
			time.Sleep(5 * time.Second)
			w.conn.let()
		}
		synctest.Wait()
	})
}

func TestWithoutALimitThereIsNoDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := newWay(t, 0)
		w.put(1, 100_000)
		time.Sleep(time.Hour)
		w.put(1, 10)
		must(t, "deadlines", len(w.conn.set()), 0)
	})
}

// Who leaves has less time for its last words, and nobody gives it more.
func TestHurry(t *testing.T) {
	t.Parallel()
	for _, before := range []time.Duration{0, 30 * time.Second} {
		t.Run(fmt.Sprintf("before %v", before), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := newWay(t, before)
				w.put(1, 10)
				w.conn.set()
				expect := func(want ...time.Duration) {
					t.Helper()
					if got := w.conn.set(); !slices.Equal(got, want) {
						t.Fatalf("deadlines were set to %v from now, want %v", got, want)
					}
				}
				time.Sleep(time.Second / 4)
				w.locked(func() { w.Hurry(2 * time.Second) })
				expect(2 * time.Second)
				w.locked(func() { w.Hurry(time.Minute) })
				w.locked(func() { w.Hurry(2 * time.Second) })
				expect()
				time.Sleep(time.Second)
				w.put(1, 10)
				expect(2 * time.Second)
				time.Sleep(time.Second / 2)
				w.put(1, 10)
				expect(2 * time.Second)
				w.locked(func() { w.Hurry(time.Second) })
				expect(time.Second)
			})
		})
	}
}

// What is being written when the hurry begins has less time too, though its deadline was set before.
func TestHurryEndsAWriteUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close() // nobody reads
		w := newWay(t, 0)
		w.start(near, 30*time.Second)
		drained := make(chan bool, 1)
		go w.put(1, 10)
		time.Sleep(10 * time.Second)
		w.put(3, 10)
		go w.locked(func() { w.Hurry(time.Second); w.Drain(); drained <- true })
		time.Sleep(time.Second - time.Nanosecond)
		must(t, "ended", done(drained), false)
		time.Sleep(time.Nanosecond)
		must(t, "ended", done(drained), true)
		w.locked(func() {
			if len(w.broken) != 1 || !errors.Is(w.broken[0], os.ErrDeadlineExceeded) {
				t.Fatalf("told was %v", w.broken)
			}
		})
	})
}

// The other end of a connection reads what was put, in order, whatever is written together.
func TestOverAConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := newWay(t, 0)
		w.start(near, time.Minute)
		const streams, times = 10, 50
		for i := range uint32(streams) {
			go func() {
				for n := range times {
					w.put(2*i+1, n)
				}
			}()
		}
		framer := http2.NewFramer(nil, far)
		next := make(map[uint32]int)
		for range streams * times {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			h := frame.Header()
			must(t, fmt.Sprint("the next frame of stream ", h.StreamID), int(h.Length), next[h.StreamID])
			next[h.StreamID]++
		}
		must(t, "streams", len(next), streams)
		far.Close()
	})
}

// A limit that was shortened holds for what is left of a buffer too, and for the first write after it.
func TestHurryHoldsForTheRestOfABuffer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWay(t, 30*time.Second)
		w.conn.hold()
		go w.put(1, 3*FrameSize)
		time.Sleep(5 * time.Second)
		w.locked(func() { w.Hurry(time.Second) })
		w.conn.set()
		w.conn.let()
		synctest.Wait()
		for _, left := range w.conn.set() {
			if left > time.Second {
				t.Errorf("a write had %v after the hurry", left)
			}
		}
		w.conn.open()
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWay(t, 30*time.Second)
		w.put(1, 10)
		time.Sleep(10 * time.Second)
		w.locked(func() { w.Hurry(time.Second) })
		time.Sleep(19*time.Second + 50*time.Millisecond)
		w.conn.set()
		w.put(1, 10)
		if set := w.conn.set(); len(set) != 1 || set[0] != time.Second {
			t.Errorf("the write had %v", set)
		}
	})
}
