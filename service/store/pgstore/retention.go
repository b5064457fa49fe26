package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// Expire implements store.Expirer.
func (s *Store) Expire(ctx context.Context, endedBefore, expiredBefore time.Time) (removed int, more bool, err error) {
	var ids [][16]byte
	err = s.retry(ctx, "looking for old jobs", func() error {
		rows, err := s.reads.Query(ctx, "SELECT id FROM jobs WHERE id < $1 ORDER BY id LIMIT $2", [16]byte(job.NewID(endedBefore, 0, 0)), pieceSize)
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		return err
	})
	if err != nil {
		return 0, false, err
	}
	batch := new(pgx.Batch)
	batch.Queue("DELETE FROM requests WHERE expires < $1", expiredBefore)
	var gone [][16]byte
	if len(ids) > 0 {
		if gone, err = s.queueExpiry(ctx, batch, ids, endedBefore); err != nil {
			return 0, false, err
		}
	}
	err = s.retry(ctx, "removing old jobs", func() error { return s.logs.SendBatch(ctx, batch).Close() })
	if err != nil {
		return 0, false, fmt.Errorf("removing old jobs: %w", err)
	}
	// A piece in which nothing was old enough is the end: the next call would find it again.
	return len(gone), len(ids) == pieceSize && len(gone) > 0, nil
}

// queueExpiry queues the removal of those of the jobs, which are the oldest, that ended before a time.
func (s *Store) queueExpiry(ctx context.Context, batch *pgx.Batch, ids [][16]byte, before time.Time) (gone [][16]byte, err error) {
	keys := make([]job.ID, len(ids))
	for i, id := range ids {
		keys[i] = id
	}
	var kept storelog.Postings // their places in the lists go with those of the others
	err = s.JobsByID(ctx, keys, func(j job.Job) {
		if j.State.Terminal() && j.Ended.Before(before) {
			gone = append(gone, j.ID)
			return
		}
		kept.Accept(&j)
		if j.State.Terminal() {
			kept.End(&j)
		}
	})
	if err != nil || len(gone) == 0 {
		return nil, err
	}
	for _, statement := range []string{
		"DELETE FROM jobs WHERE id = ANY($1)", "DELETE FROM endings WHERE id = ANY($1)",
		"DELETE FROM log_chunks WHERE job = ANY($1)", "DELETE FROM log_ends WHERE job = ANY($1)",
	} {
		batch.Queue(statement, gone)
	}
	batch.Queue("DELETE FROM postings WHERE last <= $1", ids[len(ids)-1])
	queueLists(batch, &kept)
	return gone, nil
}
