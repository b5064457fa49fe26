package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// stored is a job as the tables have it.
type stored struct {
	ID       [16]byte
	Accepted []byte
	Ended    []byte // nil while it is unfinished
}

// pieceSize is how many jobs one statement reads.
const pieceSize = 10_000

var errNoState = errors.New("the job has a spec and no state: the tables are damaged; restore a backup")

// decode puts a job together. state is how the log of unfinished jobs had it before the row was read.
func decode(row *stored, state []byte, unfinished bool) (job.Job, error) {
	switch {
	case row.Ended != nil:
		return storelog.Decode(row.ID, row.Accepted, row.Ended)
	case unfinished:
		return storelog.Decode(row.ID, row.Accepted, state)
	}
	return job.Job{}, errNoState
}

// decode is as the function decode, but a job of which nothing says how it stands is looked for again: its commit may be under
// way, because what it wrote is seen before it is over here.
func (s *Store) decode(ctx context.Context, row *stored, state []byte, unfinished bool) (job.Job, error) {
	j, err := decode(row, state, unfinished)
	if !errors.Is(err, errNoState) {
		return j, err
	}
	s.committing.Lock()
	leads := s.term != 0
	state, unfinished = s.hot.Find(row.ID)
	s.committing.Unlock()
	if !leads {
		return j, err // only the one who leads knows the unfinished jobs
	}
	readErr := s.rows(ctx, []job.ID{row.ID}, func(row *stored) { j, err = decode(row, state, unfinished) })
	if readErr != nil {
		return job.Job{}, readErr
	}
	return j, err
}

// rows reads jobs by their ids, which must grow, and calls visit for those that are there.
func (s *Store) rows(ctx context.Context, ids []job.ID, visit func(*stored)) error {
	for piece := range slices.Chunk(ids, pieceSize) {
		keys := make([][16]byte, len(piece))
		for i, id := range piece {
			keys[i] = id
		}
		var found []stored
		err := s.retry(ctx, "reading jobs", func() error {
			rows, err := s.reads.Query(ctx, `SELECT id, accepted, state FROM jobs LEFT JOIN endings USING (id) WHERE id = ANY($1) ORDER BY id`, keys)
			if err != nil {
				return err
			}
			found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
			return err
		})
		if err != nil {
			return err
		}
		for i := range found {
			visit(&found[i])
		}
	}
	return nil
}

// Job implements store.Jobs.
func (s *Store) Job(ctx context.Context, id job.ID) (job.Job, error) {
	// First whether it is unfinished: a job that ends meanwhile is then found as ended.
	state, unfinished := s.hot.Find(id)
	j, err := job.Job{}, job.NotFound(id.String())
	readErr := s.rows(ctx, []job.ID{id}, func(row *stored) { j, err = s.decode(ctx, row, state, unfinished) })
	switch {
	case readErr != nil:
		return job.Job{}, fmt.Errorf("reading job %s: %w", id, readErr)
	case err != nil && job.CodeOf(err) != job.CodeNotFound:
		return job.Job{}, fmt.Errorf("job %s: %w", id, err)
	}
	return j, err
}

// JobsByID implements store.Jobs.
func (s *Store) JobsByID(ctx context.Context, ids []job.ID, visit func(job.Job)) error {
	states := make(map[job.ID][]byte, len(ids))
	for _, id := range ids {
		if state, unfinished := s.hot.Find(id); unfinished {
			states[id] = state
		}
	}
	return s.rows(ctx, ids, func(row *stored) {
		state, unfinished := states[row.ID]
		j, err := s.decode(ctx, row, state, unfinished)
		if err != nil {
			s.logger.Error("a job cannot be read", "job", job.ID(row.ID), "error", err)
			return
		}
		visit(j)
	})
}

// Unfinished implements store.Jobs.
func (s *Store) Unfinished(ctx context.Context, visit func(job.Job) error) (int, error) {
	ids := s.hot.IDs()
	var damaged []job.ID
	var visitErr error
	next := 0
	skipTo := func(id job.ID) { // ids that have no row
		for ; next < len(ids) && ids[next] != id; next++ {
			if _, unfinished := s.hot.Find(ids[next]); unfinished {
				damaged = append(damaged, ids[next])
			}
		}
	}
	err := s.rows(ctx, ids, func(row *stored) {
		skipTo(row.ID)
		next++
		state, unfinished := s.hot.Find(row.ID)
		if !unfinished || row.Ended != nil {
			return // it has ended meanwhile
		}
		j, err := decode(row, state, unfinished)
		if err != nil {
			s.logger.Error("an unfinished job cannot be read and is set aside", "job", job.ID(row.ID), "error", err)
			damaged = append(damaged, row.ID)
		} else if visitErr == nil {
			visitErr = visit(j)
		}
	})
	if err := errors.Join(err, visitErr); err != nil {
		return 0, err
	}
	skipTo(job.ID{})
	blocks, err := s.quarantineJobs(ctx, damaged)
	return len(damaged) + blocks, err
}

