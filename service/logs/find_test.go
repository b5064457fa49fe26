package logs

import (
	"bytes"
	"context"
	"math"
	"math/bits"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/store"
)

// The offsets of lines and times are those that a reader of the whole log finds, sealed or not, and finding them takes few reads.
func TestOffsetsAreFound(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, c := newKeeper()
		var all []Chunk
		var log []byte
		now := int64(1_700_000_000_000_000_000)
		for range rapid.IntRange(0, 150).Draw(t, "commits") {
			data := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n")), 1, 30).Draw(t, "data")
			if rapid.IntRange(0, 19).Draw(t, "long") == 0 { // lines are not spread evenly
				data = bytes.Repeat(data[:1], 5000)
			}
			now += rapid.SampledFrom([]int64{0, 1, 1000, 1e12, -5000}).Draw(t, "later")
			chunk := Chunk{Ref: testRef, Offset: uint64(len(log)), Stream: store.Stdout, Time: time.Unix(0, now).UTC(), Data: data}
			all = append(all, chunk)
			log = append(log, data...)
			commitTo(t, s, []Chunk{chunk})
			if rapid.IntRange(0, 20).Draw(t, "seal") == 0 {
				sealEverything(s)
			}
		}
		most := 2*bits.Len(uint(len(log))) + 2
		lines := bytes.Count(log, newline)
		for range 5 {
			n := rapid.IntRange(0, lines+2).Draw(t, "line")
			want := uint64(naiveLine(log, n))
			c.reads = 0
			if got, err := s.OffsetOfLine(context.Background(), testRef, uint64(n)); err != nil || got != want || c.reads > most {
				t.Fatalf("line %d of %d begins at %d, want %d, found with %d reads, %v", n, lines, got, want, c.reads, err)
			}
			at := time.Unix(0, now)
			if len(all) > 0 {
				at = rapid.SampledFrom(all).Draw(t, "time").Time
			}
			at = at.Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "beside")))
			want = naiveTime(all, at)
			c.reads = 0
			if got, err := s.OffsetOfTime(context.Background(), testRef, at); err != nil || got != want || c.reads > most {
				t.Fatalf("%s is at %d, want %d, found with %d reads, %v", at, got, want, c.reads, err)
			}
		}
	})
}

func naiveLine(log []byte, n int) (offset int) {
	for ; n > 0; n-- {
		next := bytes.IndexByte(log[offset:], '\n')
		if next < 0 {
			return len(log)
		}
		offset += next + 1
	}
	return offset
}

func naiveTime(all []Chunk, t time.Time) (offset uint64) {
	for _, c := range all {
		if !c.Time.Before(t) {
			return c.Offset
		}
		offset = c.Offset + uint64(len(c.Data))
	}
	return offset
}

func TestTimesThatNoClockShows(t *testing.T) {
	t.Parallel()
	s, _ := newKeeper()
	writeLines(t, s, 0, 3)
	for at, want := range map[time.Time]uint64{
		{}: 0, time.Unix(0, math.MinInt64).Add(-1): 0, time.Unix(1, 0): 0, time.Unix(1, 1): 6,
		time.Unix(0, math.MaxInt64).Add(1): 6, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC): 6,
	} {
		if got, err := s.OffsetOfTime(t.Context(), testRef, at); err != nil || got != want {
			t.Errorf("%s is at %d, want %d, %v", at, got, want, err)
		}
	}
}

// spread is a log of many large blocks that are made when they are read: of evenly spread lines and times, or with all of
// them in the last hundredth.
type spread struct {
	store.Logs
	blocks int
	even   bool
	reads  int
}

func (s *spread) line(n int) uint64 {
	if s.even {
		return uint64(n * 2500)
	}
	return uint64(max(0, n-s.blocks*99/100) * 250_000)
}

func (s *spread) LogState(context.Context, store.LogRef) (store.LogState, error) {
	return store.LogState{Bytes: uint64(s.blocks) * blockBytes, Lines: s.line(s.blocks)}, nil
}

func (s *spread) ReadLogs(_ context.Context, ref store.LogRef, offset uint64, _ int) ([]store.LogBlock, error) {
	s.reads++
	n := int(offset / blockBytes)
	lines := s.line(n+1) - s.line(n)
	data := bytes.Repeat(newline, int(lines))
	data = append(data, make([]byte, blockBytes-len(data))...)
	at := position{line: s.line(n)}
	b, err := testCodec.encode([]Chunk{{
		Ref: ref, Offset: uint64(n) * blockBytes, Stream: store.Stdout, Time: time.Unix(int64(s.line(n)), 0), Data: data,
	}}, &at)
	return []store.LogBlock{b}, err
}

// In a log of 100 MiB a line is found with a handful of reads when lines are spread as they mostly are, and with a few more
// however they are spread.
func TestReadsOfALongLogAreFew(t *testing.T) {
	t.Parallel()
	for _, even := range []bool{true, false} {
		c := &spread{blocks: 400, even: even}
		s := New(c, noMetrics{}, nil)
		lines := c.line(c.blocks)
		most := 0
		for part := range uint64(50) {
			n := 1 + lines*part/50
			c.reads = 0
			offset, err := s.OffsetOfLine(t.Context(), testRef, n)
			block := int(offset / blockBytes)
			if err != nil || c.line(block)+offset%blockBytes != n && offset%blockBytes != 0 {
				t.Errorf("line %d begins at %d, %v", n, offset, err)
			}
			most = max(most, c.reads)
			if _, err := s.OffsetOfTime(t.Context(), testRef, time.Unix(int64(n), 0)); err != nil {
				t.Error(err)
			}
			most = max(most, c.reads/2)
		}
		t.Logf("evenly spread: %t; %d reads at most", even, most)
		if limit := map[bool]int{true: 10, false: 20}[even]; most > limit {
			t.Errorf("evenly spread: %t; %d reads, more than %d", even, most, limit)
		}
	}
}
