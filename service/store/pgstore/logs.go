package pgstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// AppendLogs implements store.Logs. Appending the same again changes nothing, so it may be tried again.
func (s *Store) AppendLogs(ctx context.Context, chunks []store.Chunk, ends []store.LogEnd) error {
	jobs, attempts := make([][16]byte, len(chunks)), make([]int32, len(chunks))
	starts, records := make([]int64, len(chunks)), make([][]byte, len(chunks))
	for i := range chunks {
		c := &chunks[i]
		jobs[i], attempts[i], starts[i] = c.Ref.Job, c.Ref.Attempt, int64(c.Offset)
		records[i] = storerecord.AppendChunk(nil, c)
	}
	batch := new(pgx.Batch)
	if len(chunks) > 0 {
		batch.Queue(`INSERT INTO log_chunks (job, attempt, start, record) SELECT * FROM unnest($1::uuid[], $2::int[], $3::bigint[], $4::bytea[])
			ON CONFLICT DO NOTHING`, jobs, attempts, starts, records)
	}
	queueEnds(batch, ends)
	if batch.Len() == 0 {
		return nil
	}
	return s.retry(ctx, "writing output", func() error { return sendFresh(ctx, s.logs, batch) })
}

// readRows is how many chunks one statement reads at most.
const readRows = 64

// ReadLogs implements store.Logs.
func (s *Store) ReadLogs(ctx context.Context, ref store.LogRef, offset uint64, maxBytes int) ([]store.Chunk, error) {
	var chunks []store.Chunk
	// The chunk that contains offset is the last one that begins at or before it.
	from := int64(-1)
	err := s.retry(ctx, "reading output", func() error {
		return s.reads.QueryRow(ctx, "SELECT coalesce(max(start), -1) FROM log_chunks WHERE job = $1 AND attempt = $2 AND start <= $3",
			[16]byte(ref.Job), ref.Attempt, int64(offset)).Scan(&from)
	})
	if err != nil {
		return nil, err
	}
	maxBytes = max(maxBytes, 1)
	for bytes := 0; bytes < maxBytes; {
		page, err := s.chunks(ctx, ref, from)
		if err != nil || len(page) == 0 {
			return chunks, err
		}
		for _, c := range page {
			from = int64(c.Offset) + 1
			if c.Offset+uint64(len(c.Data)) <= offset || bytes >= maxBytes {
				continue
			}
			if c.Offset < offset {
				c.Data, c.Offset = c.Data[offset-c.Offset:], offset
			}
			chunks = append(chunks, c)
			bytes += len(c.Data)
		}
	}
	return chunks, nil
}

// chunks returns the next chunks of a log that begin at or after a position.
func (s *Store) chunks(ctx context.Context, ref store.LogRef, from int64) ([]store.Chunk, error) {
	type row struct {
		Start  int64
		Record []byte
	}
	var found []row
	err := s.retry(ctx, "reading output", func() error {
		rows, err := s.reads.Query(ctx, "SELECT start, record FROM log_chunks WHERE job = $1 AND attempt = $2 AND start >= $3 ORDER BY start LIMIT $4",
			[16]byte(ref.Job), ref.Attempt, from, readRows)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		return err
	})
	if err != nil {
		return nil, err
	}
	chunks := make([]store.Chunk, len(found))
	for i, r := range found {
		chunks[i] = store.Chunk{Ref: ref, Offset: uint64(r.Start)}
		if err := storerecord.DecodeChunk(r.Record, &chunks[i]); err != nil {
			return nil, fmt.Errorf("the log of job %s at byte %d: %w", ref.Job, r.Start, err)
		}
	}
	return chunks, nil
}

// LogState implements store.Logs.
func (s *Store) LogState(ctx context.Context, ref store.LogRef) (store.LogState, error) {
	var state store.LogState
	var start int64
	var last, end []byte
	err := s.retry(ctx, "reading the state of a log", func() error {
		err := s.reads.QueryRow(ctx, "SELECT start, record FROM log_chunks WHERE job = $1 AND attempt = $2 ORDER BY start DESC LIMIT 1",
			[16]byte(ref.Job), ref.Attempt).Scan(&start, &last)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		err = s.reads.QueryRow(ctx, "SELECT record FROM log_ends WHERE job = $1 AND attempt = $2", [16]byte(ref.Job), ref.Attempt).Scan(&end)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return state, err
	}
	if last != nil {
		var c store.Chunk
		if err := storerecord.DecodeChunk(last, &c); err != nil {
			return state, fmt.Errorf("the log of job %s at byte %d: %w", ref.Job, start, err)
		}
		state.Bytes = uint64(start) + uint64(len(c.Data))
	}
	if end != nil {
		state.End, err = storerecord.DecodeLogEnd(end, ref)
	}
	return state, err
}
