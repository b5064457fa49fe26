package pgstore

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migration is a numbered step of the tables' history.
type migration struct {
	version  int
	name     string
	text     string
	checksum string
}

func migrations() ([]migration, error) {
	entries, err := migrationFiles.ReadDir("migrations") // by name, and so by number
	if err != nil {
		return nil, err
	}
	var all []migration
	for i, e := range entries {
		text, err := migrationFiles.ReadFile(path.Join("migrations", e.Name()))
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(e.Name(), "_")
		if version, err := strconv.Atoi(number); err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s should have number %d", e.Name(), i+1)
		}
		sum := sha256.Sum256(text)
		all = append(all, migration{version: i + 1, name: e.Name(), text: string(text), checksum: hex.EncodeToString(sum[:])})
	}
	return all, nil
}

// migrationLock keeps servers that start at the same time from migrating at once.
const migrationLock = 0x686f646569 // "hodei"

// migrate brings the tables up to date in one transaction. Tables of a newer program, or ones that were made by a program
// with another history, are refused.
func migrate(ctx context.Context, pool *pgxpool.Pool) error {
	all, err := migrations()
	if err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", migrationLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS hodei_migrations (
			version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied timestamptz NOT NULL DEFAULT now())`); err != nil {
			return explainAccess(err)
		}
		done, err := applied(ctx, tx, all)
		if err != nil {
			return err
		}
		for _, m := range all[done:] {
			if _, err := tx.Exec(ctx, m.text); err != nil {
				return fmt.Errorf("bringing the tables to version %d: %w", m.version, err)
			}
			if _, err := tx.Exec(ctx, "INSERT INTO hodei_migrations (version, name, checksum) VALUES ($1, $2, $3)",
				m.version, m.name, m.checksum); err != nil {
				return err
			}
		}
		return nil
	})
}

// applied returns how many of the migrations the database has.
func applied(ctx context.Context, tx pgx.Tx, all []migration) (int, error) {
	rows, err := tx.Query(ctx, "SELECT checksum FROM hodei_migrations ORDER BY version")
	if err != nil {
		return 0, err
	}
	sums, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, err
	}
	if len(sums) > len(all) {
		return 0, fmt.Errorf("the tables have version %d and this program knows version %d; run the version of hodei that made them, or a newer one",
			len(sums), len(all))
	}
	for i, sum := range sums {
		if sum != all[i].checksum {
			return 0, fmt.Errorf("the tables were made by another program: its step %d is not %s; use an empty database", i+1, all[i].name)
		}
	}
	return len(sums), nil
}

func explainAccess(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return fmt.Errorf("the database's user may not make tables; let it own the database, or grant it CREATE on the schema: %w", err)
	}
	return err
}
