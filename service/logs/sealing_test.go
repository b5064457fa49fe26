package logs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

type noMetrics struct{}

func (noMetrics) LogBytes(int) {}

// counted counts the calls of a store, and does instead of a merge or a read what it is told to.
type counted struct {
	store.Logs
	states, reads, appends, blocks, merges int

	merge, read func() error
}

func (c *counted) LogState(ctx context.Context, ref store.LogRef) (store.LogState, error) {
	c.states++
	return c.Logs.LogState(ctx, ref)
}

func (c *counted) ReadLogs(ctx context.Context, ref store.LogRef, offset uint64, maxBytes int) ([]store.LogBlock, error) {
	c.reads++
	if c.read != nil {
		if err := c.read(); err != nil {
			return nil, err
		}
	}
	return c.Logs.ReadLogs(ctx, ref, offset, maxBytes)
}

func (c *counted) AppendLogs(ctx context.Context, blocks []store.LogBlock, ends []store.LogEnd) error {
	c.appends++
	c.blocks += len(blocks)
	return c.Logs.AppendLogs(ctx, blocks, ends)
}

func (c *counted) MergeLogs(ctx context.Context, blocks []store.LogBlock) error {
	c.merges++
	if c.merge != nil {
		if err := c.merge(); err != nil {
			return err
		}
	}
	return c.Logs.MergeLogs(ctx, blocks)
}

// newKeeper is a service without a goroutine: the test writes and seals.
func newKeeper() (*Service, *counted) {
	c := &counted{Logs: memstore.New()}
	return New(c, noMetrics{}, slog.New(slog.DiscardHandler)), c
}

func commitTo(t fatal, s *Service, chunks []Chunk, ends ...store.LogEnd) {
	t.Helper()
	if err := s.write(context.Background(), []*Append{{Chunks: chunks, Ends: ends, Done: func([]Ack) {}}}); err != nil {
		t.Fatal(err)
	}
}

func sealEverything(s *Service) {
	for s.sealNext(context.Background()) {
	}
}

func blocksIn(t fatal, s store.Logs, ref store.LogRef) (blocks []store.LogBlock) {
	t.Helper()
	for offset := uint64(0); ; offset = blocks[len(blocks)-1].End() {
		more, err := s.ReadLogs(context.Background(), ref, offset, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if len(more) == 0 {
			return blocks
		}
		blocks = append(blocks, more...)
	}
}

func line(n int) string { return strings.Repeat("x", n%70) + "\n" }

// Whatever is written in whatever commits, sealing changes no byte, and when the log has ended no two neighbours are left
// that would fit into one block.
func TestSealingKeepsEveryByte(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, c := newKeeper()
		var all []Chunk
		offset, commits := uint64(0), rapid.IntRange(1, 300).Draw(t, "commits")
		most := rapid.SampledFrom([]int{20, 3000, 200_000}).Draw(t, "most")
		if most == 200_000 {
			commits = min(commits, 20)
		}
		for n := range commits {
			var chunks []Chunk
			for range rapid.IntRange(1, 2).Draw(t, "chunks") {
				data := bytes.Repeat([]byte(line(n)), 1+rapid.SampledFrom([]int{0, 50, most / 3, most}).Draw(t, "length")/70)
				chunks = append(chunks, Chunk{
					Ref: testRef, Offset: offset, Stream: store.Stdout, Time: time.Unix(int64(n), 0).UTC(), Data: data,
				})
				offset += uint64(len(data))
			}
			all = append(all, slices.Clone(chunks)...)
			commitTo(t, s, chunks)
			switch rapid.IntRange(0, 9).Draw(t, "then") {
			case 0:
				sealEverything(s)
			case 1: // the server starts again
				*s = *New(c, noMetrics{}, s.logger)
			}
		}
		commitTo(t, s, nil, store.LogEnd{Ref: testRef, Bytes: offset})
		sealEverything(s)
		blocks := blocksIn(t, c, testRef)
		if got, want := join(decodeAll(t, blocks)), join(all); !slices.EqualFunc(got, want, sameChunk) {
			t.Fatalf("%d chunks became %d", len(want), len(got))
		}
		lines := uint64(0)
		for i := range blocks {
			if blocks[i].Line != lines {
				t.Fatalf("block %d begins with line %d, want %d", i, blocks[i].Line, lines)
			}
			lines += uint64(blocks[i].Lines)
			if i > 0 && blocks[i].Bytes+blocks[i-1].Bytes <= blockBytes {
				t.Fatalf("neighbours of %d and %d bytes are left in a log that has ended", blocks[i-1].Bytes, blocks[i].Bytes)
			}
		}
	})
}

