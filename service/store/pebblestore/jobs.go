package pebblestore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

// engine implements storelog.Engine.
type engine struct{ *Store }

func (s engine) iterate(ctx context.Context, lower, upper []byte) (*pebble.Iterator, error) {
	return s.db.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: lower, UpperBound: upper})
}

// PagesFrom implements storelog.Engine.
func (s engine) PagesFrom(ctx context.Context, from job.ID, n int) ([]storelog.Page, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	it, err := s.iterate(ctx, []byte{jobPrefix}, []byte{jobPrefix + 1})
	if err != nil {
		return nil, err
	}
	pages := make([]storelog.Page, 0, n)
	for ok := it.SeekGE(idPrefix(nil, jobPrefix, from)); ok && len(pages) < n; {
		var p storelog.Page
		var found bool
		if p, found, err = readPage(it); err != nil {
			break
		}
		if found {
			pages = append(pages, p)
		}
		ok = it.Valid()
	}
	return pages, errors.Join(err, it.Error(), it.Close())
}

// PagesOf implements storelog.Engine.
func (s engine) PagesOf(ctx context.Context, ids []job.ID) ([]storelog.Page, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	it, err := s.iterate(ctx, []byte{jobPrefix}, []byte{jobPrefix + 1})
	if err != nil {
		return nil, err
	}
	var pages []storelog.Page
	for _, id := range ids {
		if n := len(pages); n > 0 && pages[n-1].Last.Compare(id) >= 0 {
			continue
		}
		// The iterator stands behind the page before, where the next one often is.
		if page, part := pageOf(key(it)); part != partAccepted || page.Compare(id) < 0 || len(pages) == 0 {
			it.SeekGE(idPrefix(nil, jobPrefix, id))
		}
		for it.Valid() && ctx.Err() == nil {
			p, found, readErr := readPage(it)
			if readErr != nil {
				return nil, errors.Join(readErr, it.Close())
			}
			if found {
				pages = append(pages, p)
				break
			}
		}
	}
	return pages, errors.Join(ctx.Err(), it.Error(), it.Close())
}

// key returns the key at which an iterator stands, nil when it stands nowhere.
func key(it *pebble.Iterator) []byte {
	if !it.Valid() {
		return nil
	}
	return it.Key()
}

// readPage reads the page at which the iterator stands, with its endings, and leaves the iterator behind them. Endings
// without their page, which may be left by a repair, are passed over.
func readPage(it *pebble.Iterator) (p storelog.Page, found bool, err error) {
	page, part := pageOf(it.Key())
	if part == partAccepted {
		found, p.Last = true, page
		if p.Value, err = value(it); err != nil {
			return p, false, fmt.Errorf("reading the jobs up to %s: %w", page, err)
		}
		it.Next()
	}
	for ; it.Valid(); it.Next() {
		if of, part := pageOf(it.Key()); part != partEnded || of != page {
			break
		}
		endings, err := value(it)
		if err != nil {
			return p, false, fmt.Errorf("reading how the jobs up to %s ended: %w", page, err)
		}
		p.Endings = append(p.Endings, endings)
	}
	if !found && part != partEnded {
		it.Next() // a key that is not ours
	}
	return p, found, it.Error()
}

// value returns a copy of the value at which an iterator stands.
func value(it *pebble.Iterator) ([]byte, error) {
	v, err := it.ValueAndErr()
	return append([]byte(nil), v...), err
}

// Listed implements storelog.Engine.
func (s engine) Listed(ctx context.Context, list storelog.List, below job.ID, n int) ([]storelog.Listed, error) {
	if err := s.calls.enter(); err != nil {
		return nil, err
	}
	defer s.calls.leave()
	prefix := []byte{jobPrefix}
	if !list.IsAll() {
		prefix = listKey(nil, list)
	}
	upper := after(prefix)
	if !below.IsZero() {
		upper = append(prefix[:len(prefix):len(prefix)], below[:]...)
	}
	it, err := s.iterate(ctx, prefix, upper)
	if err != nil {
		return nil, err
	}
	listed := make([]storelog.Listed, 0, n)
	for ok := it.Last(); ok; ok = it.Prev() {
		rest := it.Key()[len(prefix):]
		if len(rest) < idBytes || list.IsAll() && rest[idBytes] != partAccepted {
			continue
		}
		page, last := job.ID(rest), len(listed)-1
		if last < 0 || listed[last].Page != page {
			if len(listed) == n {
				break
			}
			listed = append(listed, storelog.Listed{Page: page})
			last++
		}
		if list.IsAll() {
			continue
		}
		v, err := value(it)
		if err != nil {
			return nil, errors.Join(err, it.Close())
		}
		listed[last].Values = append(listed[last].Values, v)
	}
	return listed, errors.Join(it.Error(), it.Close())
}

// SetAside implements storelog.Engine.
func (s engine) SetAside(_ context.Context, w *storelog.Write) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	return s.write(s.db.NewBatch(), func(batch *pebble.Batch) error {
		out := writer{batch: batch}
		out.jobs(w)
		return out.err
	})
}

// loadJobs reads the log of unfinished jobs. Blocks that cannot be read are set aside.
func (s *Store) loadJobs() error {
	s.log = storelog.New(engine{s}, s.logger)
	s.Jobs = s.log.Jobs
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{blockPrefix}, UpperBound: []byte{blockPrefix + 1}})
	if err != nil {
		return err
	}
	damaged := s.db.NewBatch()
	for ok := it.First(); ok; ok = it.Next() {
		block, err := value(it)
		if err != nil {
			return errors.Join(fmt.Errorf("reading the unfinished jobs: %w", err), it.Close())
		}
		if len(it.Key()) == 9 {
			err = s.log.Load(binary.BigEndian.Uint64(it.Key()[1:]), block)
		} else {
			err = fmt.Errorf("a block of the unfinished jobs has the key %x", it.Key())
		}
		if err != nil {
			s.logger.Error("a record of unfinished jobs cannot be read and is set aside", "error", err)
			w := writer{batch: damaged}
			w.setAside(it.Key(), block)
			w.delete(it.Key())
		}
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("reading the unfinished jobs: %w", err)
	}
	if !damaged.Empty() {
		if err := s.write(damaged, func(*pebble.Batch) error { return nil }); err != nil {
			return err
		}
	}
	newest, err := engine{s}.Listed(context.Background(), storelog.List{}, job.ID{}, 1)
	if err == nil && len(newest) > 0 {
		s.log.Loaded(newest[0].Page)
	}
	return err
}
