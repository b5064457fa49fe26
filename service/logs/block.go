package logs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/hodei-jobs/hodei/service/store"
)

// Chunk is a run of bytes that one step wrote to one stream. Offset counts the bytes of the attempt before it.
type Chunk struct {
	Ref    store.LogRef
	Offset uint64
	Step   int32
	Stream store.Stream
	Time   time.Time // to the nanosecond, from 1678 to 2262
	Data   []byte
}

// end is the offset behind the chunk.
func (c *Chunk) end() uint64 { return c.Offset + uint64(len(c.Data)) }

// joins reports whether a chunk and the one before it, in one block, become one.
func (c *Chunk) joins(before *Chunk) bool {
	return c.Step == before.Step && c.Stream == before.Stream && c.Time.Equal(before.Time)
}

// The data of a block is a byte that names its form and a body, compressed or not:
//
//	segments uvarint | for each: step varint, stream byte, time varint, length uvarint | the bytes of all
//
// A segment is what was one chunk, or several that joined. Its time counts nanoseconds from that of the one before it, and the
// first one's from that of the block.
const (
	formPlain = 1
	formZstd  = 2
)

const (
	blockBytes  = 256 << 10 // the most that a block holds of a log
	maxSegments = 4096      // and in how many segments
	plainBytes  = 512       // a body with less is not compressed
	// maxBody is the most that a body has: what a block holds, and its segments with numbers of any size.
	maxBody = blockBytes + binary.MaxVarintLen32 + maxSegments*(3*binary.MaxVarintLen64+1)
)

// codec encodes and decodes blocks, in several goroutines at once: the writer and the sealer compress, and a few readers
// decompress. What that takes is made when it is first needed, some 2 MiB. The next level of compression would store 6 % less
// of what builds print, for 30 % more CPU and twice the memory.
type codec struct {
	encoder func() (*zstd.Encoder, error)
	decoder func() (*zstd.Decoder, error)
}

func newCodec() codec {
	return codec{
		encoder: sync.OnceValues(func() (*zstd.Encoder, error) {
			return zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(2*blockBytes),
				zstd.WithLowerEncoderMem(true))
		}),
		decoder: sync.OnceValues(func() (*zstd.Decoder, error) {
			return zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxBody), zstd.WithDecoderLowmem(true))
		}),
	}
}

// position is where a block begins in its log.
type position struct {
	line   uint64    // line ends before it
	latest time.Time // the newest time of a byte before it
}

// cut returns those of the chunks, which follow each other in one log, that go into the next block, and the rest. It divides
// the one in the middle of which the block is full.
func cut(chunks []Chunk) (block, rest []Chunk) {
	room, segments := blockBytes, 0
	for i := range chunks {
		c := &chunks[i]
		if i == 0 || !c.joins(&chunks[i-1]) {
			segments++
		}
		if segments > maxSegments || room == 0 {
			return chunks[:i], chunks[i:]
		}
		if len(c.Data) > room {
			part := *c
			part.Data = c.Data[:room]
			c.Data, c.Offset = c.Data[room:], c.Offset+uint64(room)
			return slices.Concat(chunks[:i], []Chunk{part}), chunks[i:]
		}
		room -= len(c.Data)
	}
	return chunks, nil
}

