package pgstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// Expire implements store.Expirer.
func (s *Store) Expire(ctx context.Context, endedBefore, expiredBefore time.Time) (removed int, more bool, err error) {
	s.expiring.Lock()
	defer s.expiring.Unlock()
	w := &sweep{store: s, before: endedBefore}
	if more, err = w.collect(ctx); err != nil {
		return 0, false, err
	}
	term, err := w.rewriteLists(ctx)
	if err != nil {
		return 0, false, fmt.Errorf("removing old jobs from the lists: %w", err)
	}
	err = s.retry(ctx, "removing old jobs", func() error {
		batch := new(pgx.Batch)
		queueLeadership(batch, term)
		batch.Queue("DELETE FROM requests WHERE expires < $1", expiredBefore)
		for _, statement := range []string{
			"DELETE FROM jobs WHERE id = ANY($1)", "DELETE FROM endings WHERE id = ANY($1)",
			"DELETE FROM log_chunks WHERE job = ANY($1)", "DELETE FROM log_ends WHERE job = ANY($1)",
		} {
			if len(w.gone) > 0 {
				batch.Queue(statement, w.gone)
			}
		}
		return deposed(s.logs.SendBatch(ctx, batch).Close())
	})
	if err != nil {
		return 0, false, fmt.Errorf("removing old jobs: %w", err)
	}
	return len(w.gone), more, nil
}

// sweep is one call's work.
type sweep struct {
	store  *Store
	before time.Time
	last   [16]byte          // the last job that was looked at
	gone   [][16]byte        // those of them that are old enough
	kept   storelog.Postings // the places in lists of the others
	live   []job.ID          // those of the others that had not ended
}

// collect looks at the oldest jobs until it has found some that are old enough. It reports whether there may be more.
func (w *sweep) collect(ctx context.Context) (more bool, err error) {
	for len(w.gone) == 0 {
		var ids []job.ID
		err := w.store.retry(ctx, "looking for old jobs", func() error {
			rows, err := w.store.reads.Query(ctx, "SELECT id FROM jobs WHERE id > $1 AND id < $2 ORDER BY id LIMIT $3",
				w.last, [16]byte(job.NewID(w.before, 0, 0)), pieceSize)
			if err != nil {
				return err
			}
			ids, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (job.ID, error) {
				id, err := pgx.RowTo[[16]byte](row)
				return id, err
			})
			return err
		})
		if err != nil {
			return false, err
		}
		if len(ids) == 0 {
			return false, nil
		}
		w.last, more = ids[len(ids)-1], len(ids) == pieceSize
		if err := w.store.JobsByID(ctx, ids, w.look); err != nil {
			return false, err
		}
	}
	return more, nil
}

func (w *sweep) look(j job.Job) {
	switch {
	case !j.State.Terminal():
		w.kept.Accept(&j)
		w.live = append(w.live, j.ID)
	case j.Ended.Before(w.before):
		w.gone = append(w.gone, j.ID)
	default:
		w.kept.Accept(&j)
		w.kept.End(&j)
	}
}

// rewriteLists deletes the postings that have only jobs that were looked at, and writes those of the kept ones anew. No commit
// may add to lists meanwhile. It returns this server's term.
func (w *sweep) rewriteLists(ctx context.Context) (term uint64, err error) {
	s := w.store
	s.committing.Lock()
	defer s.committing.Unlock()
	if len(w.gone) == 0 {
		return s.term, nil
	}
	var ended []job.ID // since they were looked at
	for _, id := range w.live {
		if _, unfinished := s.hot.Find(id); !unfinished {
			ended = append(ended, id)
		}
	}
	var problem error
	err = s.rows(ctx, ended, func(row *stored) {
		j, err := decode(row, nil, false)
		if err != nil {
			problem = fmt.Errorf("job %s: %w", job.ID(row.ID), err)
			return
		}
		w.kept.End(&j)
	})
	if err != nil || problem != nil {
		return s.term, fmt.Errorf("reading what has ended meanwhile: %w", errors.Join(err, problem))
	}
	return s.term, s.retry(ctx, "removing old jobs from the lists", func() error {
		batch := new(pgx.Batch)
		queueLeadership(batch, s.term)
		batch.Queue("DELETE FROM postings WHERE last <= $1", w.last)
		queueLists(batch, &w.kept)
		return deposed(s.logs.SendBatch(ctx, batch).Close())
	})
}
