package storelog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hodei-jobs/hodei/service/job"
)

// Unfinished implements store.Jobs.
func (s *Jobs) Unfinished(ctx context.Context, visit func(job.Job) error) (int, error) {
	var found finding
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
			i, ok := slices.BinarySearchFunc(stored, a.page, func(p Page, last job.ID) int { return p.Last.Compare(last) })
			if !ok {
				s.logger.Error("a page of unfinished jobs is gone", "page", a.page, "jobs", a.at.count())
				found.damaged = append(found.damaged, damage{address: a})
				continue
			}
			if err := s.visitUnfinished(&stored[i], a.at, visit, &found); err != nil {
				return 0, err
			}
		}
	}
	return s.settle(ctx, &found)
}

// finding is what was found among the unfinished jobs besides them.
type finding struct {
	damaged []damage
	ended   []address // the block of the log that said so was damaged, or they have ended meanwhile
}

// damage is jobs that cannot be read.
type damage struct {
	address
	value []byte // of the page; nil when it is gone
}

// visitUnfinished visits jobs of a page and notes those that cannot be read.
func (s *Jobs) visitUnfinished(stored *Page, at positions, visit func(job.Job) error, found *finding) error {
	p, err := decodePage(stored)
	if p == nil {
		s.logger.Error("a page of unfinished jobs cannot be read and is set aside", "jobs", at.count(), "error", err)
		found.damaged = append(found.damaged, damage{address{stored.Last, at}, stored.Value})
		return nil
	}
	if ended := at & p.ended; ended != 0 {
		found.ended = append(found.ended, address{stored.Last, ended})
	}
	var broken positions
	for i := range (at &^ p.ended).up() {
		if i >= len(p.jobs) || len(p.jobs[i].accepted) == 0 {
			broken |= 1 << i
			continue
		}
		j, err := s.job(p, i)
		switch {
		case errors.Is(err, errMoved):
		case err != nil:
			s.logger.Error("an unfinished job cannot be read and is set aside", "job", p.jobs[i].id, "error", err)
			broken |= 1 << i
		default:
			if err := visit(j); err != nil {
				return err
			}
		}
	}
	if broken != 0 {
		found.damaged = append(found.damaged, damage{address{stored.Last, broken}, stored.Value})
	}
	return nil
}

// settle moves the records of jobs that cannot be read to where nothing looks, but a person can, and lets the log know what is
// not unfinished. It returns how many jobs and blocks were damaged.
func (s *Jobs) settle(ctx context.Context, found *finding) (int, error) {
	s.committing.Lock()
	defer s.committing.Unlock()
	n := s.damagedBlocks
	s.damagedBlocks = 0
	b := newBlock(0)
	w := &Write{Number: s.hot.next(), First: s.hot.first, newest: s.hot.newest}
	for _, a := range found.ended {
		b.add(section{kind: sectionEnded, page: a.page, at: a.at})
	}
	for i := range found.damaged {
		d := &found.damaged[i]
		n += d.at.count()
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
	if len(b.sections) == 0 {
		return n, ctx.Err()
	}
	w.Block, w.sections = pack(nil, b.buffer), b.sections
	if err := s.engine.SetAside(ctx, w); err != nil {
		return n, fmt.Errorf("setting damaged jobs aside: %w", err)
	}
	s.apply(w)
	return n, nil
}
