package scheduler

import (
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// waiting is an ordered set of ids, the oldest first. It is made for what queues do: take at the front, put at the back,
// now and then one in between. An id takes 16 bytes and nothing that the garbage collector has to follow.
type waiting struct {
	chunks [][]job.ID // each sorted and not empty, and all of one before those of the next
	size   int
}

// chunkSize is how many ids a chunk holds before it is split.
const chunkSize = 1024

func (w *waiting) first() job.ID { return w.chunks[0][0] }

// find returns the chunk that an id belongs to, its place in it, and whether it is there.
func (w *waiting) find(id job.ID) (chunk, at int, found bool) {
	chunk, _ = slices.BinarySearchFunc(w.chunks, id, func(c []job.ID, id job.ID) int { return c[len(c)-1].Compare(id) })
	if chunk == len(w.chunks) {
		return chunk, 0, false
	}
	at, found = slices.BinarySearchFunc(w.chunks[chunk], id, job.ID.Compare)
	return chunk, at, found
}

// has reports whether an id is there.
func (w *waiting) has(id job.ID) bool {
	_, _, found := w.find(id)
	return found
}

// add puts an id in; one that is there already stays.
func (w *waiting) add(id job.ID) {
	last := len(w.chunks) - 1
	if last < 0 || w.chunks[last][len(w.chunks[last])-1].Compare(id) < 0 { // the newest of all
		if last < 0 || len(w.chunks[last]) >= chunkSize {
			w.chunks = append(w.chunks, nil)
			last++
		}
		w.chunks[last] = append(w.chunks[last], id)
		w.size++
		return
	}
	chunk, at, found := w.find(id)
	if found {
		return
	}
	w.size++
	c := slices.Insert(w.chunks[chunk], at, id)
	w.chunks[chunk] = c
	if len(c) > 2*chunkSize {
		w.chunks = slices.Insert(w.chunks, chunk+1, slices.Clone(c[chunkSize:]))
		w.chunks[chunk] = c[:chunkSize]
	}
}

// remove takes an id out and reports whether it was there.
func (w *waiting) remove(id job.ID) bool {
	chunk, at, found := w.find(id)
	if !found {
		return false
	}
	w.size--
	if at == 0 { // the front of a chunk moves on instead of all that follows it
		w.chunks[chunk] = w.chunks[chunk][1:]
	} else {
		w.chunks[chunk] = slices.Delete(w.chunks[chunk], at, at+1)
	}
	if len(w.chunks[chunk]) == 0 {
		if chunk == 0 {
			w.chunks[0] = nil
			w.chunks = w.chunks[1:]
		} else {
			w.chunks = slices.Delete(w.chunks, chunk, chunk+1)
		}
	}
	return true
}
