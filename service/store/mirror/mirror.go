// Package mirror keeps records in memory that are few and looked at for every request: what a store has of a kind, decoded.
package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/hodei-jobs/hodei/service/store"
)

// Store is what a mirror needs of a store.
type Store interface {
	store.Committer
	store.Records
}

// Mirror is a kind of records. Its methods may be called from several goroutines at once; who looks before a change, so that both must be
// one step, holds a lock of their own.
type Mirror[T any] struct {
	db   Store
	kind string

	mu    sync.RWMutex
	items map[string]T
}

// Open reads all records of a kind. One that cannot be read is left out, and logged: a server starts.
func Open[T any](ctx context.Context, db Store, kind string, logger *slog.Logger) (*Mirror[T], error) {
	records, err := db.ListRecords(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("reading the records of kind %s: %w", kind, err)
	}
	m := &Mirror[T]{db: db, kind: kind, items: make(map[string]T, len(records))}
	for _, r := range records {
		var item T
		if err := json.Unmarshal(r.Value, &item); err != nil {
			logger.Error("a record cannot be read and counts as removed; make it again", "kind", kind, "key", r.Key, "error", err)
			continue
		}
		m.items[r.Key] = item
	}
	return m, nil
}

// Get returns what has a key.
func (m *Mirror[T]) Get(key string) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	item, ok := m.items[key]
	return item, ok
}

// Len returns how many there are.
func (m *Mirror[T]) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.items)
}

// All returns everything, by key.
func (m *Mirror[T]) All() []T {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]T, 0, len(m.items))
	for _, key := range slices.Sorted(maps.Keys(m.items)) {
		all = append(all, m.items[key])
	}
	return all
}

// Keys returns the keys of what is chosen, in order.
func (m *Mirror[T]) Keys(chosen func(*T) bool) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var keys []string
	for key, item := range m.items {
		if chosen(&item) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Set stores something under a key; when it returns it is durable, and seen from then on.
func (m *Mirror[T]) Set(ctx context.Context, key string, item T) error {
	return m.Change(ctx, map[string]T{key: item})
}

// Change stores things and deletes others, all or nothing.
func (m *Mirror[T]) Change(ctx context.Context, set map[string]T, deleted ...string) error {
	batch := &store.Batch{}
	for _, key := range slices.Sorted(maps.Keys(set)) {
		value, err := json.Marshal(set[key])
		if err != nil {
			return fmt.Errorf("encoding the record %s of kind %s: %w", key, m.kind, err)
		}
		batch.Records = append(batch.Records, store.Record{Kind: m.kind, Key: key, Value: value})
	}
	for _, key := range deleted {
		batch.Records = append(batch.Records, store.Record{Kind: m.kind, Key: key})
	}
	if err := m.db.Commit(ctx, batch); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.items, set)
	for _, key := range deleted {
		delete(m.items, key)
	}
	return nil
}
