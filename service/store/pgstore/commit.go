package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Lead implements store.Leader. The log of unfinished jobs is read here, because only from now on does nobody else write it.
func (s *Store) Lead(ctx context.Context) (uint64, error) {
	s.committing.Lock()
	defer s.committing.Unlock()
	var term int64
	err := s.retry(ctx, "taking the lead", func() error {
		return s.commits.QueryRow(ctx, "UPDATE leadership SET term = term + 1 RETURNING term").Scan(&term)
	})
	if err != nil {
		return 0, err
	}
	s.term = uint64(term)
	return s.term, s.loadHot(ctx)
}

func (s *Store) loadHot(ctx context.Context) error {
	type row struct {
		Number int64
		Block  []byte
	}
	var blocks []row
	err := s.retry(ctx, "reading the unfinished jobs", func() error {
		rows, err := s.reads.Query(ctx, "SELECT number, block FROM unfinished ORDER BY number")
		if err != nil {
			return err
		}
		blocks, err = pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the unfinished jobs: %w", err)
	}
	hot := storelog.NewHot()
	s.damagedBlocks = 0
	for _, b := range blocks {
		if err := hot.Load(uint64(b.Number), b.Block); err != nil {
			s.logger.Error("a record of unfinished jobs cannot be read and is set aside", "block", b.Number, "error", err)
			if err := s.setAside(ctx, "unfinished", "number", b.Number); err != nil {
				return err
			}
			s.damagedBlocks++
		}
	}
	s.hot.Become(hot)
	if s.damagedBlocks == 0 {
		return nil
	}
	return s.endEnded(ctx)
}

// Commit implements store.Committer. While the database is away it waits and tries again; a commit of jobs that was written
// before the connection broke is known by the number of its block.
func (s *Store) Commit(ctx context.Context, b *store.Batch) error {
	jobs := len(b.Accepted) + len(b.Changed)
	if jobs == 0 && b.Term == 0 {
		return s.retry(ctx, "a commit", func() error { return s.send(ctx, b, nil, 0, 0) })
	}
	s.committing.Lock()
	defer s.committing.Unlock()
	term := b.Term
	if term == 0 {
		term = s.term
	}
	block := storelog.NewBlock(jobs)
	var gone int
	var err error
	if jobs > 0 {
		addToBlock(block, b)
		if gone, err = s.hot.Shrink(block, func(number uint64) ([]byte, error) { return s.readBlock(ctx, number) }); err != nil {
			return fmt.Errorf("copying the log of unfinished jobs: %w", err)
		}
	}
	again := false
	err = s.retry(ctx, "a commit", func() error {
		if again && jobs > 0 {
			if written, err := s.written(ctx, block); written || err != nil {
				return err
			}
		}
		again = true
		return s.send(ctx, b, block, gone, term)
	})
	if err == nil && jobs > 0 {
		s.hot.Apply(block)
		s.hot.Drop(gone)
	}
	return err
}

func addToBlock(block *storelog.Block, b *store.Batch) {
	for _, j := range b.Accepted {
		if !j.State.Terminal() {
			block.Accept(j)
		}
	}
	for _, j := range b.Changed {
		if j.State.Terminal() {
			block.End(j.ID)
		} else {
			block.Change(j)
		}
	}
}

func (s *Store) readBlock(ctx context.Context, number uint64) (block []byte, err error) {
	err = s.retry(ctx, "reading the log of unfinished jobs", func() error {
		return s.reads.QueryRow(ctx, "SELECT block FROM unfinished WHERE number = $1", int64(number)).Scan(&block)
	})
	return block, err
}

// written reports whether a commit whose answer was lost is in the database.
func (s *Store) written(ctx context.Context, block *storelog.Block) (bool, error) {
	var same bool
	err := s.commits.QueryRow(ctx, "SELECT block = $2 FROM unfinished WHERE number = $1", int64(s.hot.Next()), block.Bytes()).Scan(&same)
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
func (s *Store) send(ctx context.Context, b *store.Batch, block *storelog.Block, gone int, term uint64) error {
	batch := new(pgx.Batch)
	if block != nil {
		queueLeadership(batch, term)
	}
	if len(b.Accepted)+len(b.Changed) > 0 {
		queueJobs(batch, b)
		batch.Queue("INSERT INTO unfinished (number, block) VALUES ($1, $2)", int64(s.hot.Next()), block.Bytes())
		if gone > 0 {
			batch.Queue("DELETE FROM unfinished WHERE number < $1", int64(s.hot.First())+int64(gone))
		}
	}
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

// rows are ids with one value each, as arrays for one statement. The values lie in one piece of memory.
type rows struct {
	ids    [][16]byte
	values [][]byte
	buffer []byte
}

func (r *rows) add(id job.ID, appendValue func([]byte) []byte) {
	start := len(r.buffer)
	r.buffer = appendValue(r.buffer)
	r.ids = append(r.ids, id)
	r.values = append(r.values, r.buffer[start:len(r.buffer):len(r.buffer)])
}

func (r *rows) queue(batch *pgx.Batch, statement string) {
	if len(r.ids) > 0 {
		batch.Queue(statement, r.ids, r.values)
	}
}

func queueJobs(batch *pgx.Batch, b *store.Batch) {
	var accepted, ended rows
	var lists storelog.Postings
	end := func(j *job.Job) {
		ended.add(j.ID, func(buffer []byte) []byte { return storelog.AppendEnded(buffer, j) })
		lists.End(j)
	}
	for _, j := range b.Accepted {
		accepted.add(j.ID, func(buffer []byte) []byte { return storelog.AppendAccepted(buffer, j) })
		lists.Accept(j)
		if j.State.Terminal() {
			end(j)
		}
	}
	for _, j := range b.Changed {
		if j.State.Terminal() {
			end(j)
		}
	}
	accepted.queue(batch, "INSERT INTO jobs (id, accepted) SELECT * FROM unnest($1::uuid[], $2::bytea[])")
	ended.queue(batch, "INSERT INTO endings (id, state) SELECT * FROM unnest($1::uuid[], $2::bytea[])")
	queueLists(batch, &lists)
}

func queueLists(batch *pgx.Batch, lists *storelog.Postings) {
	all := lists.All()
	if len(all) == 0 {
		return
	}
	names, ids, last := make([][]byte, len(all)), make([][]byte, len(all)), make([][16]byte, len(all))
	for i := range all {
		names[i], last[i], ids[i] = all[i].Key.Bytes(), all[i].Last(), all[i].AppendIDs(nil)
	}
	batch.Queue(`INSERT INTO postings (list, last, ids) SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::bytea[])
		ON CONFLICT (list, last) DO UPDATE SET ids = excluded.ids`, names, last, ids)
}

func queueEnds(batch *pgx.Batch, ends []store.LogEnd) {
	for i := range ends {
		e := &ends[i]
		batch.Queue("INSERT INTO log_ends (job, attempt, record) VALUES ($1, $2, $3) ON CONFLICT (job, attempt) DO UPDATE SET record = excluded.record",
			[16]byte(e.Ref.Job), e.Ref.Attempt, storerecord.AppendLogEnd(nil, e))
	}
}
