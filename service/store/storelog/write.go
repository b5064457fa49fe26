package storelog

import (
	"fmt"
	"iter"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Write is what an engine writes for a commit, all or nothing. It is the caller's until Apply.
type Write struct {
	Number   uint64  // of the commit's block; larger than that of every commit before
	Block    []byte  // nil: none
	First    uint64  // number of the oldest block; of those from it on,
	Gone     int     // so many are to be deleted
	Pages    []Value // new ones
	Rest     []Value // what stays of pages that were written before; nil deletes one
	Endings  []Value // by page and the commit's number
	Lists    []Listing
	SetAside []Value // what could not be read, by job or page; for people to look at

	sections []section
	newest   job.ID
}

// Value is a value of a page.
type Value struct {
	Page  job.ID
	Bytes []byte
}

// group is the jobs of one page that a commit writes.
type group struct {
	page  job.ID
	isNew bool
	jobs  []*job.Job
	at    []int // their positions, in order
}

// Prepare makes the write of a batch. Apply must follow when it was written.
func (s Log) Prepare(b *store.Batch, readBlock func(number uint64) ([]byte, error)) (*Write, error) {
	n := len(b.Accepted) + len(b.Changed)
	if n == 0 {
		return &Write{}, nil
	}
	e := encoder{block: newBlock(n), value: make([]byte, 0, 64*n), write: &Write{Number: s.hot.next(), First: s.hot.first, newest: s.hot.newest}}
	if err := e.accept(b.Accepted); err != nil {
		return nil, err
	}
	groups, err := s.hot.groups(b.Changed)
	if err != nil {
		return nil, err
	}
	for i := range groups {
		e.group(&groups[i])
	}
	w := e.write
	if w.Gone, err = s.hot.shrink(e.block, readBlock); err != nil {
		return nil, fmt.Errorf("copying the log of unfinished jobs: %w", err)
	}
	w.Block, w.sections, w.Lists = pack(nil, e.block.buffer), e.block.sections, e.lists.all
	return w, nil
}

// Apply makes a write count that is durable.
func (s Log) Apply(w *Write) { s.apply(w) }

func (s *Jobs) apply(w *Write) {
	if w.Block == nil {
		return
	}
	s.hot.apply(w.sections)
	s.hot.drop(w.Gone)
	s.hot.mu.Lock()
	defer s.hot.mu.Unlock()
	s.hot.newest = w.newest
}

// encoder makes a write.
type encoder struct {
	block *block
	lists lister
	write *Write
	plain []byte // the value that is being made
	value []byte // the values; what is full stays with them
}

// accept cuts new jobs into pages.
func (e *encoder) accept(jobs []*job.Job) error {
	for len(jobs) > 0 {
		n := 0
		var before job.ID
		for e.plain = e.plain[:0]; n < len(jobs) && n < pageJobs && len(e.plain) < pageBytes; n++ {
			j := jobs[n]
			if j.ID.Compare(e.write.newest) <= 0 {
				return fmt.Errorf("job %s is accepted after job %s, whose id is not smaller; the clock was set back, or ids are not made in order",
					j.ID, e.write.newest)
			}
			e.plain = appendPageJob(e.plain, before, j)
			before, e.write.newest = j.ID, j.ID
		}
		e.write.Pages = append(e.write.Pages, e.packed(before))
		e.group(&group{page: before, isNew: true, jobs: jobs[:n], at: firstPositions[:n]})
		jobs = jobs[n:]
	}
	return nil
}

// firstPositions are the positions of a page whose jobs are all written.
var firstPositions = func() []int {
	at := make([]int, pageJobs)
	for i := range at {
		at[i] = i
	}
	return at
}()

// group writes what became of jobs of a page.
func (e *encoder) group(g *group) {
	waiting := section{kind: sectionAccepted, page: g.page}
	changed := section{kind: sectionChanged, page: g.page}
	var ended positions
	var states []byte
	for i, j := range g.jobs {
		at := g.at[i]
		if g.isNew {
			e.lists.accept(j.Spec, g.page, at)
		}
		switch {
		case j.State.Terminal():
			ended |= 1 << at
			e.lists.end(j, g.page, at)
		case g.isNew && isAsAccepted(j):
			waiting.at |= 1 << at
			waiting.ids = append(waiting.ids, j.ID)
		default:
			if states == nil {
				states = make([]byte, 0, 96*(len(g.jobs)-i))
			}
			start := len(states)
			states = storerecord.AppendState(states, j)
			changed.at |= 1 << at
			changed.ids = append(changed.ids, j.ID)
			changed.states = append(changed.states, states[start:len(states):len(states)])
		}
	}
	e.lists.nextPage()
	e.block.add(waiting)
	e.block.add(changed)
	if ended == 0 {
		return
	}
	if !g.isNew {
		e.block.add(section{kind: sectionEnded, page: g.page, at: ended})
	}
	e.plain = appendEndings(e.plain[:0], ended, g.endedJobs())
	e.write.Endings = append(e.write.Endings, e.packed(g.page))
}

// packed makes a value of a page of what is in plain.
func (e *encoder) packed(page job.ID) Value {
	start := len(e.value)
	e.value = pack(e.value, e.plain)
	return Value{page, e.value[start:len(e.value):len(e.value)]}
}

func (g *group) endedJobs() iter.Seq[*job.Job] {
	return func(yield func(*job.Job) bool) {
		for _, j := range g.jobs {
			if j.State.Terminal() && !yield(j) {
				return
			}
		}
	}
}

// groups finds the pages of jobs that were accepted before, and sorts the jobs by them.
func (h *hot) groups(jobs []*job.Job) ([]group, error) {
	var groups []group
	var byPage map[job.ID]int // made when jobs do not come page by page
	var page *livePage
	for _, j := range jobs {
		at, found := page.position(j.ID)
		if !found {
			page = h.page(j.ID)
			if at, found = page.position(j.ID); !found {
				return nil, fmt.Errorf("job %s changes, but it has ended or was never accepted", j.ID)
			}
		}
		last := len(groups) - 1
		if last < 0 || groups[last].page != page.last {
			if byPage == nil {
				byPage = make(map[job.ID]int)
			}
			i, ok := byPage[page.last]
			if !ok {
				i = len(groups)
				byPage[page.last] = i
				groups = append(groups, group{page: page.last})
			}
			last = i
		}
		groups[last].add(j, at)
	}
	return groups, nil
}

// add puts a job at its place in the group; most come in order.
func (g *group) add(j *job.Job, at int) {
	i := len(g.at)
	for i > 0 && g.at[i-1] > at {
		i--
	}
	if i > 0 && g.at[i-1] == at {
		g.jobs[i-1] = j // it changed twice; the last one counts
		return
	}
	g.jobs, g.at = slices.Insert(g.jobs, i, j), slices.Insert(g.at, i, at)
}
