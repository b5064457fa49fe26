package storelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Engine is what an adapter gives. Its methods may be called from several goroutines.
type Engine interface {
	// PagesFrom returns the first n pages whose last id is not smaller than from, in order, each with its endings.
	PagesFrom(ctx context.Context, from job.ID, n int) ([]Page, error)
	// PagesOf returns, for each of the ids, which grow, the first page whose last id is not smaller; each page once, in order.
	PagesOf(ctx context.Context, ids []job.ID) ([]Page, error)
	// Listed returns at most n pages of a list whose last id is smaller than below (zero: all), the newest first.
	Listed(ctx context.Context, list List, below job.ID, n int) ([]Listed, error)
	// SetAside writes and applies a write that make returns, as Commit does.
	SetAside(ctx context.Context, make func() *Write) error
}

// Page is a page as it is stored. Last is the id of its last job.
type Page struct {
	Last    job.ID
	Value   []byte
	Endings [][]byte
}

// Jobs keeps jobs in an engine. It implements store.Jobs but for Request.
type Jobs struct {
	engine Engine
	logger *slog.Logger
	hot    hot
}

// Log is the side of the one who writes. Its methods must not be called at the same time, but for Sweep.
type Log struct{ *Jobs }

// New makes an empty log. Load follows for each block that the engine has, in order, then Loaded.
func New(engine Engine, logger *slog.Logger) Log { return Log{&Jobs{engine: engine, logger: logger}} }

// Reset forgets all blocks, for one who loads again.
func (s Log) Reset() {
	s.hot.mu.Lock()
	defer s.hot.mu.Unlock()
	s.hot.state = state{}
}

// Load takes in the next block of the log of unfinished jobs. After an error, the block cannot be read and counts as empty.
func (s Log) Load(number uint64, block []byte) error { return s.hot.load(number, block) }

// Loaded ends loading; newest is the last id of the last page.
func (s Log) Loaded(newest job.ID) { s.hot.newest = newest }

// page is a page as it was read.
type page struct {
	last   job.ID
	jobs   []pageJob
	ended  positions
	states [pageJobs][]byte // of those that have ended
}

// decodePage reads a page. What cannot be read of its endings is left out and reported.
func decodePage(p *Page) (*page, error) {
	out := &page{last: p.Last}
	var err error
	if out.jobs, err = readPage(p.Value); err != nil {
		return nil, fmt.Errorf("the page of jobs up to %s: %w", p.Last, err)
	}
	for _, value := range p.Endings {
		ended, err := readEndings(value, &out.states)
		if err != nil {
			return out, fmt.Errorf("endings of the page of jobs up to %s: %w", p.Last, err)
		}
		out.ended |= ended
	}
	return out, nil
}

// find returns the position of a job.
func (p *page) find(id job.ID) (int, bool) {
	i, found := slices.BinarySearchFunc(p.jobs, id, func(j pageJob, id job.ID) int { return j.id.Compare(id) })
	return i, found && len(p.jobs[i].accepted) > 0
}

var (
	errNoState = errors.New("the job has a spec and no state: the data is damaged; restore a backup")
	// errMoved is for a job that has ended since its page was read.
	errMoved = errors.New("the job has ended meanwhile")
)

// job puts together the job at a position.
func (s *Jobs) job(p *page, at int) (job.Job, error) {
	state := p.states[at]
	if !p.ended.has(at) {
		var unfinished bool
		if state, unfinished = s.hot.find(p.last, at); !unfinished {
			return job.Job{}, errMoved
		}
	}
	j, err := decodeJob(p.jobs[at].id, p.jobs[at].accepted, state)
	if err != nil {
		return job.Job{}, fmt.Errorf("job %s: %w", p.jobs[at].id, err)
	}
	return j, nil
}

// Job implements store.Jobs.
func (s *Jobs) Job(ctx context.Context, id job.ID) (job.Job, error) {
	for range 3 { // a job ends once, so the second try finds its end
		j, err := s.readJob(ctx, id)
		if !errors.Is(err, errMoved) {
			return j, err
		}
	}
	return job.Job{}, fmt.Errorf("job %s: %w", id, errNoState)
}

