package storelog

import (
	"bytes"
	"container/heap"
	"errors"
	"maps"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// ListKey names a list of jobs. For every namespace there are lists of all jobs, of those of a queue, with a label, of a
// name and that ended in a state. A commit writes one posting for each list that it adds to, with all ids that it adds, so
// that large batches cost next to nothing for each job.
type ListKey struct {
	Namespace string
	Kind      byte
	Value     string
}

// Kinds of lists.
const (
	listAll   = 'a'
	listQueue = 'q'
	listLabel = 'l' // name=value
	listName  = 'n'
	listState = 's' // terminal ones only
)

// Bytes returns the key as bytes of which no other key's are a prefix.
func (k ListKey) Bytes() []byte {
	b := make([]byte, 0, 3+len(k.Namespace)+len(k.Value))
	b = append(append(b, k.Namespace...), 0, k.Kind)
	return append(append(b, k.Value...), 0)
}

// Posting is what a commit adds to a list.
type Posting struct {
	Key ListKey
	ids []job.ID
}

// Last is the largest id.
func (p *Posting) Last() job.ID { return p.ids[len(p.ids)-1] }

// AppendIDs writes the ids: of each, how many of its first bytes are those of the id before it, and the rest.
func (p *Posting) AppendIDs(b []byte) []byte {
	var before job.ID
	for _, id := range p.ids {
		same := 0
		for same < len(id) && id[same] == before[same] {
			same++
		}
		b = append(append(b, byte(same)), id[same:]...)
		before = id
	}
	return b
}

// readIDs reads what AppendIDs wrote.
func readIDs(b []byte) ([]job.ID, error) {
	ids := make([]job.ID, 0, len(b)/6)
	var id job.ID
	for len(b) > 0 {
		same := int(b[0])
		if same > len(id) || len(b) < 1+len(id)-same {
			return nil, errors.New("a list of jobs is damaged")
		}
		b = b[1+copy(id[same:], b[1:]):]
		ids = append(ids, id)
	}
	return ids, nil
}

// Postings gathers what a commit adds to lists.
type Postings struct {
	lists []Posting
	byKey map[ListKey]int // of lists
}

// fewLists is how many lists are looked through one by one. Jobs of a batch are mostly of one namespace and queue.
const fewLists = 4

func (p *Postings) add(key ListKey, id job.ID) {
	for i := range p.lists[:min(len(p.lists), fewLists)] {
		if l := &p.lists[i]; l.Key == key {
			l.ids = append(l.ids, id)
			return
		}
	}
	i, ok := p.byKey[key]
	if !ok {
		i = len(p.lists)
		p.lists = append(p.lists, Posting{Key: key})
		if p.byKey == nil {
			p.byKey = make(map[ListKey]int)
		}
		p.byKey[key] = i
	}
	p.lists[i].ids = append(p.lists[i].ids, id)
}

// Accept lists a new job.
func (p *Postings) Accept(j *job.Job) {
	spec := j.Spec
	p.add(ListKey{spec.Namespace, listAll, ""}, j.ID)
	p.add(ListKey{spec.Namespace, listQueue, spec.Queue}, j.ID)
	if spec.Name != "" {
		p.add(ListKey{spec.Namespace, listName, spec.Name}, j.ID)
	}
	for name, value := range spec.Labels {
		p.add(ListKey{spec.Namespace, listLabel, name + "=" + value}, j.ID)
	}
}

// End lists a job that has ended.
func (p *Postings) End(j *job.Job) {
	p.add(ListKey{j.Spec.Namespace, listState, j.State.String()}, j.ID)
}

// All returns the postings, with their ids in order.
func (p *Postings) All() []Posting {
	for i := range p.lists {
		if ids := p.lists[i].ids; !slices.IsSortedFunc(ids, job.ID.Compare) {
			slices.SortFunc(ids, job.ID.Compare)
		}
	}
	return p.lists
}

// ListsFor returns lists that together have every job that the filter selects; nil when only all jobs do.
func ListsFor(f *store.Filter) []ListKey {
	if f.Namespace == "" {
		return nil
	}
	if names := slices.Sorted(maps.Keys(f.Labels)); len(names) > 0 {
		return []ListKey{{f.Namespace, listLabel, names[0] + "=" + f.Labels[names[0]]}}
	}
	switch {
	case f.Name != "":
		return []ListKey{{f.Namespace, listName, f.Name}}
	case len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s job.State) bool { return !s.Terminal() }):
		var keys []ListKey
		for _, s := range f.States {
			keys = append(keys, ListKey{f.Namespace, listState, s.String()})
		}
		return keys
	case f.Queue != "":
		return []ListKey{{f.Namespace, listQueue, f.Queue}}
	}
	return []ListKey{{f.Namespace, listAll, ""}}
}

