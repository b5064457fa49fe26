package pgstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	shortestWait = 100 * time.Millisecond
	longestWait  = 2 * time.Second
	// warnEvery is how often a database that stays away is talked about.
	warnEvery = 10 * time.Second
)

// retry does something again, as long as the database is away, until the context ends. What is done must come to the same
// when it is done twice.
func (s *Store) retry(ctx context.Context, what string, do func() error) error {
	wait, warned := shortestWait, time.Time{}
	var away error // the last reason
	for {
		err := do()
		if errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded) { // it was cut off while it tried
			return fmt.Errorf("%s: the database does not answer: %w", what, cmp.Or(away, err))
		}
		if err == nil || !isAway(err) {
			return err
		}
		away = err
		if time.Since(warned) > warnEvery {
			warned = time.Now()
			s.logger.Warn("the database is away; it is tried again, and nothing is acknowledged meanwhile", "what", what, "error", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%s: the database does not answer: %w", what, err)
		}
		wait = min(2*wait, longestWait)
	}
}

// sendFresh sends a copy of a batch, so that it can be sent again: pgx notes in a batch the names that its statements have on
// one connection, and another connection does not know them.
func sendFresh(ctx context.Context, pool *pgxpool.Pool, batch *pgx.Batch) error {
	fresh := new(pgx.Batch)
	for _, q := range batch.QueuedQueries {
		fresh.Queue(q.SQL, q.Arguments...)
	}
	return pool.SendBatch(ctx, fresh).Close()
}

// isAway reports whether an error is about the connection or a server that is starting, stopping or full, and not about
// what was asked.
func isAway(err error) bool {
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) { // also when it takes too long, which is no deadline of the caller
		return !isRefusal(connect)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "40001", "40P01": // a conflict; the same again may pass
			return true
		}
		// Classes: connection exception, insufficient resources, operator intervention.
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53") || strings.HasPrefix(pg.Code, "57P")
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "conn closed")
}

// isRefusal reports whether the server answered and said no for good: a wrong password, no such database.
func isRefusal(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "28") || pg.Code == "3D000")
}
