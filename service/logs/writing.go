package logs

import (
	"context"

	"github.com/hodei-jobs/hodei/service/store"
)

// writing is one commit in the making: the bytes that are new, of all appends together.
type writing struct {
	service *Service
	ctx     context.Context //nolint:containedctx // lives as long as one commit
	chunks  []store.Chunk
	ends    []store.LogEnd
	bytes   int
	touched map[store.LogRef]*head
}

// add takes from an append what the log does not have yet. A chunk that lies behind is left out, one that overlaps is cut,
// and one that would leave a gap is left out too: the acknowledgement tells the agent where to go on.
func (w *writing) add(a *Append) error {
	for i := range a.Chunks {
		chunk := a.Chunks[i]
		h, err := w.head(chunk.Ref)
		if err != nil {
			return err
		}
		if h.ended || chunk.Offset > h.bytes || chunk.Offset+uint64(len(chunk.Data)) <= h.bytes {
			continue
		}
		chunk.Data = chunk.Data[h.bytes-chunk.Offset:]
		chunk.Offset = h.bytes
		h.bytes += uint64(len(chunk.Data))
		w.bytes += len(chunk.Data)
		w.chunks = append(w.chunks, chunk)
	}
	for _, end := range a.Ends {
		h, err := w.head(end.Ref)
		if err != nil {
			return err
		}
		if h.ended || (end.Missing == "" && end.Bytes != h.bytes) {
			continue
		}
		end.Bytes = max(end.Bytes, h.bytes)
		h.ended = true
		w.ends = append(w.ends, end)
	}
	return nil
}

func (w *writing) head(ref store.LogRef) (*head, error) {
	if h := w.touched[ref]; h != nil {
		return h, nil
	}
	h, err := w.service.acquire(w.ctx, ref)
	if err == nil {
		w.touched[ref] = h
	}
	return h, err
}

// acks says how far the logs of an append have come.
func (w *writing) acks(a *Append) []Ack {
	seen := make(map[store.LogRef]bool)
	var out []Ack
	add := func(ref store.LogRef) {
		if h := w.touched[ref]; h != nil && !seen[ref] {
			seen[ref] = true
			out = append(out, Ack{Ref: ref, Offset: h.bytes, Ended: h.ended})
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
