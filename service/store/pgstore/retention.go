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
	s.expiring.Lock()
	defer s.expiring.Unlock()
	sweep, next, err := s.log.Sweep(ctx, endedBefore, s.sweptTo)
	if err != nil {
		return 0, false, err
	}
	if s.sweptTo = next; !sweep.More {
		s.sweptTo = job.ID{} // the next sweep begins with the oldest again
	}
	s.log.Lock()
	term := s.term
	s.log.Unlock()
	err = s.retry(ctx, "removing old jobs", func() error {
		batch := new(pgx.Batch)
		queueLeadership(batch, term)
		batch.Queue("DELETE FROM requests WHERE expires < $1", expiredBefore)
		queueSweep(batch, sweep)
		return deposed(s.logs.SendBatch(ctx, batch).Close())
	})
	if err != nil {
		return 0, false, fmt.Errorf("removing old jobs: %w", err)
	}
	return sweep.Removed, sweep.More, nil
}

func queueSweep(batch *pgx.Batch, sweep *storelog.Sweep) {
	queueRuns(batch, sweep.Jobs, "log_blocks", "job")
	queueRuns(batch, sweep.Jobs, "log_ends", "job")
	queueRuns(batch, sweep.Pages, "endings", "page")
	queueRuns(batch, sweep.Pages, "pages", "last")
	queueRest(batch, sweep.Rest)
	if len(sweep.Lists) == 0 {
		return
	}
	names, first, last := make([][]byte, len(sweep.Lists)), make([][16]byte, len(sweep.Lists)), make([][16]byte, len(sweep.Lists))
	for i, run := range sweep.Lists {
		names[i], first[i], last[i] = run.List.Append(nil), run.First, run.Last
	}
	batch.Queue(`DELETE FROM listings USING unnest($1::bytea[], $2::uuid[], $3::uuid[]) AS run (list, first, last)
		WHERE listings.list = run.list AND listings.page BETWEEN run.first AND run.last`, names, first, last)
}

// queueRuns queues the deletion of rows between two ids. table and column are ours.
func queueRuns(batch *pgx.Batch, runs []storelog.Run, table, column string) {
	if len(runs) == 0 {
		return
	}
	first, last := make([][16]byte, len(runs)), make([][16]byte, len(runs))
	for i, run := range runs {
		first[i], last[i] = run.First, run.Last
	}
	batch.Queue(fmt.Sprintf(`DELETE FROM %[1]s USING unnest($1::uuid[], $2::uuid[]) AS run (first, last)
		WHERE %[1]s.%[2]s BETWEEN run.first AND run.last`, table, column), first, last)
}
