package storelog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/hodei-jobs/hodei/service/job"
)

// Engine is what an adapter gives. Its methods may be called from several goroutines.
type Engine interface {
	// PagesFrom returns the first n pages whose last id is not smaller than from, in order, each with its endings.
	PagesFrom(ctx context.Context, from job.ID, n int) ([]Page, error)
	// PagesOf returns, for each of the ids, which grow, the first page whose last id is not smaller; each page once, in order.
	PagesOf(ctx context.Context, ids []job.ID) ([]Page, error)
	// Listed returns at most n pages of a list whose last id is smaller than below (zero: all), the newest first.
	Listed(ctx context.Context, list List, below job.ID, n int) ([]Listed, error)
	// SetAside writes what a write says. Nobody else writes meanwhile.
	SetAside(ctx context.Context, w *Write) error
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

	committing    sync.Mutex // held by the one who changes jobs
	damagedBlocks int        // that Unfinished has not counted yet; guarded by committing
}

// Log is the side of the one who writes, who holds the lock from before Prepare until after Apply.
type Log struct{ *Jobs }

// Lock makes the caller the one who writes.
func (s Log) Lock() { s.committing.Lock() }

// Unlock ends what Lock began.
func (s Log) Unlock() { s.committing.Unlock() }

// New makes an empty log. Load follows for each block that the engine has, in order, then Loaded.
func New(engine Engine, logger *slog.Logger) Log { return Log{&Jobs{engine: engine, logger: logger}} }

// Become takes over what another log has loaded, which is not used any more.
func (s Log) Become(other Log) {
	s.hot.mu.Lock()
	defer s.hot.mu.Unlock()
	s.hot.state, s.damagedBlocks = other.hot.state, other.damagedBlocks
}

// Load takes in the next block of the log of unfinished jobs. After an error, the block cannot be read and counts as empty:
// the jobs that only it knew are found as damaged, those that it changed stand as they did before, and those that it ended
// have ended.
func (s Log) Load(number uint64, block []byte) error {
	err := s.hot.load(number, block)
	if err != nil {
		s.damagedBlocks++
	}
	return err
}

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
	j, err := s.readJob(ctx, id)
	if errors.Is(err, errMoved) { // or its commit is under way: an engine may show what it wrote before it is over
		s.committing.Lock()
		s.committing.Unlock() //nolint:staticcheck // waiting is all
		j, err = s.readJob(ctx, id)
	}
	if errors.Is(err, errMoved) {
		return job.Job{}, fmt.Errorf("job %s: %w", id, errNoState)
	}
	return j, err
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
		if ctx.Err() != nil {
			return ctx.Err()
		}
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

// Newest implements store.Jobs.
func (s *Jobs) Newest(context.Context) (job.ID, error) {
	s.hot.mu.RLock()
	defer s.hot.mu.RUnlock()
	return s.hot.newest, nil
}