// quarantineJobs moves the records of unfinished jobs that cannot be read to where nothing looks, but a person can. It returns
// how many blocks of the log of unfinished jobs were set aside before.
func (s *Store) quarantineJobs(ctx context.Context, ids []job.ID) (blocks int, err error) {
	s.committing.Lock()
	defer s.committing.Unlock()
	blocks, s.damagedBlocks = s.damagedBlocks, 0
	if len(ids) == 0 {
		return blocks, nil
	}
	for _, id := range ids {
		if err := s.setAside(ctx, "jobs", "id", [16]byte(id)); err != nil {
			return 0, err
		}
	}
	return blocks, s.end(ctx, ids)
}

// end notes in the log of unfinished jobs that jobs are none.
func (s *Store) end(ctx context.Context, ids []job.ID) error {
	block := storelog.NewBlock(len(ids))
	for _, id := range ids {
		block.End(id)
	}
	err := s.retry(ctx, "writing which jobs are unfinished", func() error {
		batch := new(pgx.Batch)
		queueLeadership(batch, s.term)
		batch.Queue("INSERT INTO unfinished (number, block) VALUES ($1, $2) ON CONFLICT DO NOTHING", int64(s.hot.Next()), block.Bytes())
		return deposed(s.commits.SendBatch(ctx, batch).Close())
	})
	if err == nil {
		s.hot.Apply(block)
	}
	return err
}

// endEnded ends those jobs whose end is recorded and which the log has as unfinished, because the block that said so cannot be
// read.
func (s *Store) endEnded(ctx context.Context) error {
	var ended []job.ID
	err := s.rows(ctx, s.hot.IDs(), func(row *stored) {
		if row.Ended != nil {
			ended = append(ended, row.ID)
		}
	})
	if err != nil || len(ended) == 0 {
		return err
	}
	return s.end(ctx, ended)
}

// setAside moves a row away. table and column are ours.
func (s *Store) setAside(ctx context.Context, table, column string, key any) error {
	value := map[string]string{"jobs": "accepted", "unfinished": "block"}[table]
	statement := fmt.Sprintf(`WITH gone AS (DELETE FROM %[1]s WHERE %[2]s = $1 RETURNING %[2]s, %[3]s)
		INSERT INTO quarantine (origin, key, value) SELECT '%[1]s', %[2]s::text::bytea, %[3]s FROM gone`, table, column, value)
	err := s.retry(ctx, "setting a damaged row aside", func() error {
		batch := new(pgx.Batch)
		queueLeadership(batch, s.term)
		batch.Queue(statement, key)
		return deposed(s.commits.SendBatch(ctx, batch).Close())
	})
	if err != nil {
		return fmt.Errorf("setting a damaged row of %s aside: %w", table, err)
	}
	return nil
}

// ListJobs implements store.Jobs.
func (s *Store) ListJobs(ctx context.Context, filter store.Filter, before job.ID, limit int) ([]job.Job, error) {
	l := &listing{store: s, filter: filter, limit: limit}
	if ids, few := s.hot.Few(&filter); few {
		slices.SortFunc(ids, func(a, b job.ID) int { return b.Compare(a) })
		for _, id := range slices.Compact(ids) {
			if before.IsZero() || id.Compare(before) < 0 {
				l.waiting = append(l.waiting, id)
			}
		}
		for len(l.waiting) > 0 && len(l.jobs) < limit {
			if err := l.fetch(ctx); err != nil {
				return nil, err
			}
		}
		return l.jobs, nil
	}
	var err error
	if keys := storelog.ListsFor(&filter); keys != nil {
		err = l.listed(ctx, keys, before)
	} else {
		err = l.scan(ctx, before)
	}
	return l.jobs, err
}

// listing gathers one page. Ids are gathered until there are some to fetch with one statement.
type listing struct {
	store   *Store
	filter  store.Filter
	limit   int
	jobs    []job.Job
	waiting []job.ID // the newest first
}

// fetchSize is how many candidates are fetched at once.
const fetchSize = 200

// fetch reads the next candidates and takes in those that match.
func (l *listing) fetch(ctx context.Context) error {
	n := min(fetchSize, len(l.waiting))
	ids := slices.Clone(l.waiting[:n])
	l.waiting = l.waiting[n:]
	slices.Reverse(ids)
	var found []job.Job
	if err := l.store.JobsByID(ctx, ids, func(j job.Job) { found = append(found, j) }); err != nil {
		return err
	}
	for i := len(found) - 1; i >= 0 && len(l.jobs) < l.limit; i-- {
		if l.filter.Matches(&found[i]) {
			l.jobs = append(l.jobs, found[i])
		}
	}
	return nil
}

