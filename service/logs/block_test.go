package logs

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// testCodec must not be used in a bubble of synctest, which would keep it.
var testCodec = newCodec()

var testRef = store.LogRef{Job: job.ID{1}, Attempt: 2}

// encodeAll makes blocks of chunks that begin a log.
func encodeAll(t fatal, chunks []Chunk) (blocks []store.LogBlock) {
	t.Helper()
	var at position
	for rest := slices.Clone(chunks); len(rest) > 0; {
		var next []Chunk
		next, rest = cut(rest)
		b, err := testCodec.encode(next, &at)
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, b)
	}
	return blocks
}

func decodeAll(t fatal, blocks []store.LogBlock) (chunks []Chunk) {
	t.Helper()
	for i := range blocks {
		more, err := testCodec.decode(&blocks[i])
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, more...)
	}
	return chunks
}

type fatal interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// join is what chunks become when those that can be joined are.
func join(chunks []Chunk) (joined []Chunk) {
	for _, c := range chunks {
		if n := len(joined); n > 0 && c.joins(&joined[n-1]) {
			joined[n-1].Data = slices.Concat(joined[n-1].Data, c.Data)
		} else {
			joined = append(joined, c)
		}
	}
	return joined
}

// drawChunks makes chunks that follow each other from the beginning of a log.
func drawChunks(t *rapid.T, count, most int) (chunks []Chunk) {
	offset, now := uint64(0), int64(1_700_000_000_000_000_000)
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	for range rapid.IntRange(1, count).Draw(t, "chunks") {
		data := make([]byte, rapid.IntRange(1, most).Draw(t, "length"))
		letters := rapid.SampledFrom([]int{1, 3, 246}).Draw(t, "letters")
		for i := range data {
			data[i] = byte(10 + random.IntN(letters))
		}
		now += rapid.SampledFrom([]int64{0, 0, 1, 1e6, -1e9}).Draw(t, "later")
		chunks = append(chunks, Chunk{
			Ref: testRef, Offset: offset, Step: rapid.SampledFrom([]int32{0, 0, 1, -1 << 31, 1<<31 - 1}).Draw(t, "step"),
			Stream: store.Stream(rapid.ByteRange(1, 2).Draw(t, "stream")), Time: time.Unix(0, now).UTC(), Data: data,
		})
		offset += uint64(len(data))
	}
	return chunks
}

// What is encoded comes back, joined where it can be, and each block says rightly what is before it and in it.
func TestChunksComeBackFromBlocks(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		chunks := drawChunks(t, 12, 1000)
		if rapid.IntRange(0, 9).Draw(t, "large") == 0 {
			chunks = drawChunks(t, 3, 3*blockBytes)
		}
		blocks := encodeAll(t, chunks)
		if got, want := join(decodeAll(t, blocks)), join(chunks); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d chunks became %d", len(want), len(got))
		}
		var offset, line uint64
		var latest time.Time
		for i := range blocks {
			b := &blocks[i]
			inside := decodeAll(t, blocks[i:i+1])
			latest = later(latest, inside[0].Time)
			full := i == len(blocks)-1 || b.Bytes == blockBytes
			if b.Ref != testRef || b.Offset != offset || b.Line != line || !b.Time.Equal(latest) || !full {
				t.Fatalf("block %d is of %d bytes at %d, line %d, %s; want %d, %d, %s", i, b.Bytes, b.Offset, b.Line, b.Time, offset, line, latest)
			}
			for _, c := range inside {
				latest = later(latest, c.Time)
				line += uint64(bytes.Count(c.Data, newline))
			}
			offset = b.End()
			if b.Line+uint64(b.Lines) != line {
				t.Fatalf("block %d has %d lines behind line %d, want %d", i, b.Lines, b.Line, line)
			}
		}
	})
}