// Few returns the jobs that a filter can select, when it is known that there are few.
func (h *Hot) Few(f *store.Filter) ([]job.ID, bool) {
	if len(f.IDs) > 0 {
		return slices.Clone(f.IDs), true
	}
	if len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s job.State) bool { return !s.OnWorker() }) {
		return h.Changed(), true
	}
	return nil, false
}

// PostingSource yields the postings of a list from the one with the largest last id on: that id and the bytes, and false
// when there are no more.
type PostingSource func() (last job.ID, ids []byte, ok bool, err error)

// ListReader yields the ids of a list, the largest first. Postings may overlap, so ids wait in a heap until no posting can
// have a larger one.
type ListReader struct {
	source PostingSource
	before job.ID // only smaller ones; zero: all
	next   struct {
		last job.ID
		ids  []byte
		ok   bool
	}
	ids idHeap
}

// NewListReader makes a reader of the ids smaller than before, or of all when it is zero.
func NewListReader(source PostingSource, before job.ID) (*ListReader, error) {
	r := &ListReader{source: source, before: before}
	return r, r.advance()
}

func (r *ListReader) advance() (err error) {
	r.next.last, r.next.ids, r.next.ok, err = r.source()
	return err
}

// Next returns the next id, false at the end.
func (r *ListReader) Next() (job.ID, bool, error) {
	for r.next.ok && (len(r.ids) == 0 || r.next.last.Compare(r.ids[0]) >= 0) {
		ids, err := readIDs(r.next.ids)
		if err != nil {
			return job.ID{}, false, err
		}
		for _, id := range ids {
			if r.before.IsZero() || id.Compare(r.before) < 0 {
				heap.Push(&r.ids, id)
			}
		}
		if err := r.advance(); err != nil {
			return job.ID{}, false, err
		}
	}
	if len(r.ids) == 0 {
		return job.ID{}, false, nil
	}
	id := r.ids[0]
	for len(r.ids) > 0 && r.ids[0] == id { // an id may be listed twice
		heap.Pop(&r.ids)
	}
	return id, true, nil
}

// Merge calls visit with the ids of several lists, the largest first and each once, until it returns false.
func Merge(readers []*ListReader, visit func(job.ID) bool) error {
	heads := make(map[*ListReader]job.ID)
	advance := func(r *ListReader) error {
		id, ok, err := r.Next()
		if heads[r] = id; !ok {
			delete(heads, r)
		}
		return err
	}
	for _, r := range readers {
		if err := advance(r); err != nil {
			return err
		}
	}
	var before job.ID
	for len(heads) > 0 {
		var largest *ListReader
		for r, id := range heads {
			if largest == nil || id.Compare(heads[largest]) > 0 {
				largest = r
			}
		}
		id := heads[largest]
		if id != before && !visit(id) {
			return nil
		}
		before = id
		if err := advance(largest); err != nil {
			return err
		}
	}
	return nil
}

// idHeap has the largest id first.
type idHeap []job.ID

func (h idHeap) Len() int           { return len(h) }
func (h idHeap) Less(i, j int) bool { return bytes.Compare(h[i][:], h[j][:]) > 0 }
func (h idHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *idHeap) Push(x any) {
	if id, ok := x.(job.ID); ok {
		*h = append(*h, id)
	}
}

func (h *idHeap) Pop() any {
	last := len(*h) - 1
	id := (*h)[last]
	*h = (*h)[:last]
	return id
}