func sameChunk(a, b Chunk) bool {
	return a.Offset == b.Offset && a.Step == b.Step && a.Stream == b.Stream && a.Time.Equal(b.Time) && bytes.Equal(a.Data, b.Data)
}

// A log that is written a line at a time never has many blocks, and no byte of it is moved often.
func TestLogOfManySmallCommitsIsSealedAsItGrows(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	const commits = 20_000
	moved := &movedBytes{Logs: c.Logs}
	c.Logs = moved
	offset := uint64(0)
	data := []byte(strings.Repeat("x", 99) + "\n")
	for n := range commits {
		commitTo(t, s, []Chunk{{Ref: testRef, Offset: offset, Stream: store.Stdout, Time: time.Unix(0, int64(n)), Data: data}})
		offset += uint64(len(data))
		sealEverything(s)
		if n%100 == 0 {
			full := int(offset / blockBytes)
			if blocks := blocksIn(t, c, testRef); len(blocks) > full+sealBlocks+15 {
				t.Fatalf("after %d commits there are %d blocks", n+1, len(blocks))
			}
		}
	}
	if moved.bytes > 8*offset {
		t.Errorf("%d bytes were moved for %d that were written", moved.bytes, offset)
	}
	if sealed := s.heads[testRef].small.sealed; sealed < offset-2*blockBytes {
		t.Errorf("of %d bytes those before %d are not looked at again", offset, sealed)
	}
}

type movedBytes struct {
	store.Logs
	bytes uint64
}

func (m *movedBytes) MergeLogs(ctx context.Context, blocks []store.LogBlock) error {
	for i := range blocks {
		m.bytes += uint64(blocks[i].Bytes)
	}
	return m.Logs.MergeLogs(ctx, blocks)
}

// The log of a short job costs one look at how far it has come and one append of one block.
func TestShortLogCostsNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	chunks := []Chunk{
		{Ref: testRef, Stream: store.Stdout, Time: time.Unix(1, 0), Data: []byte("a\n")},
		{Ref: testRef, Offset: 2, Stream: store.Stderr, Time: time.Unix(2, 0), Data: []byte("b\n")},
	}
	commitTo(t, s, chunks, store.LogEnd{Ref: testRef, Bytes: 4})
	sealEverything(s)
	if c.states != 1 || c.appends != 1 || c.blocks != 1 || c.reads != 0 || c.merges != 0 {
		t.Errorf("the store was asked for %+v", *c)
	}
	if len(s.heads) != 0 {
		t.Error("the log that has ended is kept in mind")
	}
}

// A log that is written in full blocks is not read again to seal it.
func TestLargeBlocksAreNotSealed(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	for n := range 40 {
		commitTo(t, s, []Chunk{{Ref: testRef, Offset: uint64(n * blockBytes), Stream: store.Stdout, Data: make([]byte, blockBytes)}})
	}
	if task, ok := s.unsealed.next(); ok || c.blocks != 40 {
		t.Errorf("of %d blocks those of %+v are sealed", c.blocks, task)
	}
	writeLines(t, s, 20*blockBytes, 20*blockBytes+sealBlocks)
	if task, _ := s.unsealed.next(); task.from != 40*blockBytes || task.to != task.from+2*sealBlocks {
		t.Errorf("what follows large blocks is sealed by %+v", task)
	}
}

// Neighbours that have too many segments together stay neighbours.
func TestSealingKeepsToTheSegmentsOfABlock(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	var all []Chunk
	for range sealBlocks {
		first := len(all)
		for range maxSegments / 30 {
			n := len(all)
			all = append(all, Chunk{Ref: testRef, Offset: uint64(n), Stream: store.Stream(1 + n%2), Time: time.Unix(1, 0), Data: []byte{byte(n)}})
		}
		commitTo(t, s, slices.Clone(all[first:]))
	}
	commitTo(t, s, nil, store.LogEnd{Ref: testRef, Bytes: uint64(len(all))})
	sealEverything(s)
	blocks := blocksIn(t, c, testRef)
	if chunks := decodeAll(t, blocks); len(blocks) != 3 || !slices.EqualFunc(chunks, all, sameChunk) {
		t.Errorf("%d chunks became %d in %d blocks", len(all), len(chunks), len(blocks))
	}
}

