package storelog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// engine keeps everything in maps: what a store would have on its disk.
type engine struct {
	log      storelog.Log
	pages    map[job.ID][]byte
	endings  map[job.ID]map[uint64][]byte
	lists    map[string]map[job.ID]map[uint64][]byte
	blocks   map[uint64][]byte
	setAside []storelog.Value
}

func newEngine() *engine {
	e := &engine{
		pages: map[job.ID][]byte{}, endings: map[job.ID]map[uint64][]byte{},
		lists: map[string]map[job.ID]map[uint64][]byte{}, blocks: map[uint64][]byte{},
	}
	e.log = storelog.New(e, slog.New(slog.DiscardHandler))
	return e
}

// reload forgets what is in memory and reads it again.
func (e *engine) reload(t *testing.T) {
	t.Helper()
	e.log = storelog.New(e, slog.New(slog.DiscardHandler))
	for _, number := range slices.Sorted(maps.Keys(e.blocks)) {
		if err := e.log.Load(number, e.blocks[number]); err != nil {
			t.Fatal(err)
		}
	}
	var newest job.ID
	if lasts := e.lasts(); len(lasts) > 0 {
		newest = lasts[len(lasts)-1]
	}
	e.log.Loaded(newest)
}

func (e *engine) commit(b *store.Batch) error {
	w, err := e.log.Prepare(b, func(number uint64) ([]byte, error) {
		if e.blocks[number] == nil {
			return nil, fmt.Errorf("there is no block %d", number)
		}
		return e.blocks[number], nil
	})
	if err == nil {
		e.store(w)
		e.log.Apply(w)
	}
	return err
}

func (e *engine) store(w *storelog.Write) {
	for _, p := range w.Pages {
		e.pages[p.Page] = bytes.Clone(p.Bytes)
	}
	e.rest(w.Rest)
	for _, v := range w.Endings {
		if e.endings[v.Page] == nil {
			e.endings[v.Page] = map[uint64][]byte{}
		}
		e.endings[v.Page][w.Number] = bytes.Clone(v.Bytes)
	}
	for _, l := range w.Lists {
		name, number := string(l.List.Append(nil)), uint64(0)
		if l.Ended() {
			number = w.Number
		}
		if e.lists[name] == nil {
			e.lists[name] = map[job.ID]map[uint64][]byte{}
		}
		if e.lists[name][l.Page] == nil {
			e.lists[name][l.Page] = map[uint64][]byte{}
		}
		e.lists[name][l.Page][number] = l.AppendValue(nil)
	}
	if w.Block != nil {
		e.blocks[w.Number] = bytes.Clone(w.Block)
	}
	for n := range w.Gone {
		delete(e.blocks, w.First+uint64(n))
	}
	e.setAside = append(e.setAside, w.SetAside...)
}

func (e *engine) rest(rest []storelog.Value) {
	for _, v := range rest {
		if e.pages[v.Page] = bytes.Clone(v.Bytes); v.Bytes == nil {
			delete(e.pages, v.Page)
		}
	}
}

// sweep removes what a sweep says.
func (e *engine) sweep(s *storelog.Sweep) {
	in := func(run storelog.Run, id job.ID) bool { return run.First.Compare(id) <= 0 && id.Compare(run.Last) <= 0 }
	for _, run := range s.Pages {
		maps.DeleteFunc(e.pages, func(id job.ID, _ []byte) bool { return in(run, id) })
		maps.DeleteFunc(e.endings, func(id job.ID, _ map[uint64][]byte) bool { return in(run, id) })
	}
	for _, run := range s.Lists {
		name := string(run.List.Append(nil))
		maps.DeleteFunc(e.lists[name], func(id job.ID, _ map[uint64][]byte) bool { return in(run.Run, id) })
		if len(e.lists[name]) == 0 {
			delete(e.lists, name)
		}
	}
	e.rest(s.Rest)
}

func (e *engine) lasts() []job.ID { return slices.SortedFunc(maps.Keys(e.pages), job.ID.Compare) }

func (e *engine) page(last job.ID) storelog.Page {
	p := storelog.Page{Last: last, Value: e.pages[last]}
	for _, number := range slices.Sorted(maps.Keys(e.endings[last])) {
		p.Endings = append(p.Endings, e.endings[last][number])
	}
	return p
}

func (e *engine) PagesFrom(_ context.Context, from job.ID, n int) ([]storelog.Page, error) {
	var pages []storelog.Page
	for _, last := range e.lasts() {
		if last.Compare(from) >= 0 && len(pages) < n {
			pages = append(pages, e.page(last))
		}
	}
	return pages, nil
}

func (e *engine) PagesOf(ctx context.Context, ids []job.ID) ([]storelog.Page, error) {
	if !slices.IsSortedFunc(ids, job.ID.Compare) {
		return nil, errors.New("the ids do not grow")
	}
	var pages []storelog.Page
	for _, id := range ids {
		next, _ := e.PagesFrom(ctx, id, 1) // it never fails
		if len(next) > 0 && (len(pages) == 0 || pages[len(pages)-1].Last != next[0].Last) {
			pages = append(pages, next[0])
		}
	}
	return pages, nil
}

func (e *engine) Listed(_ context.Context, list storelog.List, below job.ID, n int) ([]storelog.Listed, error) {
	var listed []storelog.Listed
	add := func(page job.ID, values [][]byte) {
		if below.IsZero() || page.Compare(below) < 0 {
			listed = append(listed, storelog.Listed{Page: page, Values: values})
		}
	}
	if list.IsAll() {
		for last := range e.pages {
			add(last, nil)
		}
	}
	for page, byNumber := range e.lists[string(list.Append(nil))] {
		add(page, slices.Collect(maps.Values(byNumber)))
	}
	slices.SortFunc(listed, func(a, b storelog.Listed) int { return b.Page.Compare(a.Page) })
	return listed[:min(n, len(listed))], nil
}

func (e *engine) SetAside(_ context.Context, w *storelog.Write) error {
	e.store(w)
	return nil
}