func (s *Jobs) readJob(ctx context.Context, id job.ID) (job.Job, error) {
	pages, err := s.engine.PagesFrom(ctx, id, 1)
	if err != nil {
		return job.Job{}, fmt.Errorf("reading job %s: %w", id, err)
	}
	if len(pages) == 0 {
		return job.Job{}, job.NotFound(id.String())
	}
	p, err := decodePage(&pages[0])
	if p == nil {
		return job.Job{}, err
	}
	at, found := p.find(id)
	if !found {
		return job.Job{}, job.NotFound(id.String())
	}
	j, jobErr := s.job(p, at)
	if errors.Is(jobErr, errMoved) && err != nil {
		return job.Job{}, err // its end is in what cannot be read
	}
	return j, jobErr
}

// readPiece is how many jobs or pages are read at once.
const readPiece = 256

// JobsByID implements store.Jobs.
func (s *Jobs) JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error {
	for piece := range slices.Chunk(ids, readPiece) {
		pages, err := s.engine.PagesOf(ctx, piece)
		if err != nil {
			return fmt.Errorf("reading jobs: %w", err)
		}
		var p *page
		next := 0
		for _, id := range piece {
			for p == nil || p.last.Compare(id) < 0 {
				if next == len(pages) {
					return nil // nothing is as new as this
				}
				p = s.readable(&pages[next])
				next++
			}
			if at, found := p.find(id); found {
				s.visit(ctx, p, at, visit)
			}
		}
	}
	return ctx.Err()
}

// readable reads a page for a list. What cannot be read is left out, so that a damaged record does not hide all others; Job
// tells about it.
func (s *Jobs) readable(stored *Page) *page {
	p, err := decodePage(stored)
	if err != nil {
		s.logger.Error("jobs were left out because they cannot be read", "error", err)
	}
	if p == nil {
		p = &page{last: stored.Last}
	}
	return p
}

func (s *Jobs) visit(ctx context.Context, p *page, at int, visit func(job.Job)) {
	j, err := s.job(p, at)
	if errors.Is(err, errMoved) {
		j, err = s.Job(ctx, p.jobs[at].id)
	}
	switch {
	case err == nil:
		visit(j)
	case job.CodeOf(err) != job.CodeNotFound:
		s.logger.Error("a job was left out because it cannot be read", "error", err)
	}
}

// Unfinished implements store.Jobs.
func (s *Jobs) Unfinished(ctx context.Context, visit func(job.Job) error) (int, error) {
	var damaged []damage
	for piece := range slices.Chunk(s.hot.unfinished(false), readPiece) {
		lasts := make([]job.ID, len(piece))
		for i := range piece {
			lasts[i] = piece[i].page
		}
		stored, err := s.engine.PagesOf(ctx, lasts)
		if err != nil {
			return 0, fmt.Errorf("reading the unfinished jobs: %w", err)
		}
		for _, a := range piece {
			i, found := slices.BinarySearchFunc(stored, a.page, func(p Page, last job.ID) int { return p.Last.Compare(last) })
			if !found {
				s.logger.Error("a page of unfinished jobs is gone", "page", a.page, "jobs", a.at.count())
				damaged = append(damaged, damage{address: a})
				continue
			}
			broken, err := s.visitUnfinished(&stored[i], a.at, visit)
			if err != nil {
				return 0, err
			}
			if broken != 0 {
				damaged = append(damaged, damage{address{a.page, broken}, stored[i].Value})
			}
		}
	}
	n := 0
	for i := range damaged {
		n += damaged[i].at.count()
	}
	if n == 0 {
		return 0, ctx.Err()
	}
	return n, s.engine.SetAside(ctx, func() *Write { return s.quarantine(damaged) })
}