// A server that does not lead any more, and does not know it yet, seals the same log as the one that leads.
func TestSealingBesideAnotherServer(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	random := rand.NewChaCha8([32]byte{1})
	const size = 70_000 // three, of which two fit into a block, but not with the first one twice
	var want []byte
	for n := range 3 {
		data := make([]byte, size)
		_, _ = random.Read(data) // it never fails
		want = append(want, data...)
		commitTo(t, s, []Chunk{{Ref: testRef, Offset: uint64(n * size), Stream: store.Stdout, Time: time.Unix(1, 0), Data: data}})
	}
	blocks := blocksIn(t, c, testRef)
	reads := 0
	c.read = func() error {
		if reads++; reads == 2 { // the first block was read
			return s.merge(t.Context(), blocks[:2])
		}
		return nil
	}
	if _, err := s.seal(t.Context(), sealing{ref: testRef, to: 3 * size, ended: true}); err != nil || reads != 2 {
		t.Errorf("%d reads, %v", reads, err)
	}
	chunks := join(decodeAll(t, blocksIn(t, c.Logs, testRef)))
	if len(chunks) != 1 || !bytes.Equal(chunks[0].Data, want) {
		t.Errorf("there are other bytes, in %d chunks", len(chunks))
	}
}

// What an agent sends again after the end of a log does not have it sealed again, whether the log is followed or not.
func TestEndedLogIsSealedOnce(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	writeLines(t, s, 0, 3)
	for range 2 {
		tail, err := s.Tail(t.Context(), testRef, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			commitTo(t, s, nil, store.LogEnd{Ref: testRef, Bytes: 6})
			sealEverything(s)
		}
		tail.Close()
		writeLines(t, s, 2, 3)
		sealEverything(s)
		if c.reads != 1 || c.merges != 1 {
			t.Errorf("the log was read %d times and merged %d times", c.reads, c.merges)
		}
	}
}

// writeLines makes as many commits of a line each.
func writeLines(t fatal, s *Service, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		commitTo(t, s, []Chunk{{Ref: testRef, Offset: uint64(2 * n), Stream: store.Stdout, Time: time.Unix(1, 0), Data: []byte("x\n")}})
	}
}

// A log that cannot be sealed is as it was, and is sealed later.
func TestFailedSealingLosesNothing(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	c.merge = func() error { return errors.New("no merge today") }
	writeLines(t, s, 0, sealBlocks)
	sealEverything(s)
	c.merge, c.read = nil, func() error { return errors.New("no read today") }
	writeLines(t, s, sealBlocks, 2*sealBlocks)
	sealEverything(s)
	c.read = nil
	if blocks := blocksIn(t, c, testRef); len(blocks) != 2*sealBlocks || c.merges != 1 {
		t.Errorf("there are %d blocks after %d merges", len(blocks), c.merges)
	}
	writeLines(t, s, 2*sealBlocks, 3*sealBlocks)
	sealEverything(s)
	blocks := blocksIn(t, c, testRef)
	if chunks := decodeAll(t, blocks); len(blocks) != 1 || len(chunks) != 1 || len(chunks[0].Data) != 3*2*sealBlocks {
		t.Errorf("there are %d blocks of %d chunks", len(blocks), len(chunks))
	}
}

// What a commit under way writes may be in the store already, and must not be merged before it is known to be durable: it may be
// written again.
func TestOnlyWhatIsDurableIsSealed(t *testing.T) {
	t.Parallel()
	s, c := newKeeper()
	writeLines(t, s, 0, sealBlocks)
	underWay := encodeAll(t, []Chunk{{Ref: testRef, Offset: 2 * sealBlocks, Stream: store.Stdout, Data: []byte("x\n")}})
	if err := c.AppendLogs(t.Context(), underWay, nil); err != nil {
		t.Fatal(err)
	}
	sealEverything(s)
	if blocks := blocksIn(t, c, testRef); len(blocks) != 2 || blocks[1].Offset != 2*sealBlocks {
		t.Errorf("there are %d blocks", len(blocks))
	}
}

// The queue holds each log once, in the order in which they came, and no more than it may.
func TestQueueOfTheSealerIsBounded(t *testing.T) {
	t.Parallel()
	s, _ := newKeeper()
	ref := func(n int) store.LogRef { return store.LogRef{Job: job.ID{1}, Attempt: int32(10 + n)} }
	for n := range sealQueue {
		if !s.unsealed.add(sealing{ref: ref(n), to: 1}) || !s.unsealed.add(sealing{ref: ref(n), to: uint64(2 + n)}) {
			t.Fatalf("there is no room for log %d", n)
		}
	}
	writeLines(t, s, 0, sealBlocks) // there is no room for it
	for n := range sealQueue {
		if task, ok := s.unsealed.next(); !ok || task.ref != ref(n) || task.to != uint64(2+n) {
			t.Fatalf("log %d is %+v", n, task)
		}
	}
	if task, ok := s.unsealed.next(); ok {
		t.Errorf("%+v waits as well", task)
	}
	commitTo(t, s, nil, store.LogEnd{Ref: testRef, Bytes: 2 * sealBlocks})
	if task, ok := s.unsealed.next(); !ok || task.ref != testRef || !task.ended {
		t.Errorf("at its end the log that found no room is not sealed: %+v", task)
	}
}

