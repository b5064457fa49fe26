package pgstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Lead implements store.Leader. The log of unfinished jobs is read here, because only from now on does nobody else write it.
func (s *Store) Lead(ctx context.Context) (uint64, error) {
	s.log.Lock()
	defer s.log.Unlock()
	var term int64
	err := s.retry(ctx, "taking the lead", func() error {
		return s.commits.QueryRow(ctx, "UPDATE leadership SET term = term + 1 RETURNING term").Scan(&term)
	})
	if err != nil {
		return 0, err
	}
	s.term = uint64(term)
	return s.term, s.loadJobs(ctx)
}

func (s *Store) loadJobs(ctx context.Context) error {
	type row struct {
		Number int64
		Block  []byte
	}
	var blocks []row
	var newest [16]byte
	err := s.retry(ctx, "reading the unfinished jobs", func() error {
		rows, err := s.reads.Query(ctx, "SELECT number, block FROM blocks ORDER BY number")
		if err != nil {
			return err
		}
		if blocks, err = pgx.CollectRows(rows, pgx.RowToStructByPos[row]); err != nil {
			return err
		}
		err = s.reads.QueryRow(ctx, "SELECT last FROM pages ORDER BY last DESC LIMIT 1").Scan(&newest)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the unfinished jobs: %w", err)
	}
	fresh := storelog.New(engine{s}, s.logger)
	for _, b := range blocks {
		if err := fresh.Load(uint64(b.Number), b.Block); err != nil {
			s.logger.Error("a record of unfinished jobs cannot be read and is set aside", "error", err)
			if err := s.setBlockAside(ctx, b.Number); err != nil {
				return fmt.Errorf("setting a damaged record of unfinished jobs aside: %w", err)
			}
		}
	}
	fresh.Loaded(newest)
	s.log.Become(fresh)
	return nil
}

func (s *Store) setBlockAside(ctx context.Context, number int64) error {
	return s.retry(ctx, "setting a damaged row aside", func() error {
		batch := new(pgx.Batch)
		queueLeadership(batch, s.term)
		batch.Queue(`WITH gone AS (DELETE FROM blocks WHERE number = $1 RETURNING number, block)
			INSERT INTO quarantine (origin, key, value) SELECT 'blocks', int8send(number), block FROM gone`, number)
		return deposed(s.commits.SendBatch(ctx, batch).Close())
	})
}

// Commit implements store.Committer. While the database is away it waits and tries again; a commit of jobs that was written
// before the connection broke is known by the number of its block.
func (s *Store) Commit(ctx context.Context, b *store.Batch) error {
	if len(b.Accepted)+len(b.Changed) == 0 && b.Term == 0 {
		return s.retry(ctx, "a commit", func() error { return s.send(ctx, b, new(storelog.Write), 0) })
	}
	s.log.Lock()
	defer s.log.Unlock()
	if b.Term != 0 && b.Term != s.term {
		return store.ErrDeposed // by this server itself, in a later term
	}
	w, err := s.log.Prepare(b, func(number uint64) ([]byte, error) { return s.readBlock(ctx, number) })
	if err != nil {
		return err
	}
	term := b.Term
	if term == 0 {
		term = s.term
	}
	if err = s.commit(ctx, b, w, term); err == nil {
		s.log.Apply(w)
	}
	return err
}

// commit writes until it is certain that it is written.
func (s *Store) commit(ctx context.Context, b *store.Batch, w *storelog.Write, term uint64) error {
	again := false
	return s.retry(ctx, "a commit", func() error {
		if again && w.Block != nil {
			if written, err := s.written(ctx, w); written || err != nil {
				return err
			}
		}
		again = true
		return s.send(ctx, b, w, term)
	})
}

// SetAside implements storelog.Engine.
func (s engine) SetAside(ctx context.Context, w *storelog.Write) error {
	return s.commit(ctx, new(store.Batch), w, s.term)
}

func (s *Store) readBlock(ctx context.Context, number uint64) (block []byte, err error) {
	err = s.retry(ctx, "reading the log of unfinished jobs", func() error {
		return s.reads.QueryRow(ctx, "SELECT block FROM blocks WHERE number = $1", int64(number)).Scan(&block)
	})
	return block, err
}

// written reports whether a commit whose answer was lost is in the database.
func (s *Store) written(ctx context.Context, w *storelog.Write) (bool, error) {
	var same bool
	err := s.commits.QueryRow(ctx, "SELECT block = $2 FROM blocks WHERE number = $1", int64(w.Number), w.Block).Scan(&same)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil && !same {
		err = store.ErrDeposed // somebody else has gone on from here
	}
	return err == nil, err
}

// notLeader is the error of the division by zero that ends the transaction of a server that does not lead.
const notLeader = "22012"

// send writes a batch in one transaction, with one trip to the database.
// Term 0 asks nobody who leads.
func (s *Store) send(ctx context.Context, b *store.Batch, w *storelog.Write, term uint64) error {
	batch := new(pgx.Batch)
	if term != 0 {
		queueLeadership(batch, term)
	}
	queueJobs(batch, w)
	queueEnds(batch, b.Ends)
	for i := range b.Requests {
		r := &b.Requests[i]
		batch.Queue(`INSERT INTO requests (id, record, expires) VALUES ($1, $2, $3)
			ON CONFLICT (id) DO UPDATE SET record = excluded.record, expires = excluded.expires`,
			[]byte(r.ID), storerecord.AppendRequest(nil, r), r.Expires)
	}
	for i := range b.Records {
		r := &b.Records[i]
		if len(r.Value) == 0 {
			batch.Queue("DELETE FROM records WHERE kind = $1 AND key = $2", []byte(r.Kind), []byte(r.Key))
			continue
		}
		batch.Queue("INSERT INTO records (kind, key, value) VALUES ($1, $2, $3) ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value",
			[]byte(r.Kind), []byte(r.Key), r.Value)
	}
	if batch.Len() == 0 {
		return nil
	}
	return deposed(s.commits.SendBatch(ctx, batch).Close())
}

// queueLeadership makes a transaction fail unless the term is the last one. The lock on the row keeps another server from
// taking the lead in the middle.
func queueLeadership(batch *pgx.Batch, term uint64) {
	batch.Queue("SELECT 1 / count(*) FROM (SELECT 1 FROM leadership WHERE term = $1 FOR SHARE) AS mine", int64(term))
}

// deposed translates the error of a transaction that began with queueLeadership.
func deposed(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == notLeader {
		return store.ErrDeposed
	}
	return err
}

func queueJobs(batch *pgx.Batch, w *storelog.Write) {
	if w.Block == nil {
		return
	}
	number := int64(w.Number)
	queueValues(batch, w.Pages, "INSERT INTO pages (last, accepted) SELECT * FROM unnest($1::uuid[], $2::bytea[])")
	queueRest(batch, w.Rest)
	queueValues(batch, w.Endings, "INSERT INTO endings (page, number, ended) SELECT page, $3, ended"+
		" FROM unnest($1::uuid[], $2::bytea[]) AS e (page, ended)", number)
	queueValues(batch, w.SetAside, "INSERT INTO quarantine (origin, key, value) SELECT 'pages', uuid_send(page), value"+
		" FROM unnest($1::uuid[], $2::bytea[]) AS q (page, value)")
	queueLists(batch, w.Lists, number)
	batch.Queue("INSERT INTO blocks (number, block) VALUES ($1, $2)", number, w.Block)
	if w.Gone > 0 {
		batch.Queue("DELETE FROM blocks WHERE number < $1", int64(w.First)+int64(w.Gone))
	}
}

// queueRest queues what stays of pages.
func queueRest(batch *pgx.Batch, rest []storelog.Value) {
	queueValues(batch, rest, `UPDATE pages SET accepted = rest.accepted
		FROM unnest($1::uuid[], $2::bytea[]) AS rest (last, accepted) WHERE pages.last = rest.last`)
	if slices.ContainsFunc(rest, func(v storelog.Value) bool { return v.Bytes == nil }) {
		batch.Queue("DELETE FROM pages WHERE accepted IS NULL")
	}
}

// queueValues queues a statement over pages and their values.
func queueValues(batch *pgx.Batch, values []storelog.Value, statement string, more ...any) {
	if len(values) == 0 {
		return
	}
	pages, bytes := make([][16]byte, len(values)), make([][]byte, len(values))
	for i, v := range values {
		pages[i], bytes[i] = v.Page, v.Bytes
	}
	batch.Queue(statement, append([]any{pages, bytes}, more...)...)
}

// queueLists queues what a commit adds to lists. Listings of ended jobs are told apart by the number of the commit.
func queueLists(batch *pgx.Batch, lists []storelog.Listing, number int64) {
	if len(lists) == 0 {
		return
	}
	names, pages := make([][]byte, len(lists)), make([][16]byte, len(lists))
	numbers, values := make([]int64, len(lists)), make([][]byte, len(lists))
	for i := range lists {
		l := &lists[i]
		names[i], pages[i], values[i] = l.List.Append(nil), l.Page, l.AppendValue(nil)
		if l.Ended() {
			numbers[i] = number
		}
	}
	batch.Queue("INSERT INTO listings (list, page, number, jobs) SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::bigint[], $4::bytea[])",
		names, pages, numbers, values)
}
