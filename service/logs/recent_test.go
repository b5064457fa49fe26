package logs

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/store"
)

// A follower gets every byte once and in order, from memory or from the store, however far it is behind, and the end only after all
// of them. One that is up to date does not read the store.
func TestFollowersGetEveryByte(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, c := newKeeper()
		ctx := t.Context()
		var log, got []byte
		var tail *Tail
		read := func() *store.LogEnd {
			chunks, end, _, err := tail.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for i := range chunks {
				if chunks[i].Offset != uint64(len(got)) {
					t.Fatalf("after %d bytes comes a chunk at %d", len(got), chunks[i].Offset)
				}
				got = append(got, chunks[i].Data...)
			}
			return end
		}
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			switch event := rapid.IntRange(0, 5).Draw(t, "event"); {
			case event == 0 && tail == nil:
				var err error
				if tail, err = s.Tail(ctx, testRef, 0); err != nil {
					t.Fatal(err)
				}
			case event < 3 && tail != nil:
				upToDate, reads := len(got) == len(log) && len(log) > 0, c.reads
				if end := read(); end != nil {
					t.Fatalf("a log that goes on has ended: %+v", end)
				}
				if upToDate && len(s.heads[testRef].recent.chunks) > 0 && c.reads > reads {
					t.Fatal("a reader that has everything reads the store")
				}
			default:
				data := rapid.SliceOfN(rapid.Byte(), 1, 20).Draw(t, "data")
				if rapid.IntRange(0, 5).Draw(t, "large") == 0 {
					data = bytes.Repeat(data, recentBytes/len(data))
				}
				chunk := Chunk{Ref: testRef, Offset: uint64(len(log)), Stream: store.Stdout, Data: data}
				commitTo(t, s, []Chunk{chunk})
				log = append(log, data...)
			}
		}
		if h := s.heads[testRef]; h != nil && h.recent.bytes > recentBytes {
			t.Fatalf("%d bytes are kept in memory", h.recent.bytes)
		}
		commitTo(t, s, nil, store.LogEnd{Ref: testRef, Bytes: uint64(len(log))})
		if tail == nil {
			return
		}
		for range len(log) + 2 {
			if end := read(); end != nil {
				break
			}
		}
		if !bytes.Equal(got, log) {
			t.Fatalf("the follower got %d bytes of %d, or others", len(got), len(log))
		}
		tail.Close()
		if len(s.heads) > 0 {
			t.Fatal("the head of a log that has ended is kept")
		}
	})
}

// The tail of a log is that of the lines that the reader wants.
func TestOffsetOfTail(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, _ := newKeeper()
		offset := 0
		var wanted []byte // the bytes of stderr
		var at []uint64   // where they lie
		for range rapid.IntRange(0, 60).Draw(t, "commits") {
			data := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n")), 1, 30).Draw(t, "data")
			stream := rapid.SampledFrom([]store.Stream{store.Stdout, store.Stderr}).Draw(t, "stream")
			if stream == store.Stderr {
				for i, b := range data {
					wanted, at = append(wanted, b), append(at, uint64(offset+i))
				}
			}
			commitTo(t, s, []Chunk{{Ref: testRef, Offset: uint64(offset), Stream: stream, Data: data}})
			offset += len(data)
		}
		n := rapid.IntRange(1, 100).Draw(t, "n")
		from, err := s.OffsetOfTail(t.Context(), testRef, n, func(c *Chunk) bool { return c.Stream == store.Stderr })
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for i, b := range wanted {
			if at[i] >= from {
				got = append(got, b)
			}
		}
		lines := bytes.SplitAfter(wanted, newline)
		if len(lines[len(lines)-1]) == 0 {
			lines = lines[:len(lines)-1]
		}
		if want := bytes.Join(lines[max(0, len(lines)-n):], nil); !bytes.Equal(got, want) {
			t.Fatalf("the last %d lines are %q, want %q", n, got, want)
		}
	})
}