// visitUnfinished visits jobs of a page and returns the positions of those that cannot be read.
func (s *Jobs) visitUnfinished(stored *Page, at positions, visit func(job.Job) error) (broken positions, err error) {
	p, err := decodePage(stored)
	if p == nil {
		s.logger.Error("a page of unfinished jobs cannot be read and is set aside", "jobs", at.count(), "error", err)
		return at, nil
	}
	for i := range at.up() {
		if i >= len(p.jobs) {
			broken |= 1 << i
			continue
		}
		p.ended &^= 1 << i // it has not, or it would not be asked for
		j, err := s.job(p, i)
		if err != nil {
			s.logger.Error("an unfinished job cannot be read and is set aside", "job", p.jobs[i].id, "error", err)
			broken |= 1 << i
			continue
		}
		if err := visit(j); err != nil {
			return 0, err
		}
	}
	return broken, nil
}

// damage is unfinished jobs that cannot be read.
type damage struct {
	address
	value []byte // of the page; nil when it is gone
}

// quarantine makes a write that moves the records of jobs that cannot be read to where nothing looks, but a person can.
func (s *Jobs) quarantine(damaged []damage) *Write {
	b := newBlock(0)
	w := &Write{Number: s.hot.next(), First: s.hot.first, newest: s.hot.newest}
	for i := range damaged {
		d := &damaged[i]
		b.add(section{kind: sectionEnded, page: d.page, at: d.at})
		if d.value == nil {
			continue
		}
		w.SetAside = append(w.SetAside, Value{d.page, d.value})
		rest := Value{Page: d.page} // a page that cannot be read at all goes
		if jobs, err := readPage(d.value); err == nil {
			rest.Bytes = without(jobs, d.at)
		}
		w.Rest = append(w.Rest, rest)
	}
	w.Block, w.sections = pack(nil, b.buffer), b.sections
	return w
}

// Newest implements store.Jobs.
func (s *Jobs) Newest(context.Context) (job.ID, error) {
	s.hot.mu.RLock()
	defer s.hot.mu.RUnlock()
	return s.hot.newest, nil
}

// ListJobs implements store.Jobs.
func (s *Jobs) ListJobs(ctx context.Context, filter store.Filter, before job.ID, limit int) ([]job.Job, error) {
	l := &listing{jobs: s, filter: &filter, before: before, limit: limit}
	var err error
	switch {
	case len(filter.IDs) > 0:
		err = l.named(ctx)
	case len(filter.States) > 0 && !slices.ContainsFunc(filter.States, job.State.Terminal):
		waiting := slices.ContainsFunc(filter.States, job.State.Waiting)
		err = l.addressed(ctx, s.hot.unfinished(!waiting))
	default:
		err = l.listed(ctx, listsFor(&filter))
	}
	return l.found, err
}

// listing gathers one page of a list.
type listing struct {
	jobs   *Jobs
	filter *store.Filter
	before job.ID
	limit  int
	found  []job.Job
}

func (l *listing) full() bool { return len(l.found) >= l.limit }

// add takes a job in if it matches.
func (l *listing) add(j job.Job) {
	if !l.full() && l.filter.Matches(&j) {
		l.found = append(l.found, j)
	}
}

// named looks at the jobs that the filter names.
func (l *listing) named(ctx context.Context) error {
	ids := slices.Clone(l.filter.IDs)
	slices.SortFunc(ids, job.ID.Compare)
	ids = slices.Compact(ids)
	if !l.before.IsZero() {
		n, _ := slices.BinarySearchFunc(ids, l.before, job.ID.Compare)
		ids = ids[:n]
	}
	var jobs []job.Job
	if err := l.jobs.JobsByID(ctx, ids, func(j job.Job) { jobs = append(jobs, j) }); err != nil {
		return err
	}
	for _, j := range slices.Backward(jobs) {
		l.add(j)
	}
	return nil
}

// listPiece is how many pages are read at once for a list.
const listPiece = 16

