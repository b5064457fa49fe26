// Package pebblestore keeps everything in one folder with Pebble: the embedded store, for one server.
package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Options tune a store. The zero value is good.
type Options struct {
	Logger     *slog.Logger // nil: none
	FS         vfs.FS       // nil: the disk
	CacheBytes int64        // of the block cache; 0: 16 MiB

	memTableBytes uint64 // tests have smaller ones, so that more happens to them
}

// The sizes were chosen for bursts of small commits in little memory: two memtables and the cache are what an idle store
// may come to hold.
const (
	defaultCacheBytes = 16 << 20
	memTableBytes     = 16 << 20
	bloomBitsPerKey   = 10
)

// Store is a store.Store.
type Store struct {
	db     *pebble.DB
	fs     vfs.FS
	note   *note // set while the folder is locked
	logger *slog.Logger
	failed atomic.Pointer[error] // the first failed write
	broken chan struct{}         // closed with it

	*storelog.Jobs // of log
	log            storelog.Log
	term           uint64     // guarded by log
	expiring       sync.Mutex // held while logs are removed or merged
	sweptTo        job.ID     // where the next sweep goes on; guarded by expiring
	spans          spans

	calls gate
}

// Open opens the store in dir, and makes it when there is none. The error says when another process has it open, when a
// newer program made it, or when it is damaged.
func Open(dir string, options Options) (*Store, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.FS == nil {
		options.FS = vfs.Default
	}
	s := &Store{fs: options.FS, logger: options.Logger, broken: make(chan struct{})}
	db, err := s.openPebble(dir, s.pebbleOptions(options))
	if err != nil {
		return nil, explainOpen(dir, err)
	}
	s.db = db
	if err := s.failed.Load(); err != nil {
		return nil, errors.Join(explainOpen(dir, *err), s.closePebble(db))
	}
	if err := s.checkFormat(dir); err != nil {
		return nil, errors.Join(err, s.closePebble(db))
	}
	for _, step := range []func() error{s.loadTerm, s.loadJobs, s.loadSpans} {
		if err := step(); err != nil {
			return nil, errors.Join(explainOpen(dir, err), s.closePebble(db))
		}
	}
	return s, nil
}

func (s *Store) pebbleOptions(options Options) *pebble.Options {
	if options.CacheBytes == 0 {
		options.CacheBytes = defaultCacheBytes
	}
	if options.memTableBytes == 0 {
		options.memTableBytes = memTableBytes
	}
	p := &pebble.Options{
		FS:                          disk{options.FS, s},
		CacheSize:                   options.CacheBytes,
		MemTableSize:                options.memTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      pebbleLogger{s},
	}
	p.EventListener = &pebble.EventListener{
		// Pebble tries again at once and for ever what fails in the background, and commits come to wait for it.
		BackgroundError: s.fail,
		// Who reads what is damaged gets an error; the others go on.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.logger.Error("data in the store is damaged and cannot be read; restore a backup", "file", info.Path, "error", info.Details)
		},
	}
	// What has just been flushed is soon compacted; compressing it would cost more than it saves.
	p.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	p.Levels[1].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	for i := range p.Levels {
		p.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBitsPerKey)
	}
	return p
}

// formatVersion is the layout of the keys and of what is beside Pebble's files; a store of another one is refused. Since 3 there
// is a note, and since 4 logs are kept in blocks.
const formatVersion = 4

func (s *Store) checkFormat(dir string) error {
	value, err := s.get([]byte{formatPrefix})
	if errors.Is(err, pebble.ErrNotFound) {
		return s.write(s.db.NewBatch(), func(b *pebble.Batch) error { return b.Set([]byte{formatPrefix}, []byte{formatVersion}, nil) })
	}
	if err != nil {
		return fmt.Errorf("reading the format of the store in %s: %w", dir, err)
	}
	if len(value) != 1 || value[0] != formatVersion {
		return fmt.Errorf("the store in %s has format %v and this program reads format %d; run the version of hodei that wrote it, or use another folder",
			dir, value, formatVersion)
	}
	return nil
}

// Failed is closed when a write has failed. The store takes no more writes then, and the process should end.
func (s *Store) Failed() <-chan struct{} { return s.broken }

// Close implements store.Store.
func (s *Store) Close() error {
	if err := s.calls.close(); err != nil {
		return err
	}
	return s.closePebble(s.db)
}

// write fills a batch and commits it durably.
func (s *Store) write(batch *pebble.Batch, fill func(*pebble.Batch) error) error {
	return s.writeWith(pebble.Sync, batch, fill)
}