// The sealer works beside the writer, which acknowledges without it, and the service ends when both have.
func TestServiceWaitsForTheSealer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := newKeeper()
		goOn := make(chan struct{})
		c.merge = func() error {
			<-goOn
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		var ended atomic.Bool
		go func() {
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
			ended.Store(true)
		}()
		for n := range sealBlocks + 1 {
			done := make(chan struct{})
			a := &Append{
				Chunks: []Chunk{{Ref: testRef, Offset: uint64(2 * n), Stream: store.Stdout, Data: []byte("x\n")}},
				Done:   func([]Ack) { close(done) },
			}
			if err := s.Append(a); err != nil {
				t.Error(err)
			}
			<-done
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		if ended.Load() {
			t.Error("the service ended before the sealer")
		}
		close(goOn)
		synctest.Wait()
		if blocks := blocksIn(t, c.Logs, testRef); !ended.Load() || len(blocks) != 2 {
			t.Errorf("the service has ended: %t; there are %d blocks", ended.Load(), len(blocks))
		}
	})
}

// Logs that grow alike come to be sealed at the same moment. The sealer leaves the machine to those who are waited for, and does not
// keep a server that stops.
func TestSealerRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, c := newKeeper()
		begin := time.Now()
		var merges []time.Duration
		c.merge = func() error {
			merges = append(merges, time.Since(begin))
			<-time.After(time.Millisecond)
			return nil
		}
		for i := range 5 {
			ref := store.LogRef{Job: testRef.Job, Attempt: int32(i + 1)}
			for n := range 2 {
				commitTo(t, s, []Chunk{{Ref: ref, Offset: uint64(2 * n), Stream: store.Stdout, Data: []byte("x\n")}})
			}
			commitTo(t, s, nil, store.LogEnd{Ref: ref, Bytes: 4})
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			s.sealAll(ctx)
		}()
		<-time.After((1+sealRest)*3*time.Millisecond + 2*time.Millisecond) // it rests after the fourth
		cancel()
		stopping := time.Now()
		<-stopped
		if took := time.Since(stopping); took > 0 {
			t.Errorf("the sealer rested for %v although the server stopped", took)
		}
		want := []time.Duration{0, 5 * time.Millisecond, 10 * time.Millisecond, 15 * time.Millisecond}
		if !slices.Equal(merges, want) {
			t.Errorf("logs were sealed at %v, want %v", merges, want)
		}
	})
}

// A reader that found nothing and waits, because the bytes went before their end was known to be another one, is woken.
func TestRemovalWakesReaders(t *testing.T) {
	t.Parallel()
	s, _ := newKeeper()
	commitTo(t, s, []Chunk{{Ref: testRef, Stream: store.Stdout, Data: []byte("x")}}, store.LogEnd{Ref: testRef, Bytes: 1})
	tail, err := s.Tail(t.Context(), testRef, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	grown := tail.head.grown
	if err := s.Remove(t.Context(), []store.LogRef{testRef}, "why"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-grown:
	default:
		t.Error("the reader sleeps on")
	}
	if _, end, _, err := tail.Read(t.Context()); err != nil || end == nil || end.Removed != "why" {
		t.Errorf("the end is %+v, %v", end, err)
	}
}

// The writer and the sealer work on a log at the same time.
func TestLogIsSealedWhileItIsWritten(t *testing.T) {
	t.Parallel()
	s := New(memstore.New(), noMetrics{}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	offset, sealed := uint64(0), uint64(0)
	flying := make(chan struct{}, 8)
	for n := 0; sealed < 64*blockBytes; n++ {
		data := make([]byte, 100)
		if n%8 == 0 { // a commit of several blocks, which takes a while
			data = make([]byte, 4*blockBytes)
		}
		flying <- struct{}{}
		a := &Append{Chunks: []Chunk{{Ref: testRef, Offset: offset, Stream: store.Stdout, Data: data}}, Done: func([]Ack) { <-flying }}
		if err := s.Append(a); err != nil {
			t.Fatal(err)
		}
		offset += uint64(len(data))
		s.mu.Lock()
		if h := s.heads[testRef]; h != nil {
			sealed = h.small.sealed
		}
		s.mu.Unlock()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
