package logs

import (
	"context"

	"github.com/hodei-jobs/hodei/service/store"
)

// writing is one commit in the making: the bytes that are new, of all appends together.
type writing struct {
	service *Service
	ctx     context.Context //nolint:containedctx // lives as long as one commit
	parts   map[store.LogRef]*part
	ends    []store.LogEnd
	bytes   int
}

// part is what a commit writes to one log.
type part struct {
	head   *head
	chunks []Chunk
	blocks []store.LogBlock // that they became
}

// add takes from an append what the log does not have yet. A chunk that lies behind is left out, one that overlaps is cut,
// and one that would leave a gap is left out too: the acknowledgement tells the agent where to go on.
func (w *writing) add(a *Append) error {
	for i := range a.Chunks {
		chunk := a.Chunks[i]
		p, err := w.part(chunk.Ref)
		if err != nil {
			return err
		}
		h := p.head
		if h.ended || chunk.Offset > h.bytes || chunk.Offset+uint64(len(chunk.Data)) <= h.bytes {
			continue
		}
		chunk.Data = chunk.Data[h.bytes-chunk.Offset:]
		chunk.Offset = h.bytes
		h.bytes += uint64(len(chunk.Data))
		w.bytes += len(chunk.Data)
		p.chunks = append(p.chunks, chunk)
	}
	for _, end := range a.Ends {
		p, err := w.part(end.Ref)
		if err != nil {
			return err
		}
		h := p.head
		if h.ended || (end.Missing == "" && end.Bytes != h.bytes) {
			continue
		}
		end.Bytes = max(end.Bytes, h.bytes)
		h.ended = true
		w.ends = append(w.ends, end)
	}
	return nil
}

func (w *writing) part(ref store.LogRef) (*part, error) {
	if p := w.parts[ref]; p != nil {
		return p, nil
	}
	h, err := w.service.acquire(w.ctx, ref)
	if err != nil {
		return nil, err
	}
	p := &part{head: h}
	w.parts[ref] = p
	return p, nil
}

// blocks encodes what is new, in as few blocks as hold it.
func (w *writing) blocks() ([]store.LogBlock, error) {
	var blocks []store.LogBlock
	for _, p := range w.parts {
		for rest := p.chunks; len(rest) > 0; {
			var chunks []Chunk
			chunks, rest = cut(rest)
			b, err := w.service.codec.encode(chunks, &p.head.at)
			if err != nil {
				return nil, err
			}
			p.blocks, blocks = append(p.blocks, b), append(blocks, b)
		}
	}
	return blocks, nil
}

// acks says how far the logs of an append have come.
func (w *writing) acks(a *Append) []Ack {
	seen := make(map[store.LogRef]bool)
	var out []Ack
	add := func(ref store.LogRef) {
		if p := w.parts[ref]; p != nil && !seen[ref] {
			seen[ref] = true
			out = append(out, Ack{Ref: ref, Offset: p.head.bytes, Ended: p.head.ended})
		}
	}
	for i := range a.Chunks {
		add(a.Chunks[i].Ref)
	}
	for i := range a.Ends {
		add(a.Ends[i].Ref)
	}
	return out
}

// acquire returns the head of a log, reading from the store how far it has come when nobody holds it. It must be given
// back with drop.
func (s *Service) acquire(ctx context.Context, ref store.LogRef) (*head, error) {
	s.mu.Lock()
	h := s.heads[ref]
	if h == nil {
		h = &head{grown: make(chan struct{})}
		s.heads[ref] = h
	}
	h.readers++
	loaded := h.loaded
	s.mu.Unlock()
	if loaded {
		return h, nil
	}
	state, err := s.store.LogState(ctx, ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.drop(ref, h)
		return nil, err
	}
	if !h.loaded {
		h.loaded, h.bytes, h.ended = true, state.Bytes, state.End != nil
		h.at.line = state.Lines
		if state.Bytes > 0 && !h.ended {
			h.small.blocks = 2 // or more, or less
		}
	}
	return h, nil
}

// drop gives a head back; the caller holds the lock. The head of an unfinished log that nobody follows is kept until its
// end, so that appends need not read the store.
func (s *Service) drop(ref store.LogRef, h *head) {
	h.readers--
	if h.readers == 0 && (h.ended || !h.loaded) {
		delete(s.heads, ref)
	}
}
