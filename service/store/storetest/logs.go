package storetest

import (
	"bytes"
	"context"
	"math"
	"reflect"
	"sync"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// logs: the blocks of an attempt, from anywhere, in pieces of any size.
func logs(t *testing.T, h Harness) {
	aspects(t, h, map[string]func(*testing.T, Harness){
		"Offsets": logOffsets, "Attempts": logsApart, "Ends": logEnds, "Large": largeBlocks,
		"Merges": mergedLogs, "ReadWhileMerged": logsReadWhileMerged, "Removal": removedLogs, "RemovedWhileMerged": logsRemovedWhileMerged,
		"EndsAfterBytes": endsAfterBytes,
	})
}

// block holds two bytes and a line for each byte of its data: a store must not take one for the other.
func block(ref store.LogRef, before *store.LogBlock, data []byte) store.LogBlock {
	b := store.LogBlock{Ref: ref, Bytes: uint32(2 * len(data)), Lines: uint32(len(data)), Time: at(len(data)).Add(1), Data: data}
	if before != nil {
		b.Offset, b.Line = before.End(), before.Line+uint64(before.Lines)
	}
	return b
}

// blocksOf makes blocks of a log that follow each other.
func blocksOf(ref store.LogRef, data ...string) []store.LogBlock {
	blocks := make([]store.LogBlock, len(data))
	var before *store.LogBlock
	for i := range data {
		blocks[i] = block(ref, before, []byte(data[i]))
		before = &blocks[i]
	}
	return blocks
}

// merged is one block in the place of some.
func merged(blocks []store.LogBlock) store.LogBlock {
	m := blocks[0]
	m.Data = bytes.Clone(m.Data)
	for _, b := range blocks[1:] {
		m.Bytes, m.Lines, m.Data = m.Bytes+b.Bytes, m.Lines+b.Lines, append(m.Data, b.Data...)
	}
	return m
}

// readAll reads a log in pieces, checks that they follow each other, and returns the data and where the first block begins.
func readAll(t tester, s store.Store, ref store.LogRef, offset uint64, maxBytes int) (data []byte, first uint64) {
	t.Helper()
	data, first, err := readBlocks(context.WithoutCancel(t.Context()), s, ref, offset, maxBytes, t.Errorf)
	if err != nil {
		t.Fatal(err)
	}
	return data, first
}

func readBlocks(
	ctx context.Context, s store.Store, ref store.LogRef, offset uint64, maxBytes int, wrong func(string, ...any),
) (data []byte, first uint64, err error) {
	first = offset
	for {
		blocks, err := s.ReadLogs(ctx, ref, offset, maxBytes)
		if err != nil || len(blocks) == 0 {
			return data, first, err
		}
		size := 0
		for i, b := range blocks {
			if i == 0 && b.Offset <= offset && b.End() > offset { // it may have been merged since the last piece
				if len(data) == 0 {
					first, offset = b.Offset, b.Offset
				}
				b.Data = b.Data[(offset-b.Offset)/2:]
				b.Offset, b.Bytes = offset, b.Bytes-uint32(offset-b.Offset)
			}
			if i > 0 && size >= max(maxBytes, 1) || b.Offset != offset || b.Ref != ref {
				wrong("after %d bytes of a piece of %d there is a block of %d bytes at %d of %v instead of one at %d",
					size, maxBytes, b.Bytes, b.Offset, b.Ref, offset)
				return data, first, nil
			}
			data = append(data, b.Data...)
			offset = b.End()
			size += len(b.Data)
		}
	}
}

func logOffsets(t *testing.T, h Harness) {
	s := open(t, h)
	ref, other := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 2}
	var want []byte
	var last, noise *store.LogBlock
	for n := range 50 {
		b := block(ref, last, bytes.Repeat([]byte{byte('a' + n%26)}, 1+n*7))
		o := block(other, noise, []byte("!"))
		appendLogs(t, s, b, o)
		want = append(want, b.Data...)
		last, noise = &b, &o
	}
	size := uint64(len(want))
	if state, err := s.LogState(t.Context(), ref); err != nil || !reflect.DeepEqual(state, store.LogState{Bytes: 2 * size, Lines: size}) {
		t.Errorf("the state is %+v, %v", state, err)
	}
	for _, maxBytes := range []int{-1, 0, 1, 1000, math.MaxInt} {
		for offset := uint64(0); offset < 2*size; offset += 97 {
			got, first := readAll(t, s, ref, offset, maxBytes)
			if first > offset || !bytes.Equal(got, want[first/2:]) {
				t.Fatalf("from %d in pieces of %d: %d bytes from %d on, want %d", offset, maxBytes, len(got), first, size-first/2)
			}
		}
	}
	for _, offset := range []uint64{2 * size, 2*size + 1, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		if blocks, err := s.ReadLogs(t.Context(), ref, offset, 100); err != nil || len(blocks) != 0 {
			t.Errorf("behind the end, at %d, there is %+v, %v", offset, blocks, err)
		}
	}
}

