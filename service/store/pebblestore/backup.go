package pebblestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
)

// Backup writes a copy of the store as it is at one moment of the call into dir, which must not be there yet.
// Writes go on meanwhile: what was acknowledged before the call is in the copy, and what is written during the call may be.
// Files that never change are shared with the store where dir is on the same file system, so the copy takes little time and
// space. It is opened like any other store. After an error, dir holds nothing that may be used.
func (s *Store) Backup(ctx context.Context, dir string) error {
	if err := s.calls.enter(); err != nil {
		return err
	}
	defer s.calls.leave()
	if err := ctx.Err(); err != nil {
		return err
	}
	synced := s.note.synced()
	err := s.db.Checkpoint(dir, pebble.WithFlushedWAL())
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is there already; a backup goes into a new folder: %w", dir, err)
	case err != nil:
		return fmt.Errorf("copying the store to %s: %w", dir, err)
	}
	if failed := s.failed.Load(); failed != nil { // the flush may have been what failed
		return fmt.Errorf("copying the store to %s: %w", dir, *failed)
	}
	if err := errors.Join(s.checkCopied(dir, synced), beginNote(s.fs, dir)); err != nil {
		return fmt.Errorf("copying the store to %s: %w", dir, errors.Join(err, s.fs.RemoveAll(dir)))
	}
	return nil
}

// checkCopied compares the logs in a copy with what was synced of them before. Logs that the copy does not need are not in it.
// Pebble itself checks the MANIFEST as it copies it.
func (s *Store) checkCopied(dir string, synced []listed) error {
	for _, l := range synced {
		if _, err := s.fs.Stat(s.fs.PathJoin(dir, l.name())); l.kind != kindLog || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if wrong, err := l.check(s.fs, dir); wrong != "" || err != nil {
			if err == nil {
				err = fmt.Errorf("the store is damaged: %s", wrong)
			}
			return err
		}
	}
	return nil
}