func (s *Store) writeWith(options *pebble.WriteOptions, batch *pebble.Batch, fill func(*pebble.Batch) error) error {
	if err := fill(batch); err != nil {
		return errors.Join(err, batch.Close())
	}
	if err := s.failed.Load(); err != nil {
		return errors.Join(fmt.Errorf("the store takes no writes since one failed: %w", *err), batch.Close())
	}
	if err := batch.Commit(options); err != nil {
		s.fail(err)
		return err
	}
	// Pebble reports a commit that failed through its logger and then returns as if it had not.
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return batch.Close()
}

// get returns a copy of a value.
func (s *Store) get(key []byte) ([]byte, error) {
	value, closer, err := s.db.Get(key)
	if err != nil {
		return nil, err
	}
	out := append([]byte(nil), value...)
	return out, closer.Close()
}

func (s *Store) loadTerm() error {
	value, err := s.get([]byte{termPrefix})
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("reading the term: %w", err)
	case len(value) != 8:
		return fmt.Errorf("the record of the term has %d bytes instead of 8: the data folder is damaged; restore a backup", len(value))
	}
	s.term = binary.BigEndian.Uint64(value)
	return nil
}

// Lead implements store.Leader.
func (s *Store) Lead(context.Context) (uint64, error) {
	if err := s.calls.enter(); err != nil {
		return 0, err
	}
	defer s.calls.leave()
	s.log.Lock()
	defer s.log.Unlock()
	term := s.term + 1
	err := s.write(s.db.NewBatch(), func(b *pebble.Batch) error {
		return b.Set([]byte{termPrefix}, binary.BigEndian.AppendUint64(nil, term), nil)
	})
	if err != nil {
		return 0, fmt.Errorf("writing the term: %w", err)
	}
	s.term = term
	return term, nil
}

// Commit implements store.Committer.
func (s *Store) Commit(_ context.Context, b *store.Batch) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	jobs := new(storelog.Write)
	if len(b.Accepted)+len(b.Changed) > 0 || b.Term != 0 {
		s.log.Lock()
		defer s.log.Unlock()
		if b.Term != 0 && b.Term != s.term {
			return store.ErrDeposed
		}
		var err error
		if jobs, err = s.log.Prepare(b, func(commit uint64) ([]byte, error) { return s.get(blockKey(commit)) }); err != nil {
			return err
		}
	}
	err := s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		w := writer{batch: batch}
		w.jobs(jobs)
		for i := range b.Ends {
			w.logEnd(&b.Ends[i])
		}
		for i := range b.Requests {
			w.set(requestKey(&b.Requests[i]), storerecord.AppendRequest(w.value[:0], &b.Requests[i]))
			s.spans.add(requestSpanOf(b.Requests[i].Expires))
		}
		for i := range b.Records {
			w.record(&b.Records[i])
		}
		return w.err
	})
	if err == nil {
		s.log.Apply(jobs)
	}
	return err
}

// writer fills a batch, reusing its buffers, and keeps the first error.
type writer struct {
	batch *pebble.Batch
	key   []byte
	value []byte
	err   error
}

func (w *writer) set(key, value []byte) {
	if w.err == nil {
		w.err = w.batch.Set(key, value, nil)
	}
}

func (w *writer) delete(key []byte) {
	if w.err == nil {
		w.err = w.batch.Delete(key, nil)
	}
}

func (w *writer) deleteRange(from, to []byte) {
	if w.err == nil {
		w.err = w.batch.DeleteRange(from, to, nil)
	}
}

func (w *writer) jobs(jobs *storelog.Write) {
	for _, p := range jobs.Pages {
		w.key = pageKey(w.key[:0], p.Page)
		w.set(w.key, p.Bytes)
	}
	w.rest(jobs.Rest)
	for _, e := range jobs.Endings {
		w.key = endingsKey(w.key[:0], e.Page, jobs.Number)
		w.set(w.key, e.Bytes)
	}
	for i := range jobs.Lists {
		l := &jobs.Lists[i]
		w.key, w.value = listingKey(w.key[:0], l, jobs.Number), l.AppendValue(w.value[:0])
		w.set(w.key, w.value)
	}
	if jobs.Block != nil {
		w.set(blockKey(jobs.Number), jobs.Block)
	}
	for n := range jobs.Gone {
		w.delete(blockKey(jobs.First + uint64(n)))
	}
	for _, v := range jobs.SetAside {
		w.setAside(pageKey(nil, v.Page), v.Bytes)
	}
}

// rest writes what stays of pages.
func (w *writer) rest(rest []storelog.Value) {
	for _, r := range rest {
		if r.Bytes == nil {
			w.delete(pageKey(nil, r.Page))
		} else {
			w.set(pageKey(nil, r.Page), r.Bytes)
		}
	}
}

func (w *writer) setAside(key, value []byte) {
	w.set(append([]byte{quarantinePrefix}, key...), value)
}

func (w *writer) record(r *store.Record) {
	if len(r.Value) == 0 {
		w.delete(recordKey(r.Kind, r.Key))
		return
	}
	w.set(recordKey(r.Kind, r.Key), r.Value)
}
