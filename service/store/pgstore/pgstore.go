// Package pgstore keeps everything in PostgreSQL 15 or newer, for several servers of which one leads.
//
// A commit is one pipelined transaction of a few statements, whatever the number of jobs: rows travel as arrays. What is
// kept of unfinished jobs is in package storelog.
package pgstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// Options tune a store. The zero value is good.
type Options struct {
	Logger *slog.Logger
	// Patience is how long Open waits for a database that is not there; 0: 30 s. A store that was opened waits without end.
	Patience time.Duration
}

const (
	defaultPatience = 30 * time.Second
	// Connections by purpose, so that one cannot starve the other. Commits come one after the other.
	commitConns, logConns, readConns = 2, 2, 8
)

// Store is a store.Store.
type Store struct {
	commits, logs, reads *pgxpool.Pool
	logger               *slog.Logger

	committing sync.Mutex // held by the one who changes jobs
	hot        *storelog.Hot
	term       uint64 // of this server's lead; guarded by committing
	// damagedBlocks of the log of unfinished jobs were set aside and no call of Unfinished has counted them; guarded by committing
	damagedBlocks int
	expiring      sync.Mutex
}

// Open connects to the database that the URL names and brings its tables up to date. The error says what stands in the way:
// no server, no access, tables of a newer program.
func Open(ctx context.Context, url string, options Options) (*Store, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Patience == 0 {
		options.Patience = defaultPatience
	}
	s := &Store{logger: options.Logger, hot: storelog.NewHot()}
	for _, p := range []struct {
		pool  **pgxpool.Pool
		conns int32
		name  string
	}{{&s.commits, commitConns, "hodei commits"}, {&s.logs, logConns, "hodei logs"}, {&s.reads, readConns, "hodei reads"}} {
		pool, err := newPool(ctx, url, p.name, p.conns)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		*p.pool = pool
	}
	waiting, cancel := context.WithTimeout(ctx, options.Patience)
	defer cancel()
	if err := s.retry(waiting, "opening the database", func() error { return migrate(waiting, s.commits) }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func newPool(ctx context.Context, url, name string, conns int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the database's URL cannot be used; it looks like postgres://user:password@host/database: %w", err)
	}
	config.MaxConns = conns
	config.MaxConnLifetime, config.MaxConnLifetimeJitter = time.Hour, 10*time.Minute
	params := config.ConnConfig.RuntimeParams
	params["application_name"] = name
	params["synchronous_commit"] = "on" // what is acknowledged is durable, whatever the database's default
	params["idle_in_transaction_session_timeout"] = "60000"
	config.ConnConfig.ConnectTimeout = 5 * time.Second
	return pgxpool.NewWithConfig(ctx, config)
}

// Close implements store.Store.
func (s *Store) Close() error {
	for _, pool := range []*pgxpool.Pool{s.commits, s.logs, s.reads} {
		if pool != nil {
			pool.Close()
		}
	}
	return nil
}
