package logs

import (
	"slices"

	"github.com/hodei-jobs/hodei/service/store"
)

// recentBytes is how much of what was written last to a log that is followed is kept in memory, so that readers who are up to date
// need not read the store. Each chunk counts chunkMemory beside its data.
const (
	recentBytes = 8 << 10
	chunkMemory = 96
)

// recent is the end of a log in memory, for its readers. It is guarded by the service's lock.
type recent struct {
	chunks []Chunk // that follow each other, up to the end of what is stored
	bytes  int
	end    uint64 // of what is stored, as far as this server has written it
	known  bool   // this server writes the log, and it has not ended
}

// add takes in what a commit has stored of a log, when anybody follows it.
func (r *recent) add(chunks []Chunk, h *head, followed bool) {
	r.end, r.known = h.bytes, !h.ended
	if !followed {
		r.chunks, r.bytes = nil, 0
		return
	}
	for i := range chunks {
		r.bytes += len(chunks[i].Data) + chunkMemory
	}
	r.chunks = append(r.chunks, chunks...)
	gone := 0
	for ; r.bytes > recentBytes; gone++ {
		r.bytes -= len(r.chunks[gone].Data) + chunkMemory
	}
	r.chunks = slices.Delete(r.chunks, 0, gone)
}

// from returns what is stored from an offset on, nil when there is nothing yet; known is false when only the store can tell.
func (r *recent) from(offset uint64) (chunks []Chunk, known bool) {
	if offset >= r.end {
		return nil, r.known
	}
	if len(r.chunks) == 0 || offset < r.chunks[0].Offset {
		return nil, false
	}
	first := len(r.chunks) - 1
	for r.chunks[first].Offset > offset {
		first--
	}
	chunks = slices.Clone(r.chunks[first:])
	chunks[0].Data = chunks[0].Data[offset-chunks[0].Offset:]
	chunks[0].Offset = offset
	return chunks, true
}

// followed returns a copy of the chunks of those parts of a commit whose logs have readers: encoding changes them.
func (w *writing) followed() map[store.LogRef][]Chunk {
	s := w.service
	s.mu.Lock()
	defer s.mu.Unlock()
	var all map[store.LogRef][]Chunk
	for ref, p := range w.parts {
		if p.head.readers == 1 { // the writer itself
			continue
		}
		if all == nil {
			all = make(map[store.LogRef][]Chunk)
		}
		all[ref] = slices.Clone(p.chunks)
	}
	return all
}
