package memstore

import (
	"context"
	"slices"
	"sort"

	"github.com/hodei-jobs/hodei/service/store"
)

type logData struct {
	blocks []store.LogBlock
	end    *store.LogEnd
}

func (s *Store) log(ref store.LogRef) *logData {
	d := s.logs[ref]
	if d == nil {
		d = new(logData)
		s.logs[ref] = d
	}
	return d
}

// AppendLogs implements store.Logs.
func (s *Store) AppendLogs(_ context.Context, blocks []store.LogBlock, ends []store.LogEnd) error {
	return s.write(func() {
		for _, b := range blocks {
			b.Data = slices.Clone(b.Data)
			d := s.log(b.Ref)
			d.blocks = append(d.blocks, b)
		}
		for _, e := range ends {
			s.log(e.Ref).end = &e
		}
	})
}

// from returns the index of the first block that begins at an offset or behind it.
func (d *logData) from(offset uint64) int {
	return sort.Search(len(d.blocks), func(i int) bool { return d.blocks[i].Offset >= offset })
}

// ReadLogs implements store.Logs.
func (s *Store) ReadLogs(_ context.Context, ref store.LogRef, offset uint64, maxBytes int) (out []store.LogBlock, err error) {
	err = s.read(func() {
		d := s.logs[ref]
		if d == nil {
			return
		}
		i := sort.Search(len(d.blocks), func(i int) bool { return d.blocks[i].End() > offset })
		for bytes := 0; i < len(d.blocks) && bytes < max(maxBytes, 1); i++ {
			out = append(out, d.blocks[i])
			bytes += len(d.blocks[i].Data)
		}
	})
	return out, err
}

// MergeLogs implements store.Logs.
func (s *Store) MergeLogs(_ context.Context, blocks []store.LogBlock) error {
	return s.write(func() {
		for _, b := range blocks {
			d := s.logs[b.Ref]
			if d == nil {
				continue
			}
			first, behind, bytes := d.from(b.Offset), d.from(b.End()), uint64(0)
			for _, old := range d.blocks[first:behind] {
				bytes += uint64(old.Bytes)
			}
			if bytes == uint64(b.Bytes) {
				b.Data = slices.Clone(b.Data)
				d.blocks = slices.Concat(d.blocks[:first], []store.LogBlock{b}, d.blocks[behind:])
			}
		}
	})
}

// RemoveLogs implements store.Logs.
func (s *Store) RemoveLogs(_ context.Context, ends []store.LogEnd) error {
	return s.write(func() {
		for _, e := range ends {
			if d := s.logs[e.Ref]; d != nil && d.end != nil {
				d.blocks, d.end = nil, &e
			}
		}
	})
}

// LogState implements store.Logs.
func (s *Store) LogState(_ context.Context, ref store.LogRef) (state store.LogState, err error) {
	err = s.read(func() {
		if d := s.logs[ref]; d != nil {
			state.End = d.end
			if n := len(d.blocks); n > 0 {
				last := &d.blocks[n-1]
				state.Bytes, state.Lines = last.End(), last.Line+uint64(last.Lines)
			}
		}
	})
	return state, err
}