// encode makes a block of chunks that cut has found to fit into one, at least one byte, and moves the position behind it.
func (k *codec) encode(chunks []Chunk, at *position) (store.LogBlock, error) {
	first := &chunks[0]
	b := store.LogBlock{Ref: first.Ref, Offset: first.Offset, Line: at.line, Time: later(at.latest, first.Time)}
	segments, table := 0, make([]byte, 0, 64)
	for i, last := 0, b.Time; i < len(chunks); segments++ {
		c, length := &chunks[i], 0
		for ; i < len(chunks) && (length == 0 || chunks[i].joins(c)); i++ {
			length += len(chunks[i].Data)
			b.Lines += uint32(bytes.Count(chunks[i].Data, newline))
		}
		table = binary.AppendVarint(table, int64(c.Step))
		table = append(table, byte(c.Stream))
		table = binary.AppendVarint(table, c.Time.UnixNano()-last.UnixNano())
		table = binary.AppendUvarint(table, uint64(length))
		b.Bytes += uint32(length)
		last, at.latest = c.Time, later(at.latest, c.Time)
	}
	at.line += uint64(b.Lines)
	plain := append(make([]byte, 0, 1+binary.MaxVarintLen32+len(table)+int(b.Bytes)), formPlain)
	plain = append(binary.AppendUvarint(plain, uint64(segments)), table...)
	for i := range chunks {
		plain = append(plain, chunks[i].Data...)
	}
	b.Data = plain
	if len(plain) <= plainBytes {
		return b, nil
	}
	z, err := k.encoder()
	if err != nil {
		return b, err
	}
	if packed := z.EncodeAll(plain[1:], []byte{formZstd}); len(packed) < len(plain) {
		b.Data = packed
	}
	return b, nil
}

var newline = []byte{'\n'}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

var errDamaged = errors.New("the block is damaged")

// decode returns the chunks of a block; their data may be a part of the block's. It takes little more memory than a block
// may hold, whatever is in it.
func (k *codec) decode(b *store.LogBlock) ([]Chunk, error) {
	chunks, err := k.decodeData(b)
	if err != nil {
		return nil, fmt.Errorf("the log of job %s attempt %d at byte %d: %w", b.Ref.Job, b.Ref.Attempt, b.Offset, err)
	}
	return chunks, nil
}

func (k *codec) decodeData(b *store.LogBlock) ([]Chunk, error) {
	if len(b.Data) == 0 {
		return nil, errDamaged
	}
	body := b.Data[1:]
	switch b.Data[0] {
	case formPlain:
	case formZstd:
		z, err := k.decoder()
		if err != nil {
			return nil, err
		}
		if body, err = z.DecodeAll(body, nil); err != nil {
			return nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	default:
		return nil, fmt.Errorf("the block has form %d, which this program does not know; run the version of hodei that wrote it", b.Data[0])
	}
	t := table{rest: body}
	count := t.uvarint()
	if count > maxSegments || count > uint64(len(body)) {
		return nil, errDamaged
	}
	chunks := make([]Chunk, count)
	lengths := make([]uint64, count)
	last, total := b.Time.UnixNano(), uint64(0)
	for i := range chunks {
		step := t.varint()
		stream := t.byte()
		last += t.varint()
		lengths[i] = t.uvarint()
		if step < math.MinInt32 || step > math.MaxInt32 || lengths[i] == 0 || lengths[i] > uint64(len(body)) {
			return nil, errDamaged
		}
		chunks[i] = Chunk{Ref: b.Ref, Offset: b.Offset + total, Step: int32(step), Stream: store.Stream(stream), Time: time.Unix(0, last).UTC()}
		total += lengths[i]
	}
	if t.cut || total != uint64(len(t.rest)) || total != uint64(b.Bytes) {
		return nil, errDamaged
	}
	for i, n := range lengths {
		chunks[i].Data, t.rest = t.rest[:n:n], t.rest[n:]
	}
	return chunks, nil
}

// table reads numbers; when there are no more it gives zeros.
type table struct {
	rest []byte
	cut  bool
}

func (t *table) take(n int) {
	if t.cut = t.cut || n <= 0; !t.cut {
		t.rest = t.rest[n:]
	}
}

func (t *table) uvarint() uint64 {
	v, n := binary.Uvarint(t.rest)
	t.take(n)
	return v
}

func (t *table) varint() int64 {
	v, n := binary.Varint(t.rest)
	t.take(n)
	return v
}

func (t *table) byte() byte {
	if len(t.rest) == 0 {
		t.cut = true
		return 0
	}
	b := t.rest[0]
	t.take(1)
	return b
}
