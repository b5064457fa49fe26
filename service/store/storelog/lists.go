package storelog

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// List names a list of jobs. For every namespace there are lists of all jobs, of those of a queue, with a label, of a name
// and that ended in a state. The zero List has all jobs of all namespaces; it is not written, the pages are it.
type List struct {
	namespace string
	kind      byte
	value     string
}

// Kinds of lists.
const (
	listAll   = 'a'
	listQueue = 'q'
	listLabel = 'l' // name=value
	listName  = 'n'
	listState = 's' // terminal ones only
)

// IsAll reports whether the list is the one of all pages.
func (l List) IsAll() bool { return l.kind == 0 }

// Append appends bytes that name the list, of which no other list's are a prefix.
func (l List) Append(b []byte) []byte {
	b = append(append(b, l.namespace...), 0, l.kind)
	return append(append(b, l.value...), 0)
}

// Listing puts jobs of a page on a list. A page may have several on a list of an end state, by the number of the commit.
type Listing struct {
	List List
	Page job.ID
	at   positions
}

// Ended reports whether the list is one of ended jobs, on which the commit's number tells listings of a page apart.
func (l *Listing) Ended() bool { return l.List.kind == listState }

// AppendValue appends the listing's value.
func (l *Listing) AppendValue(b []byte) []byte { return binary.BigEndian.AppendUint64(b, uint64(l.at)) }

// Listed is a page on a list, with the values of its listings, or with none on the list of all pages.
type Listed struct {
	Page   job.ID
	Values [][]byte
}

func (l *Listed) positions() (positions, error) {
	if l.Values == nil {
		return ^positions(0), nil
	}
	var at positions
	for _, v := range l.Values {
		if len(v) != 8 {
			return 0, errDamaged
		}
		at |= positions(binary.BigEndian.Uint64(v))
	}
	return at, nil
}

// lister gathers the listings of one commit, page by page.
type lister struct {
	all   []Listing
	first int          // of the page under way
	byKey map[List]int // of the page under way, when it has many
}

// fewLists is how many lists are looked through one by one. Jobs of a page are mostly of one namespace and queue.
const fewLists = 8

// nextPage ends the page under way.
func (l *lister) nextPage() {
	l.first = len(l.all)
	clear(l.byKey)
}

func (l *lister) add(list List, page job.ID, at int) {
	few := min(len(l.all), l.first+fewLists)
	for i := l.first; i < few; i++ {
		if l.all[i].List == list {
			l.all[i].at |= 1 << at
			return
		}
	}
	if i, ok := l.byKey[list]; ok {
		l.all[i].at |= 1 << at
		return
	}
	if len(l.all) >= l.first+fewLists {
		if l.byKey == nil {
			l.byKey = make(map[List]int)
		}
		l.byKey[list] = len(l.all)
	}
	l.all = append(l.all, Listing{list, page, 1 << at})
}

// accept lists a new job.
func (l *lister) accept(spec *job.Spec, page job.ID, at int) {
	l.add(List{spec.Namespace, listAll, ""}, page, at)
	l.add(List{spec.Namespace, listQueue, spec.Queue}, page, at)
	if spec.Name != "" {
		l.add(List{spec.Namespace, listName, spec.Name}, page, at)
	}
	for name, value := range spec.Labels {
		l.add(List{spec.Namespace, listLabel, name + "=" + value}, page, at)
	}
}

// end lists a job that has ended.
func (l *lister) end(j *job.Job, page job.ID, at int) {
	l.add(List{j.Spec.Namespace, listState, j.State.String()}, page, at)
}

// everywhere lists a job wherever it may be: one of the same page may have left lists of an end state behind when it went, and one that has
// not ended may end at any time.
func (l *lister) everywhere(j *job.Job, page job.ID, at int) {
	l.accept(j.Spec, page, at)
	for state := job.Succeeded; state <= job.Skipped; state++ {
		l.add(List{j.Spec.Namespace, listState, state.String()}, page, at)
	}
}

// listsFor returns lists that together have every job that the filter selects.
func listsFor(f *store.Filter) []List {
	if f.Namespace == "" && len(f.Namespaces) == 0 {
		return []List{{}}
	}
	if f.Namespace == "" {
		var lists []List
		of := *f
		for _, of.Namespace = range slices.Compact(slices.Sorted(slices.Values(f.Namespaces))) {
			lists = append(lists, listsFor(&of)...)
		}
		return lists
	}
	if names := slices.Sorted(maps.Keys(f.Labels)); len(names) > 0 {
		return []List{{f.Namespace, listLabel, names[0] + "=" + f.Labels[names[0]]}}
	}
	switch {
	case f.Name != "":
		return []List{{f.Namespace, listName, f.Name}}
	case len(f.States) > 0 && !slices.ContainsFunc(f.States, func(s job.State) bool { return !s.Terminal() }):
		var lists []List
		for _, s := range f.States {
			lists = append(lists, List{f.Namespace, listState, s.String()})
		}
		return lists
	case f.Queue != "":
		return []List{{f.Namespace, listQueue, f.Queue}}
	}
	return []List{{f.Namespace, listAll, ""}}
}
