package pgstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// blockColumns are blocks of logs as columns.
type blockColumns struct {
	jobs                       [][16]byte
	attempts                   []int32
	starts, bytes, line, lines []int64
	times                      []*int64 // nil: not known
	data                       [][]byte
}

// blockRows are the rows of blockColumns.
const blockRows = `unnest($1::uuid[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[])
	AS block (job, attempt, start, bytes, line, lines, time, data)`

// queueBlocks queues a statement over blockRows.
func queueBlocks(batch *pgx.Batch, statement string, blocks []store.LogBlock) {
	var c blockColumns
	for i := range blocks {
		b := &blocks[i]
		c.jobs, c.attempts = append(c.jobs, b.Ref.Job), append(c.attempts, b.Ref.Attempt)
		c.starts, c.bytes = append(c.starts, int64(b.Offset)), append(c.bytes, int64(b.Bytes))
		c.line, c.lines = append(c.line, int64(b.Line)), append(c.lines, int64(b.Lines))
		var nanos *int64
		if !b.Time.IsZero() {
			n := b.Time.UnixNano()
			nanos = &n
		}
		c.times, c.data = append(c.times, nanos), append(c.data, b.Data)
	}
	batch.Queue(statement, c.jobs, c.attempts, c.starts, c.bytes, c.line, c.lines, c.times, c.data)
}

func queueEnds(batch *pgx.Batch, ends []store.LogEnd) {
	for i := range ends {
		e := &ends[i]
		batch.Queue("INSERT INTO log_ends (job, attempt, record) VALUES ($1, $2, $3) ON CONFLICT (job, attempt) DO UPDATE SET record = excluded.record",
			[16]byte(e.Ref.Job), e.Ref.Attempt, storerecord.AppendLogEnd(nil, e))
	}
}

// AppendLogs implements store.Logs. Appending the same again changes nothing, so it may be tried again.
func (s *Store) AppendLogs(ctx context.Context, blocks []store.LogBlock, ends []store.LogEnd) error {
	batch := new(pgx.Batch)
	if len(blocks) > 0 {
		queueBlocks(batch, "INSERT INTO log_blocks (job, attempt, start, bytes, line, lines, time, data) SELECT * FROM "+blockRows+
			" ON CONFLICT DO NOTHING", blocks)
	}
	queueEnds(batch, ends)
	if batch.Len() == 0 {
		return nil
	}
	return s.retry(ctx, "writing output", func() error { return sendFresh(ctx, s.logs, batch) })
}

// readRows is how many blocks one statement looks at.
const readRows = 64

// readBlocks reads in one statement, and so as of one moment: the block that contains an offset is the last one that begins at
// or before it. The lengths of data are known without reading it.
const readBlocks = `SELECT start, bytes, line, lines, time, data FROM (
		SELECT *, sum(octet_length(data)) OVER (ORDER BY start) - octet_length(data) AS before FROM (
			SELECT * FROM log_blocks WHERE job = $1 AND attempt = $2 AND start + bytes > $3 AND start >= coalesce(
				(SELECT max(start) FROM log_blocks WHERE job = $1 AND attempt = $2 AND start <= $3), 0)
			ORDER BY start LIMIT $5) AS next) AS sized
	WHERE before < $4 ORDER BY start`

// blockRow is a row of log_blocks without the log's name.
type blockRow struct {
	Start, Bytes, Line, Lines int64
	Time                      *int64
	Data                      []byte
}

// ReadLogs implements store.Logs.
func (s *Store) ReadLogs(ctx context.Context, ref store.LogRef, offset uint64, maxBytes int) ([]store.LogBlock, error) {
	if offset > math.MaxInt64 {
		return nil, nil
	}
	var found []blockRow
	err := s.retry(ctx, "reading output", func() error {
		rows, err := s.reads.Query(ctx, readBlocks, [16]byte(ref.Job), ref.Attempt, int64(offset), max(maxBytes, 1), readRows)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[blockRow])
		return err
	})
	if err != nil {
		return nil, err
	}
	blocks := make([]store.LogBlock, len(found))
	for i := range found {
		if blocks[i], err = found[i].block(ref); err != nil {
			return nil, err
		}
	}
	return blocks, nil
}