// logsApart: neither other attempts nor jobs with neighbouring ids get into a log, and every field of a block comes back.
func logsApart(t *testing.T, h Harness) {
	s := h.Open(t)
	var blocks []store.LogBlock
	for n := range 3 {
		for _, attempt := range []int32{1, 2, 255, 256, math.MaxInt32} {
			ref := store.LogRef{Job: id(n), Attempt: attempt}
			blocks = append(blocks,
				store.LogBlock{Ref: ref, Bytes: math.MaxUint32, Lines: 9, Time: at(n).Add(1), Data: []byte{byte(n), 0, 0xff}},
				store.LogBlock{Ref: ref, Offset: math.MaxUint32, Bytes: 1, Line: 9, Lines: math.MaxUint32, Data: []byte{byte(attempt)}})
		}
	}
	appendLogs(t, s, blocks...)
	s = h.Reopen(t, s)
	defer s.Close() //nolint:errcheck // what counts was read
	for i := 0; i < len(blocks); i += 2 {
		if got, err := s.ReadLogs(t.Context(), blocks[i].Ref, 0, 1000); err != nil || !reflect.DeepEqual(got, blocks[i:i+2]) {
			t.Errorf("got %+v, want %+v, %v", got, blocks[i:i+2], err)
		}
	}
	for _, ref := range []store.LogRef{{Job: id(3), Attempt: 1}, {Job: id(0), Attempt: 3}, {}} {
		if got, err := s.ReadLogs(t.Context(), ref, 0, 100); err != nil || len(got) != 0 {
			t.Errorf("a log that is not there gave %+v, %v", got, err)
		}
		wantLog(t, s, ref, store.LogState{})
	}
}

func wantLog(t tester, s store.Store, ref store.LogRef, want store.LogState) {
	t.Helper()
	if state, err := s.LogState(t.Context(), ref); err != nil || !reflect.DeepEqual(state, want) {
		t.Errorf("the state of %v is %+v, want %+v, %v", ref, state, want, err)
	}
}

