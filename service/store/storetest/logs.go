package storetest

import (
	"bytes"
	"math"
	"reflect"
	"testing"

	"github.com/hodei-jobs/hodei/service/store"
)

// logs: the bytes of an attempt, from anywhere, in pieces of any size.
func logs(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){"Offsets": logOffsets, "Attempts": logsApart, "Ends": logEnds, "Large": largeChunks})
}

// readAll reads a log in pieces and checks that they follow each other.
func readAll(t tester, s store.Store, ref store.LogRef, offset uint64, maxBytes int) []byte {
	t.Helper()
	var got []byte
	for {
		chunks, err := s.ReadLogs(t.Context(), ref, offset, maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(chunks) == 0 {
			return got
		}
		size := 0
		for _, c := range chunks {
			if c.Offset != offset || c.Ref != ref || size > 0 && size >= maxBytes {
				t.Fatalf("after %d bytes of a piece of %d there is chunk %+v instead of one at %d", size, maxBytes, c, offset)
			}
			got = append(got, c.Data...)
			offset += uint64(len(c.Data))
			size += len(c.Data)
		}
	}
}

func logOffsets(t *testing.T, h Harness) {
	s := open(t, h)
	ref, other := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 2}
	var want []byte
	for n := range 50 {
		data := bytes.Repeat([]byte{byte('a' + n%26)}, 1+n*7)
		chunk := store.Chunk{Ref: ref, Offset: uint64(len(want)), Step: int32(n % 3), Stream: store.Stdout, Time: at(n), Data: data}
		noise := store.Chunk{Ref: other, Offset: uint64(n), Stream: store.Stderr, Data: []byte("!")}
		appendLogs(t, s, chunk, noise)
		want = append(want, data...)
	}
	if state, err := s.LogState(t.Context(), ref); err != nil || state.Bytes != uint64(len(want)) || state.End != nil {
		t.Errorf("the state is %+v, %v", state, err)
	}
	for _, maxBytes := range []int{0, 1, 1000, math.MaxInt} {
		for offset := 0; offset <= len(want); offset += 97 {
			if got := readAll(t, s, ref, uint64(offset), maxBytes); !bytes.Equal(got, want[offset:]) {
				t.Fatalf("from %d in pieces of %d: %d bytes, want %d", offset, maxBytes, len(got), len(want)-offset)
			}
		}
	}
	for _, offset := range []uint64{uint64(len(want)), uint64(len(want)) + 1, math.MaxInt64, math.MaxUint64} {
		if chunks, err := s.ReadLogs(t.Context(), ref, offset, 100); err != nil || len(chunks) != 0 {
			t.Errorf("behind the end, at %d, there is %+v, %v", offset, chunks, err)
		}
	}
}

// logsApart: neither other attempts nor jobs with neighbouring ids get into a log, and every field of a chunk comes back.
func logsApart(t *testing.T, h Harness) {
	s := h.Open(t)
	var chunks []store.Chunk
	for n := range 3 {
		for _, attempt := range []int32{1, 2, 255, 256, math.MaxInt32} {
			ref := store.LogRef{Job: id(n), Attempt: attempt}
			chunks = append(chunks,
				store.Chunk{Ref: ref, Step: int32(n), Stream: store.Stdout, Time: at(n).Add(1), Data: []byte{byte(n), 0, 0xff}},
				store.Chunk{Ref: ref, Offset: 3, Step: 99, Stream: store.Stderr, Time: at(n), Data: []byte{byte(attempt)}})
		}
	}
	appendLogs(t, s, chunks...)
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	for i := 0; i < len(chunks); i += 2 {
		if got, err := s.ReadLogs(t.Context(), chunks[i].Ref, 0, 1000); err != nil || !reflect.DeepEqual(got, chunks[i:i+2]) {
			t.Errorf("got %+v, want %+v, %v", got, chunks[i:i+2], err)
		}
	}
	for _, ref := range []store.LogRef{{Job: id(3), Attempt: 1}, {Job: id(0), Attempt: 3}, {}} {
		if got, err := s.ReadLogs(t.Context(), ref, 0, 100); err != nil || len(got) != 0 {
			t.Errorf("a log that is not there gave %+v, %v", got, err)
		}
		if state, err := s.LogState(t.Context(), ref); err != nil || !reflect.DeepEqual(state, store.LogState{}) {
			t.Errorf("a log that is not there has state %+v, %v", state, err)
		}
	}
}

func logEnds(t *testing.T, h Harness) {
	s := h.Open(t)
	ref, byCommit := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 3}
	end := store.LogEnd{Ref: ref, Bytes: 5, Missing: "why", Streams: []store.StreamTotal{
		{Step: 1, Stream: store.Stderr, Bytes: 5, SHA256: [32]byte{9}}, {Step: 0, Stream: store.Stdout, Bytes: math.MaxUint64, SHA256: [32]byte{31: 1}},
	}}
	complete := store.LogEnd{Ref: byCommit, Bytes: 1}
	if err := s.AppendLogs(t.Context(), []store.Chunk{{Ref: byCommit, Data: []byte("x")}}, []store.LogEnd{end}); err != nil {
		t.Fatal(err)
	}
	commit(t, s, &store.Batch{Ends: []store.LogEnd{complete}})
	for range 2 {
		if state, err := s.LogState(t.Context(), ref); err != nil || !reflect.DeepEqual(state, store.LogState{End: &end}) {
			t.Errorf("the state is %+v, %v", state, err)
		}
		if state, err := s.LogState(t.Context(), byCommit); err != nil || !reflect.DeepEqual(state, store.LogState{Bytes: 1, End: &complete}) {
			t.Errorf("the state is %+v, %v", state, err)
		}
		if state, err := s.LogState(t.Context(), store.LogRef{Job: id(1), Attempt: 2}); err != nil || state.End != nil {
			t.Errorf("the state of another attempt is %+v, %v", state, err)
		}
		s = h.Reopen(t, s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// largeChunks: megabytes in one call, of which a page is read without the rest.
func largeChunks(t *testing.T, h Harness) {
	s := open(t, h)
	ref := store.LogRef{Job: id(1), Attempt: 1}
	random := seeded(9)
	var want []byte
	var chunks []store.Chunk
	for range 40 {
		data := make([]byte, 1+random.IntN(200_000))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		chunks = append(chunks, store.Chunk{Ref: ref, Offset: uint64(len(want)), Stream: store.Stdout, Data: data})
		want = append(want, data...)
	}
	appendLogs(t, s, chunks...)
	for _, offset := range []int{0, 1, len(want) / 2, len(want) - 1} {
		if got := readAll(t, s, ref, uint64(offset), 1<<20); !bytes.Equal(got, want[offset:]) {
			t.Errorf("from %d there are %d bytes, want %d, or others", offset, len(got), len(want)-offset)
		}
	}
}