func (r *blockRow) block(ref store.LogRef) (store.LogBlock, error) {
	b := store.LogBlock{
		Ref: ref, Offset: uint64(r.Start), Bytes: uint32(r.Bytes), Line: uint64(r.Line), Lines: uint32(r.Lines), Data: r.Data,
	}
	if min(r.Start, r.Bytes, r.Line, r.Lines) < 0 || max(r.Bytes, r.Lines) > math.MaxUint32 {
		return b, fmt.Errorf("the log of job %s at byte %d: the row is damaged", ref.Job, r.Start)
	}
	if r.Time != nil {
		b.Time = time.Unix(0, *r.Time).UTC()
	}
	return b, nil
}

// mergeLock keeps servers from merging blocks at the same time, when one has taken the lead from the other.
const mergeLock = 0x6c6f6773 // "logs"

// mergeBlocks makes the first block that is replaced the one that replaces it, and then deletes the others. A log that is
// removed at the same time loses its first block before or after that, and with it all or nothing happens.
const mergeBlocks = `WITH merged AS (
		UPDATE log_blocks AS first SET bytes = block.bytes, line = block.line, lines = block.lines, time = block.time, data = block.data
		FROM ` + blockRows + ` WHERE first.job = block.job AND first.attempt = block.attempt AND first.start = block.start
			AND block.bytes = (SELECT sum(old.bytes) FROM log_blocks AS old
				WHERE old.job = block.job AND old.attempt = block.attempt AND old.start >= block.start AND old.start < block.start + block.bytes)
		RETURNING first.job, first.attempt, first.start, first.bytes)
	DELETE FROM log_blocks AS old USING merged
	WHERE old.job = merged.job AND old.attempt = merged.attempt AND old.start > merged.start AND old.start < merged.start + merged.bytes`

// MergeLogs implements store.Logs. Merging again changes nothing, so it may be tried again.
func (s *Store) MergeLogs(ctx context.Context, blocks []store.LogBlock) error {
	if len(blocks) == 0 {
		return nil
	}
	batch := new(pgx.Batch)
	batch.Queue("SELECT pg_advisory_xact_lock($1)", mergeLock)
	queueBlocks(batch, mergeBlocks, blocks)
	return s.retry(ctx, "merging output", func() error { return sendFresh(ctx, s.logs, batch) })
}

// RemoveLogs implements store.Logs. Removing again changes nothing, so it may be tried again.
func (s *Store) RemoveLogs(ctx context.Context, ends []store.LogEnd) error {
	if len(ends) == 0 {
		return nil
	}
	jobs, attempts, records := make([][16]byte, len(ends)), make([]int32, len(ends)), make([][]byte, len(ends))
	for i := range ends {
		jobs[i], attempts[i], records[i] = ends[i].Ref.Job, ends[i].Ref.Attempt, storerecord.AppendLogEnd(nil, &ends[i])
	}
	batch := new(pgx.Batch)
	batch.Queue(`WITH removed AS (
			UPDATE log_ends SET record = gone.record FROM unnest($1::uuid[], $2::int[], $3::bytea[]) AS gone (job, attempt, record)
			WHERE log_ends.job = gone.job AND log_ends.attempt = gone.attempt RETURNING log_ends.job, log_ends.attempt)
		DELETE FROM log_blocks USING removed WHERE log_blocks.job = removed.job AND log_blocks.attempt = removed.attempt`,
		jobs, attempts, records)
	return s.retry(ctx, "removing output", func() error { return sendFresh(ctx, s.logs, batch) })
}

// LogState implements store.Logs.
func (s *Store) LogState(ctx context.Context, ref store.LogRef) (store.LogState, error) {
	var state store.LogState
	var bytes, lines *int64
	var end []byte
	err := s.retry(ctx, "reading the state of a log", func() error {
		err := s.reads.QueryRow(ctx, `SELECT last.start + last.bytes, last.line + last.lines, ended.record
			FROM (SELECT * FROM log_blocks WHERE job = $1 AND attempt = $2 ORDER BY start DESC LIMIT 1) AS last
			FULL JOIN (SELECT * FROM log_ends WHERE job = $1 AND attempt = $2) AS ended USING (job, attempt)`,
			[16]byte(ref.Job), ref.Attempt).Scan(&bytes, &lines, &end)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return state, err
	}
	if bytes != nil {
		state.Bytes, state.Lines = uint64(*bytes), uint64(*lines)
	}
	if end != nil {
		state.End, err = storerecord.DecodeLogEnd(end, ref)
	}
	return state, err
}
