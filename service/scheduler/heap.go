package scheduler

// heap is a binary heap; the item that goes before all others is at index 0.
type heap[T any] struct {
	items  []T
	before func(a, b T) bool
	moved  func(item T, at int) // told where an item is now; nil: nobody wants to know
}

func (h *heap[T]) len() int { return len(h.items) }
func (h *heap[T]) top() T   { return h.items[0] }

// reset empties the heap and keeps its memory.
func (h *heap[T]) reset() {
	clear(h.items)
	h.items = h.items[:0]
}

func (h *heap[T]) put(item T, at int) {
	h.items[at] = item
	if h.moved != nil {
		h.moved(item, at)
	}
}

func (h *heap[T]) push(item T) {
	h.items = append(h.items, item)
	h.up(item, len(h.items)-1)
}

func (h *heap[T]) up(item T, at int) {
	for at > 0 {
		parent := (at - 1) / 2
		if !h.before(item, h.items[parent]) {
			break
		}
		h.put(h.items[parent], at)
		at = parent
	}
	h.put(item, at)
}

func (h *heap[T]) down(item T, at int) {
	for {
		child := 2*at + 1
		if child >= len(h.items) {
			break
		}
		if right := child + 1; right < len(h.items) && h.before(h.items[right], h.items[child]) {
			child = right
		}
		if !h.before(h.items[child], item) {
			break
		}
		h.put(h.items[child], at)
		at = child
	}
	h.put(item, at)
}

// pop takes the top out.
func (h *heap[T]) pop() T {
	top := h.items[0]
	h.remove(0)
	return top
}

// remove takes out the item at an index.
func (h *heap[T]) remove(at int) {
	last := len(h.items) - 1
	item := h.items[last]
	var zero T
	h.items[last] = zero
	h.items = h.items[:last]
	if at < last {
		h.fix(item, at)
	}
}

// fix puts an item, which belongs at about an index, where it belongs.
func (h *heap[T]) fix(item T, at int) {
	if at > 0 && h.before(item, h.items[(at-1)/2]) {
		h.up(item, at)
	} else {
		h.down(item, at)
	}
}

// fixTop restores the order when the item at the top goes later than before.
func (h *heap[T]) fixTop() { h.down(h.items[0], 0) }
