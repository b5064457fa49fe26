package pebblestore

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// The index for listing. For every namespace it has lists of the jobs of a queue, with a label, of a name and that ended in
// a state. A commit writes one posting for each list that it adds to, with all ids that it adds, so that large batches cost
// next to nothing for each job. The key of a posting ends with its largest id.
const (
	indexAll   = 'a' // all jobs of the namespace
	indexQueue = 'q'
	indexLabel = 'l' // label=value
	indexName  = 'n'
	indexState = 's' // terminal ones only: the others are in hot
)

func listPrefix(namespace string, kind byte, value string) []byte {
	key := make([]byte, 0, 3+len(namespace)+len(value)+len(job.ID{}))
	key = append(append(append(key, indexPrefix), namespace...), 0, kind)
	return append(append(key, value...), 0)
}

func labelValue(name, value string) string { return name + "=" + value }

// postings gathers what a commit adds to lists.
type postings struct {
	lists []posting
	byKey map[string]int // of lists; made when there are more than a few
}

type posting struct {
	namespace string
	kind      byte
	value     string
	ids       []job.ID
}

// fewLists is how many lists are looked through one by one. Jobs of a batch are mostly of one namespace and queue.
const fewLists = 8

func (p *postings) add(namespace string, kind byte, value string, id job.ID) {
	for i := range p.lists[:min(len(p.lists), fewLists)] {
		if l := &p.lists[i]; l.kind == kind && l.value == value && l.namespace == namespace {
			l.ids = append(l.ids, id)
			return
		}
	}
	key := string(listPrefix(namespace, kind, value))
	i, ok := p.byKey[key]
	if !ok {
		i = len(p.lists)
		p.lists = append(p.lists, posting{namespace: namespace, kind: kind, value: value})
		if p.byKey == nil {
			p.byKey = make(map[string]int)
		}
		p.byKey[key] = i
	}
	p.lists[i].ids = append(p.lists[i].ids, id)
}

// accept lists a new job.
func (p *postings) accept(j *job.Job) {
	spec := j.Spec
	p.add(spec.Namespace, indexAll, "", j.ID)
	p.add(spec.Namespace, indexQueue, spec.Queue, j.ID)
	if spec.Name != "" {
		p.add(spec.Namespace, indexName, spec.Name, j.ID)
	}
	for name, value := range spec.Labels {
		p.add(spec.Namespace, indexLabel, labelValue(name, value), j.ID)
	}
}

// end lists a job that has ended.
func (p *postings) end(j *job.Job) { p.add(j.Spec.Namespace, indexState, j.State.String(), j.ID) }

func (p *postings) write(w *writer) {
	for i := range p.lists {
		l := &p.lists[i]
		if !slices.IsSortedFunc(l.ids, job.ID.Compare) {
			slices.SortFunc(l.ids, job.ID.Compare)
		}
		last := l.ids[len(l.ids)-1]
		w.set(append(listPrefix(l.namespace, l.kind, l.value), last[:]...), appendIDs(w.value[:0], l.ids))
	}
}

// appendIDs writes growing ids: of each, how many of its first bytes are those of the id before it, and the rest.
func appendIDs(b []byte, ids []job.ID) []byte {
	var before job.ID
	for _, id := range ids {
		same := 0
		for same < len(id) && id[same] == before[same] {
			same++
		}
		b = append(append(b, byte(same)), id[same:]...)
		before = id
	}
	return b
}

// readIDs reads what appendIDs wrote.
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

// listReader yields the ids of a list, the largest first. Postings may overlap, so ids wait in a heap until no posting
// can have a larger one.
type listReader struct {
	it     *pebble.Iterator
	before job.ID
	ids    idHeap
	ok     bool
}

func (s *Store) readList(ctx context.Context, prefix []byte, before job.ID) (*listReader, error) {
	it, err := s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return nil, err
	}
	r := &listReader{it: it, before: before}
	r.ok = it.Last()
	return r, nil
}

// next returns the next id; false at the end, or when close will tell of an error.
func (r *listReader) next() (job.ID, bool, error) {
	for r.ok && (len(r.ids) == 0 || idOf(r.it.Key()).Compare(r.ids[0]) >= 0) {
		value, err := r.it.ValueAndErr()
		if err != nil {
			return job.ID{}, false, err
		}
		ids, err := readIDs(value)
		if err != nil {
			return job.ID{}, false, err
		}
		for _, id := range ids {
			if r.before.IsZero() || id.Compare(r.before) < 0 {
				heap.Push(&r.ids, id)
			}
		}
		r.ok = r.it.Prev()
	}
	if len(r.ids) == 0 {
		return job.ID{}, false, r.it.Error()
	}
	id := r.ids[0]
	for len(r.ids) > 0 && r.ids[0] == id { // an id may be listed twice
		heap.Pop(&r.ids)
	}
	return id, true, nil
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

// lists returns the lists, any of which has every job that the filter selects; nil when only all jobs do.
func lists(f *store.Filter) [][]byte {
	if f.Namespace == "" {
		return nil
	}
	if names := slices.Sorted(maps.Keys(f.Labels)); len(names) > 0 {
		return [][]byte{listPrefix(f.Namespace, indexLabel, labelValue(names[0], f.Labels[names[0]]))}
	}
	switch {
	case f.Name != "":
		return [][]byte{listPrefix(f.Namespace, indexName, f.Name)}
	case len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s job.State) bool { return !s.Terminal() }):
		var prefixes [][]byte
		for _, s := range f.States {
			prefixes = append(prefixes, listPrefix(f.Namespace, indexState, s.String()))
		}
		return prefixes
	case f.Queue != "":
		return [][]byte{listPrefix(f.Namespace, indexQueue, f.Queue)}
	}
	return [][]byte{listPrefix(f.Namespace, indexAll, "")}
}
