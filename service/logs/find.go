package logs

import (
	"context"
	"math"
	"time"

	"github.com/hodei-jobs/hodei/service/store"
)

// OffsetOfLine returns the offset at which a line of a log begins; the first one is 0. For a line that the log does not have,
// yet or at all, it is the end of what is stored. It reads a few blocks, whatever the length of the log.
func (s *Service) OffsetOfLine(ctx context.Context, ref store.LogRef, line uint64) (uint64, error) {
	state, err := s.store.LogState(ctx, ref)
	if err != nil || line == 0 {
		return 0, err
	}
	if line > state.Lines {
		return state.Bytes, nil
	}
	r := search{
		key: func(b *store.LogBlock) int64 { return int64(b.Line) }, target: int64(line),
		hi: mark{state.Bytes, int64(state.Lines)},
	}
	b, chunks, err := s.find(ctx, ref, &r)
	if err != nil || b == nil {
		return 0, err
	}
	seen := b.Line
	for i := range chunks {
		for at, c := range chunks[i].Data {
			if c == '\n' {
				seen++
			}
			if seen == line {
				return chunks[i].Offset + uint64(at) + 1, nil
			}
		}
	}
	return b.End(), nil
}

// OffsetOfTime returns the offset of the first byte of a log that was read at a time or later, and the end of what is stored when
// there is none. Times may go back: what counts is the first. Only where the clock was set back while the server started
// again, it may be one behind that, by what was written in the meantime. It reads a few blocks, whatever the length of the log.
func (s *Service) OffsetOfTime(ctx context.Context, ref store.LogRef, t time.Time) (uint64, error) {
	state, err := s.store.LogState(ctx, ref)
	if err != nil {
		return 0, err
	}
	r := search{
		key: func(b *store.LogBlock) int64 { return b.Time.UnixNano() }, target: nanos(t),
		lo: mark{0, math.MaxInt64}, hi: mark{state.Bytes, math.MinInt64},
	}
	b, chunks, err := s.find(ctx, ref, &r)
	if err != nil || b == nil {
		return 0, err
	}
	for i := range chunks {
		if chunks[i].Time.UnixNano() >= r.target {
			return chunks[i].Offset, nil
		}
	}
	return b.End(), nil
}

// OffsetOfTail returns the offset of the first of the last n lines of a log, of those chunks that keep takes; the lines of what it does
// not take do not count. The last line counts also without an end. It reads about as much of the log as these lines take.
func (s *Service) OffsetOfTail(ctx context.Context, ref store.LogRef, n int, keep func(*Chunk) bool) (uint64, error) {
	state, err := s.store.LogState(ctx, ref)
	if err != nil || n == 0 {
		return state.Bytes, err
	}
	for window := uint64(n) + 1; ; window *= 4 {
		var from uint64
		if window < state.Lines {
			if from, err = s.OffsetOfLine(ctx, ref, state.Lines-window); err != nil {
				return 0, err
			}
		}
		starts, err := s.lineStarts(ctx, ref, from, state.Bytes, keep)
		if err != nil {
			return 0, err
		}
		switch {
		case len(starts) > n || from == 0 && len(starts) == n: // before the first of them there may be a part of its line
			return starts[len(starts)-n], nil
		case from == 0:
			return 0, nil
		}
	}
}

// lineStarts returns where lines begin, of the chunks between two offsets that keep takes.
func (s *Service) lineStarts(ctx context.Context, ref store.LogRef, from, to uint64, keep func(*Chunk) bool) ([]uint64, error) {
	var starts []uint64
	begins := true
	err := s.scan(ctx, ref, from, to, func(c *Chunk) bool {
		if !keep(c) {
			return true
		}
		for i, b := range c.Data {
			if begins {
				starts = append(starts, c.Offset+uint64(i))
			}
			begins = b == '\n'
		}
		return true
	})
	return starts, err
}

// scan calls visit for the chunks between two offsets, the last one cut, until it returns false.
func (s *Service) scan(ctx context.Context, ref store.LogRef, from, to uint64, visit func(*Chunk) bool) error {
	t := Tail{service: s, ref: ref, offset: from}
	for t.offset < to {
		chunks, err := t.chunks(ctx)
		if err != nil || len(chunks) == 0 {
			return err
		}
		for i := range chunks {
			c := &chunks[i]
			if err := ctx.Err(); err != nil || c.Offset >= to {
				return err
			}
			if c.end() > to {
				c.Data = c.Data[:to-c.Offset]
			}
			if !visit(c) {
				return nil
			}
		}
	}
	return nil
}

// nanos returns the nanoseconds since 1970, or the nearest number when there are too many.
func nanos(t time.Time) int64 {
	switch {
	case t.After(time.Unix(0, math.MaxInt64)):
		return math.MaxInt64
	case t.Before(time.Unix(0, math.MinInt64)):
		return math.MinInt64
	default:
		return t.UnixNano()
	}
}

// search looks for the last block whose key is smaller than a target. Keys never get smaller from block to block.
type search struct {
	key    func(*store.LogBlock) int64
	target int64
	lo, hi mark // the block ends at lo or behind it, and begins before hi
}

// mark is an offset and the key of a block there. A key of lo that is not smaller than that of hi is not known.
type mark struct {
	offset uint64
	key    int64
}

// guess returns where to look next: by turns where the target would be if keys grew evenly, as they often do, and in the
// middle, which bounds the number of reads by the logarithm of the number of blocks.
func (r *search) guess(turn int) uint64 {
	width := r.hi.offset - r.lo.offset
	if turn%2 == 1 || r.lo.key >= r.hi.key {
		return r.lo.offset + width/2
	}
	part := (float64(r.target) - float64(r.lo.key)) / (float64(r.hi.key) - float64(r.lo.key))
	return r.lo.offset + min(uint64(part*float64(width)), width-1)
}

// find returns the block of a log that is searched, with its chunks; nil when no block has a smaller key, or when the log was
// removed meanwhile.
func (s *Service) find(ctx context.Context, ref store.LogRef, r *search) (found *store.LogBlock, chunks []Chunk, err error) {
	for turn := 0; r.lo.offset < r.hi.offset; turn++ {
		blocks, err := s.store.ReadLogs(ctx, ref, r.guess(turn), 1)
		if err != nil || len(blocks) == 0 {
			return nil, nil, err
		}
		b := &blocks[0]
		if key := r.key(b); key < r.target {
			r.lo, found = mark{b.End(), key}, b
		} else {
			r.hi = mark{b.Offset, key}
		}
	}
	if found != nil {
		chunks, err = s.codec.decode(found)
	}
	return found, chunks, err
}