// addressed looks at jobs whose places are known, from the last on.
func (l *listing) addressed(ctx context.Context, all []address) error {
	if !l.before.IsZero() { // the page that may have both larger and smaller ids is the first with a larger last one
		n, _ := slices.BinarySearchFunc(all, l.before, func(a address, id job.ID) int { return a.page.Compare(id) })
		all = all[:min(n+1, len(all))]
	}
	for len(all) > 0 && !l.full() {
		n := max(len(all)-listPiece, 0)
		if err := l.read(ctx, all[n:]); err != nil {
			return err
		}
		all = all[:n]
	}
	return nil
}

// read takes in jobs at addresses, which are in order, from the last on.
func (l *listing) read(ctx context.Context, at []address) error {
	lasts := make([]job.ID, len(at))
	for i := range at {
		lasts[i] = at[i].page
	}
	stored, err := l.jobs.engine.PagesOf(ctx, lasts)
	if err != nil {
		return fmt.Errorf("reading jobs for a list: %w", err)
	}
	for i := len(stored) - 1; i >= 0 && !l.full(); i-- {
		n, found := slices.BinarySearchFunc(at, stored[i].Last, func(a address, id job.ID) int { return a.page.Compare(id) })
		if !found {
			continue // the page that was asked for has gone meanwhile
		}
		p := l.jobs.readable(&stored[i])
		for pos := range at[n].at.down() {
			if l.full() {
				break
			}
			if pos < len(p.jobs) && len(p.jobs[pos].accepted) > 0 && (l.before.IsZero() || p.jobs[pos].id.Compare(l.before) < 0) {
				l.jobs.visit(ctx, p, pos, l.add)
			}
		}
	}
	return ctx.Err()
}

// listed goes through lists.
func (l *listing) listed(ctx context.Context, lists []List) error {
	below := job.ID{}
	if !l.before.IsZero() {
		straddling, err := l.jobs.engine.PagesFrom(ctx, l.before, 1)
		if err != nil {
			return fmt.Errorf("reading a list of jobs: %w", err)
		}
		if len(straddling) > 0 {
			below = straddling[0].Last.Plus(1)
		}
	}
	readers := make([]listReader, len(lists))
	for i := range readers {
		readers[i] = listReader{engine: l.jobs.engine, list: lists[i], below: below}
	}
	for !l.full() {
		at, err := nextAddresses(ctx, readers, listPiece)
		if err != nil || len(at) == 0 {
			return err
		}
		slices.Reverse(at)
		if err := l.read(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// listReader goes through a list from its end.
type listReader struct {
	engine Engine
	list   List
	below  job.ID
	ahead  []Listed
	ended  bool
}

// head returns the page that is next, nil at the end.
func (r *listReader) head(ctx context.Context) (*Listed, error) {
	if len(r.ahead) == 0 && !r.ended {
		var err error
		if r.ahead, err = r.engine.Listed(ctx, r.list, r.below, listPiece); err != nil {
			return nil, fmt.Errorf("reading a list of jobs: %w", err)
		}
		if r.ended = len(r.ahead) < listPiece; len(r.ahead) > 0 {
			r.below = r.ahead[len(r.ahead)-1].Page
		}
	}
	if len(r.ahead) == 0 {
		return nil, nil
	}
	return &r.ahead[0], nil
}

// nextAddresses returns the next n pages of all lists together, the newest first.
func nextAddresses(ctx context.Context, readers []listReader, n int) ([]address, error) {
	var out []address
	for len(out) < n {
		var newest job.ID
		for i := range readers {
			head, err := readers[i].head(ctx)
			if err != nil {
				return nil, err
			}
			if head != nil && newest.Compare(head.Page) < 0 {
				newest = head.Page
			}
		}
		if newest.IsZero() {
			return out, nil
		}
		a := address{page: newest}
		for i := range readers {
			if ahead := readers[i].ahead; len(ahead) > 0 && ahead[0].Page == newest {
				at, err := ahead[0].positions()
				if err != nil {
					return nil, err
				}
				a.at |= at
				readers[i].ahead = ahead[1:]
			}
		}
		out = append(out, a)
	}
	return out, nil
}
