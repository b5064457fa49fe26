package storetest

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/store"
)

func logs(t *testing.T, h Harness) {
	s := open(t, h)
	ref, other := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 2}
	var want []byte
	for n := range 50 {
		data := bytes.Repeat([]byte{byte('a' + n%26)}, 1+n*7)
		chunk := store.Chunk{Ref: ref, Offset: uint64(len(want)), Step: int32(n % 3), Stream: store.Stdout, Time: time.Unix(int64(n), 0), Data: data}
		noise := store.Chunk{Ref: other, Offset: uint64(n), Stream: store.Stderr, Data: []byte("!")}
		if err := s.AppendLogs(t.Context(), []store.Chunk{chunk, noise}, nil); err != nil {
			t.Fatal(err)
		}
		want = append(want, data...)
	}
	if state, err := s.LogState(t.Context(), ref); err != nil || state.Bytes != uint64(len(want)) || state.End != nil {
		t.Errorf("the state is %+v, %v", state, err)
	}
	for _, maxBytes := range []int{1, 1000, 1 << 20} {
		for offset := 0; offset <= len(want); offset += 97 {
			var got []byte
			for at := uint64(offset); ; {
				chunks, err := s.ReadLogs(t.Context(), ref, at, maxBytes)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range chunks {
					if c.Offset != at {
						t.Fatalf("a chunk begins at %d instead of %d", c.Offset, at)
					}
					got = append(got, c.Data...)
					at += uint64(len(c.Data))
				}
				if len(chunks) == 0 {
					break
				}
			}
			if !bytes.Equal(got, want[offset:]) {
				t.Fatalf("from %d in pieces of %d: %d bytes, want %d", offset, maxBytes, len(got), len(want)-offset)
			}
		}
	}
	if chunks, err := s.ReadLogs(t.Context(), store.LogRef{Job: id(2), Attempt: 1}, 0, 100); err != nil || len(chunks) != 0 {
		t.Errorf("a log that is not there gave %v, %v", chunks, err)
	}
}

func logEnds(t *testing.T, h Harness) {
	s := open(t, h)
	ref := store.LogRef{Job: id(1), Attempt: 1}
	end := store.LogEnd{Ref: ref, Bytes: 5, Missing: "why", Streams: []store.StreamTotal{{Step: 1, Stream: store.Stderr, Bytes: 5, SHA256: [32]byte{9}}}}
	if err := s.AppendLogs(t.Context(), nil, []store.LogEnd{end}); err != nil {
		t.Fatal(err)
	}
	if state, err := s.LogState(t.Context(), ref); err != nil || state.Bytes != 0 || !reflect.DeepEqual(*state.End, end) {
		t.Errorf("the state is %+v, %v", state, err)
	}
	if state, err := s.LogState(t.Context(), store.LogRef{Job: id(1), Attempt: 2}); err != nil || state.End != nil {
		t.Errorf("the state of another attempt is %+v, %v", state, err)
	}
}
