package pgstore

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// engine implements storelog.Engine.
type engine struct{ *Store }

// withEndings reads pages, which the text before it selects as "chosen", with how their jobs ended.
const withEndings = ` SELECT last, accepted, array_remove(array_agg(ended ORDER BY number), NULL)
	FROM chosen JOIN pages USING (last) LEFT JOIN endings ON page = last GROUP BY last, accepted ORDER BY last`

// PagesFrom implements storelog.Engine.
func (s engine) PagesFrom(ctx context.Context, from job.ID, n int) ([]storelog.Page, error) {
	return s.pages(ctx, "WITH chosen AS (SELECT last FROM pages WHERE last >= $1 ORDER BY last LIMIT $2)"+withEndings, [16]byte(from), n)
}

// PagesOf implements storelog.Engine.
func (s engine) PagesOf(ctx context.Context, ids []job.ID) ([]storelog.Page, error) {
	keys := make([][16]byte, len(ids))
	for i, id := range ids {
		keys[i] = id
	}
	return s.pages(ctx, `WITH chosen AS (SELECT DISTINCT (SELECT last FROM pages WHERE last >= id ORDER BY last LIMIT 1) AS last
		FROM unnest($1::uuid[]) AS id)`+withEndings, keys)
}

func (s engine) pages(ctx context.Context, query string, args ...any) ([]storelog.Page, error) {
	type row struct {
		Last     [16]byte
		Accepted []byte
		Endings  [][]byte
	}
	var found []row
	err := s.retry(ctx, "reading jobs", func() error {
		rows, err := s.reads.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		return err
	})
	pages := make([]storelog.Page, len(found))
	for i, r := range found {
		pages[i] = storelog.Page{Last: r.Last, Value: r.Accepted, Endings: r.Endings}
	}
	return pages, err
}

// Listed implements storelog.Engine.
func (s engine) Listed(ctx context.Context, list storelog.List, below job.ID, n int) ([]storelog.Listed, error) {
	query := `SELECT page, array_agg(jobs) FROM listings WHERE list = $3 AND ($1::uuid IS NULL OR page < $1)
		GROUP BY page ORDER BY page DESC LIMIT $2`
	args := []any{nil, n}
	if !below.IsZero() {
		args[0] = [16]byte(below)
	}
	if list.IsAll() {
		query = "SELECT last, NULL::bytea[] FROM pages WHERE $1::uuid IS NULL OR last < $1 ORDER BY last DESC LIMIT $2"
	} else {
		args = append(args, list.Append(nil))
	}
	type row struct {
		Page   [16]byte
		Values [][]byte
	}
	var found []row
	err := s.retry(ctx, "reading a list of jobs", func() error {
		rows, err := s.reads.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		found, err = pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		return err
	})
	listed := make([]storelog.Listed, len(found))
	for i, r := range found {
		listed[i] = storelog.Listed{Page: r.Page, Values: r.Values}
	}
	return listed, err
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
	return s.records(ctx, kind, "SELECT key, value FROM records WHERE kind = $1 ORDER BY key", []byte(kind))
}

// PageRecords implements store.Records. Keys are bytea, which no collation orders in another way than by bytes.
func (s *Store) PageRecords(ctx context.Context, kind string, page store.RecordPage) ([]store.Record, error) {
	query := "SELECT key, value FROM records WHERE kind = $1 AND ($2::bytea IS NULL OR key > $2) ORDER BY key LIMIT $3"
	if page.Descending {
		query = "SELECT key, value FROM records WHERE kind = $1 AND ($2::bytea IS NULL OR key < $2) ORDER BY key DESC LIMIT $3"
	}
	var after []byte // nil is NULL
	if page.After != "" {
		after = []byte(page.After)
	}
	return s.records(ctx, kind, query, []byte(kind), after, max(page.Limit, 0))
}

// records returns the records of a kind that a query finds.
func (s *Store) records(ctx context.Context, kind, query string, args ...any) ([]store.Record, error) {
	type record struct{ Key, Value []byte }
	var found []record
	err := s.retry(ctx, "reading records", func() error {
		rows, err := s.reads.Query(ctx, query, args...)
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