// candidate takes in an id and reports whether more are wanted.
func (l *listing) candidate(ctx context.Context, id job.ID) (more bool, err error) {
	l.waiting = append(l.waiting, id)
	if len(l.waiting) >= min(fetchSize, l.limit) {
		err = l.fetch(ctx)
	}
	return err == nil && len(l.jobs) < l.limit, err
}

func (l *listing) listed(ctx context.Context, keys []storelog.ListKey, before job.ID) error {
	readers := make([]*storelog.ListReader, len(keys))
	for i, key := range keys {
		var err error
		if readers[i], err = storelog.NewListReader(l.store.postings(ctx, key), before); err != nil {
			return err
		}
	}
	var problem error
	err := storelog.Merge(readers, func(id job.ID) bool {
		more, err := l.candidate(ctx, id)
		problem = err
		return more
	})
	if err := errors.Join(err, problem); err != nil || len(l.jobs) >= l.limit {
		return err
	}
	return l.fetch(ctx)
}

// postings goes through a list from its end, some rows at a time.
func (s *Store) postings(ctx context.Context, key storelog.ListKey) storelog.PostingSource {
	type posting struct {
		Last [16]byte
		IDs  []byte
	}
	var page []posting
	var below *[16]byte
	const size = 100
	full := true
	return func() (job.ID, []byte, bool, error) {
		if len(page) == 0 && full {
			err := s.retry(ctx, "reading a list of jobs", func() error {
				rows, err := s.reads.Query(ctx, `SELECT last, ids FROM postings WHERE list = $1 AND ($2::uuid IS NULL OR last < $2)
					ORDER BY last DESC LIMIT $3`, key.Bytes(), below, size)
				if err != nil {
					return err
				}
				page, err = pgx.CollectRows(rows, pgx.RowToStructByPos[posting])
				return err
			})
			if err != nil {
				return job.ID{}, nil, false, err
			}
			full = len(page) == size
		}
		if len(page) == 0 {
			return job.ID{}, nil, false, nil
		}
		p := page[0]
		page, below = page[1:], &p.Last
		return p.Last, p.IDs, true, nil
	}
}

// scan goes through all jobs, from the newest on.
func (l *listing) scan(ctx context.Context, before job.ID) error {
	for len(l.jobs) < l.limit {
		var below *[16]byte
		if !before.IsZero() {
			below = (*[16]byte)(&before)
		}
		var ids [][16]byte
		err := l.store.retry(ctx, "reading the list of jobs", func() error {
			rows, err := l.store.reads.Query(ctx, `SELECT id FROM jobs WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2`, below, fetchSize)
			if err != nil {
				return err
			}
			ids, err = pgx.CollectRows(rows, pgx.RowTo[[16]byte])
			return err
		})
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			l.waiting = append(l.waiting, id)
		}
		before = ids[len(ids)-1]
		if err := l.fetch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Request implements store.Jobs.
func (s *Store) Request(ctx context.Context, id string) (store.Request, error) {
	var record []byte
	err := s.retry(ctx, "reading a request", func() error {
		return s.reads.QueryRow(ctx, "SELECT record FROM requests WHERE id = $1", []byte(id)).Scan(&record)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Request{}, job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument, "request_id %q was not used", id)
	}
	if err != nil {
		return store.Request{}, err
	}
	return storerecord.DecodeRequest(record, id)
}

// Record implements store.Records.
func (s *Store) Record(ctx context.Context, kind, key string) ([]byte, error) {
	var value []byte
	err := s.retry(ctx, "reading a record", func() error {
		return s.reads.QueryRow(ctx, "SELECT value FROM records WHERE kind = $1 AND key = $2", []byte(kind), []byte(key)).Scan(&value)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, job.Errorf(job.CodeNotFound, job.ReasonInvalidArgument, "there is no %s %q", kind, key)
	}
	return value, err
}

// ListRecords implements store.Records.
func (s *Store) ListRecords(ctx context.Context, kind string) ([]store.Record, error) {
	type record struct{ Key, Value []byte }
	var found []record
	err := s.retry(ctx, "reading records", func() error {
		rows, err := s.reads.Query(ctx, "SELECT key, value FROM records WHERE kind = $1 ORDER BY key", []byte(kind))
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[record])
		return err
	})
	out := make([]store.Record, len(found))
	for i, r := range found {
		out[i] = store.Record{Kind: kind, Key: string(r.Key), Value: r.Value}
	}
	return out, err
}