func logEnds(t *testing.T, h Harness) {
	s := h.Open(t)
	ref, byCommit := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 3}
	end := store.LogEnd{Ref: ref, Bytes: 5, Missing: "why", Removed: "disk", Streams: []store.StreamTotal{
		{Step: 1, Stream: store.Stderr, Bytes: 5, SHA256: [32]byte{9}}, {Step: 0, Stream: store.Stdout, Bytes: math.MaxUint64, SHA256: [32]byte{31: 1}},
	}}
	complete := store.LogEnd{Ref: byCommit, Bytes: 1}
	if err := s.AppendLogs(t.Context(), blocksOf(byCommit, "x"), []store.LogEnd{end}); err != nil {
		t.Fatal(err)
	}
	commit(t, s, &store.Batch{Ends: []store.LogEnd{complete}})
	for range 2 {
		wantLog(t, s, ref, store.LogState{End: &end})
		wantLog(t, s, byCommit, store.LogState{Bytes: 2, Lines: 1, End: &complete})
		wantLog(t, s, store.LogRef{Job: id(1), Attempt: 2}, store.LogState{})
		s = h.Reopen(t, s)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// largeBlocks: megabytes in one call, of which a page is read without the rest.
func largeBlocks(t *testing.T, h Harness) {
	s := open(t, h)
	ref := store.LogRef{Job: id(1), Attempt: 1}
	random := seeded(9)
	var want []byte
	var blocks []store.LogBlock
	var before *store.LogBlock
	for i := range 40 {
		data := make([]byte, 1+random.IntN(200_000))
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		blocks = append(blocks, block(ref, before, data))
		before = &blocks[i]
		want = append(want, data...)
	}
	appendLogs(t, s, blocks...)
	for _, offset := range []int{0, 1, len(want), 2*len(want) - 1} {
		if got, first := readAll(t, s, ref, uint64(offset), 1<<20); first > uint64(offset) || !bytes.Equal(got, want[first/2:]) {
			t.Errorf("from %d there are %d bytes from %d on, or others", offset, len(got), first)
		}
	}
	if page, err := s.ReadLogs(t.Context(), ref, uint64(len(want)), 1); err != nil || len(page) != 1 {
		t.Errorf("a page of one byte has %d blocks, %v", len(page), err)
	}
}

// mergedLogs: a block takes the place of those that begin inside it, and only of those. One that does not fit changes nothing.
func mergedLogs(t *testing.T, h Harness) {
	s := h.Open(t)
	ref, other, none := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 2}, store.LogRef{Job: id(2), Attempt: 1}
	blocks, others := blocksOf(ref, "a", "bb", "ccc", "d", "e", "ff"), blocksOf(other, "x", "y")
	appendLogs(t, s, blocks...)
	appendLogs(t, s, others...)
	cut, beside := merged(blocks[1:4]), blocks[1]
	cut.Bytes--
	beside.Offset, beside.Bytes = beside.Offset+1, merged(blocks[2:4]).Bytes
	absent := merged(others)
	absent.Ref = none
	mergeLogs(t, s) // of nothing
	mergeLogs(t, s, cut, absent, beside, merged(blocks[1:4]), merged(others))
	want := []store.LogBlock{blocks[0], merged(blocks[1:4]), blocks[4], blocks[5]}
	check := func() {
		t.Helper()
		if got, err := s.ReadLogs(t.Context(), ref, 0, 1000); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v, %v", got, want, err)
		}
		wantLog(t, s, ref, store.LogState{Bytes: 20, Lines: 10})
		wantLog(t, s, none, store.LogState{})
	}
	check()
	mergeLogs(t, s, merged(blocks[:3]), merged(blocks[1:4])) // of blocks that are no more, and again
	check()
	s = h.Reopen(t, s)
	check()
	if got, err := s.ReadLogs(t.Context(), ref, blocks[3].Offset, 1); err != nil || !reflect.DeepEqual(got, want[1:2]) {
		t.Errorf("in the middle of a merged block there is %+v, %v", got, err)
	}
	mergeLogs(t, s, merged(blocks[4:])) // at the end
	want = append(want[:2], merged(blocks[4:]))
	check()
	mergeLogs(t, s, merged(want)) // merged ones again
	want = []store.LogBlock{merged(want)}
	check()
	if got, err := s.ReadLogs(t.Context(), other, 0, 1000); err != nil || !reflect.DeepEqual(got, []store.LogBlock{merged(others)}) {
		t.Errorf("another log is %+v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// logsReadWhileMerged: readers see a log whole at all times, whatever form its blocks have.
func logsReadWhileMerged(t *testing.T, h Harness) {
	s := open(t, h)
	const total, width = 120, 8
	ref := store.LogRef{Job: id(1), Attempt: 1}
	var want []byte
	pieces := make([]string, total)
	for n := range pieces {
		pieces[n] = string(bytes.Repeat([]byte{byte(n)}, 1+n%5))
		want = append(want, pieces[n]...)
	}
	blocks := blocksOf(ref, pieces...)
	appendLogs(t, s, blocks...)
	var group sync.WaitGroup
	done := make(chan struct{})
	for reader := range 3 {
		group.Go(func() {
			for random := seeded(uint64(reader)); ; {
				select {
				case <-done:
					return
				default:
				}
				offset, page := random.Uint64N(uint64(2*len(want))), []int{1, 40, 1 << 20}[reader]
				got, first, err := readBlocks(context.Background(), s, ref, offset, page, t.Errorf)
				if err != nil || first > offset || first%2 != 0 || !bytes.Equal(got, want[first/2:]) {
					t.Errorf("from %d on there are %d bytes from %d on, want %d, %v", offset, len(got), first, len(want)-int(first/2), err)
					return
				}
			}
		})
	}
	for step := width; step <= total; step *= width { // blocks of 8, then of 64
		for n := 0; n < total; n += step {
			mergeLogs(t, s, merged(blocks[n:min(n+step, total)]))
		}
	}
	close(done)
	group.Wait()
	if got, err := s.ReadLogs(t.Context(), ref, 0, 1<<20); err != nil || len(got) != 2 {
		t.Errorf("%d blocks are left, want 2, %v", len(got), err)
	}
}

// endsAfterBytes: whoever sees the end of a log sees all bytes that are stored before it or with it.
func endsAfterBytes(t *testing.T, h Harness) {
	s := open(t, h)
	for n := range 200 {
		ref := store.LogRef{Job: id(n), Attempt: 1}
		blocks := blocksOf(ref, "ab", "c")
		written := make(chan error, 1)
		go func() {
			written <- s.AppendLogs(t.Context(), blocks, []store.LogEnd{{Ref: ref, Bytes: blocks[len(blocks)-1].End()}})
		}()
		for ended := false; !ended; {
			state, err := s.LogState(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if ended = state.End != nil; ended && state.Bytes != state.End.Bytes {
				t.Fatalf("a log of %d bytes has ended with %d", state.Bytes, state.End.Bytes)
			}
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
}

// removedLogs: of a log that is removed the end is left, which says so. One that has not ended stays.
func removedLogs(t *testing.T, h Harness) {
	s := h.Open(t)
	gone, empty, open := store.LogRef{Job: id(1), Attempt: 2}, store.LogRef{Job: id(1), Attempt: 4}, store.LogRef{Job: id(1), Attempt: 5}
	before, behind := store.LogRef{Job: id(1), Attempt: 1}, store.LogRef{Job: id(1), Attempt: 3}
	var blocks []store.LogBlock
	ends := []store.LogEnd{{Ref: empty}}
	for _, ref := range []store.LogRef{before, gone, behind, open} {
		blocks = append(blocks, blocksOf(ref, "ab", "c")...)
		if ref != open {
			ends = append(ends, store.LogEnd{Ref: ref, Bytes: 6, Streams: []store.StreamTotal{{Stream: store.Stdout, Bytes: 6}}})
		}
	}
	if err := s.AppendLogs(t.Context(), blocks, ends); err != nil {
		t.Fatal(err)
	}
	end := store.LogEnd{Ref: gone, Bytes: 6, Removed: "too old", Streams: []store.StreamTotal{{Stream: store.Stdout, Bytes: 6}}}
	none := store.LogRef{Job: id(2), Attempt: 1}
	removals := []store.LogEnd{end, {Ref: open, Removed: "x"}, {Ref: empty, Removed: "too old"}, {Ref: none, Removed: "x"}}
	for range 2 { // the second time nothing is left to do
		if err := s.RemoveLogs(t.Context(), removals); err != nil {
			t.Fatal(err)
		}
		s = h.Reopen(t, s)
		mergeLogs(t, s, merged(blocksOf(gone, "ab", "c"))) // too late
		wantLog(t, s, gone, store.LogState{End: &end})
		wantLog(t, s, empty, store.LogState{End: &store.LogEnd{Ref: empty, Removed: "too old"}})
		wantLog(t, s, open, store.LogState{Bytes: 6, Lines: 3})
		wantLog(t, s, none, store.LogState{})
		for i, ref := range []store.LogRef{before, behind} {
			wantLog(t, s, ref, store.LogState{Bytes: 6, Lines: 3, End: &ends[1+2*i]})
			if got, err := s.ReadLogs(t.Context(), ref, 0, 1000); err != nil || !reflect.DeepEqual(got, blocksOf(ref, "ab", "c")) {
				t.Errorf("the log beside it is %+v, %v", got, err)
			}
		}
		if got, err := s.ReadLogs(t.Context(), gone, 0, 1000); err != nil || len(got) != 0 {
			t.Errorf("of a removed log there is %+v, %v", got, err)
		}
	}
	if err := s.RemoveLogs(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// logsRemovedWhileMerged: what is merged while it is removed, or while its job is forgotten, does not come back.
func logsRemovedWhileMerged(t *testing.T, h Harness) {
	s := open(t, h)
	const total = 60
	var jobs []*job.Job
	var refs []store.LogRef
	var ends []store.LogEnd
	for n := range total {
		j := end(t, newJob(t, n, nil))
		ref := store.LogRef{Job: j.ID, Attempt: 1}
		jobs, refs, ends = append(jobs, j), append(refs, ref), append(ends, store.LogEnd{Ref: ref, Bytes: 6})
		appendLogs(t, s, blocksOf(ref, "a", "b", "c")...)
	}
	commit(t, s, &store.Batch{Accepted: jobs, Ends: ends})
	var group sync.WaitGroup
	group.Go(func() {
		for _, ref := range refs {
			if err := s.MergeLogs(context.Background(), []store.LogBlock{merged(blocksOf(ref, "a", "b", "c"))}); err != nil {
				t.Error(err)
			}
		}
	})
	group.Go(func() {
		for n := total / 2; n < total; n++ {
			if err := s.RemoveLogs(context.Background(), []store.LogEnd{{Ref: refs[n], Bytes: 6, Removed: "why"}}); err != nil {
				t.Error(err)
			}
		}
	})
	for n := range total/2 + 1 {
		expire(t, s, at(n+9), at(0))
	}
	group.Wait()
	for n, ref := range refs {
		want := store.LogState{}
		if n >= total/2 {
			want.End = &store.LogEnd{Ref: ref, Bytes: 6, Removed: "why"}
		}
		wantLog(t, s, ref, want)
	}
}