// Blocks with as much in them as there may be: of bytes that cannot be compressed, in as many segments.
func TestLargestBlocksComeBack(t *testing.T) {
	t.Parallel()
	random := rand.NewChaCha8([32]byte{1})
	for _, size := range []int{1, blockBytes / maxSegments, blockBytes/maxSegments + 1, 1000} {
		var chunks []Chunk
		for n := range 2*maxSegments + 5 {
			data := make([]byte, size)
			_, _ = random.Read(data) // it never fails
			chunks = append(chunks, Chunk{
				Ref: testRef, Offset: uint64(n * size), Step: 1 << 30, Stream: store.Stream(1 + n%2),
				Time: time.Unix(0, -int64(n%2)<<62).UTC(), Data: data,
			})
		}
		blocks := encodeAll(t, chunks)
		want := max((len(chunks)+maxSegments-1)/maxSegments, (len(chunks)*size+blockBytes-1)/blockBytes)
		if len(blocks) != want {
			t.Errorf("%d chunks of %d bytes need %d blocks, want %d", len(chunks), size, len(blocks), want)
		}
		if got := join(decodeAll(t, blocks)); !reflect.DeepEqual(got, chunks) {
			t.Errorf("%d chunks of %d bytes became %d", len(chunks), size, len(got))
		}
	}
}

// bomb is a small block that says it is a large one.
func bomb(t fatal, size int) []byte {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(make([]byte, size), []byte{formZstd})
}

// Damaged data gives an error or chunks that are a block's; it never takes much memory.
func FuzzDecodeBlock(f *testing.F) {
	short := encodeAll(f, []Chunk{{Ref: testRef, Step: 1, Stream: store.Stdout, Data: []byte("short\n")}})
	long := encodeAll(f, []Chunk{
		{Ref: testRef, Stream: store.Stdout, Time: time.Unix(5, 0), Data: bytes.Repeat([]byte("abc\n"), 500)},
		{Ref: testRef, Offset: 2000, Stream: store.Stderr, Time: time.Unix(4, 0), Data: []byte("x")},
	})
	for _, b := range append(short, long...) {
		f.Add(b.Bytes, b.Data)
		f.Add(b.Bytes+1, b.Data)
		f.Add(b.Bytes, b.Data[:len(b.Data)-1])
		flipped := bytes.Clone(b.Data)
		flipped[len(flipped)/2] ^= 0x40
		f.Add(b.Bytes, flipped)
	}
	f.Add(uint32(0), []byte{})
	f.Add(uint32(0), []byte{formPlain})
	f.Add(uint32(0), []byte{formPlain, 0})
	f.Add(uint32(1), []byte{3, 0})
	f.Add(uint32(1), []byte{formPlain, 1, 0, 1, 0, 0})                                 // a segment without a byte
	f.Add(uint32(1), []byte{formPlain, 1, 0, 1, 0, 2, 'x'})                            // one that is too long
	f.Add(uint32(1), []byte{formPlain, 0xff, 0xff, 0xff, 0xff, 0x0f})                  // too many
	f.Add(uint32(3), []byte{formPlain, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0, 1, 'x'}) // a step that is too large
	f.Add(uint32(1), append([]byte{formPlain, 1}, bytes.Repeat([]byte{0xff}, 40)...))  // numbers without an end
	f.Add(uint32(1<<20), bomb(f, 1<<20))
	f.Add(uint32(1<<30), bomb(f, 64<<20))
	f.Fuzz(func(t *testing.T, size uint32, data []byte) {
		b := store.LogBlock{Ref: testRef, Offset: 7, Bytes: size, Data: bytes.Clone(data)}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		chunks, err := testCodec.decode(&b)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 { // other goroutines count too, and so does the decompressor itself
			t.Errorf("%d bytes took %d bytes of memory", len(data), n)
		}
		if !bytes.Equal(b.Data, data) {
			t.Error("decoding changed the data")
		}
		if err != nil {
			return
		}
		length := 0
		for _, c := range chunks {
			if c.Offset != b.Offset+uint64(length) || len(c.Data) == 0 {
				t.Errorf("after %d bytes there is a chunk of %d at %d", length, len(c.Data), c.Offset)
			}
			length += len(c.Data)
		}
		if length != int(size) {
			t.Errorf("a block of %d bytes has %d", size, length)
		}
		if joined := join(chunks); length > 0 && length <= blockBytes && !reflect.DeepEqual(join(decodeAll(t, encodeAll(t, chunks))), joined) {
			t.Errorf("%d chunks became others", len(chunks))
		}
	})
}
