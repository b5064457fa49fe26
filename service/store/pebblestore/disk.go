package pebblestore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a file system to which nothing is written after the store has failed: it stays as after a crash at that moment.
// Pebble expects its process to end then. When it goes on instead, it tries again what has failed, which may leave files that
// seem to be whole and are not.
//
// Failures in writing the write-ahead log are those of the store at once, and Pebble is told that all is well: where it
// cannot end one file of the log or begin the next it panics, in a way that nothing can recover from.
type disk struct {
	vfs.FS
	store *Store
}

// retryPause slows down what Pebble tries again at once and for ever, until the process ends.
const retryPause = 100 * time.Millisecond

// frozen returns an error when the store has failed.
func (s *Store) frozen() error {
	if err := s.failed.Load(); err != nil {
		return fmt.Errorf("nothing is written since a write has failed: %w", *err)
	}
	return nil
}

// isFull also reads the text, which is all that is left of some errors that pass through Pebble.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || strings.Contains(err.Error(), syscall.ENOSPC.Error())
}

// fail keeps the first failure: after it, what is on the disk is unknown until the store is opened again.
func (s *Store) fail(err error) {
	if isFull(err) {
		err = fmt.Errorf("the disk of the data folder is full; make room and start the server again: %w", err)
	}
	if s.failed.CompareAndSwap(nil, &err) {
		s.logger.Error("the store failed; the server stops so that nothing is acknowledged that may be lost", "error", err)
		close(s.broken)
	}
}

// open wraps a file that will be written.
func (d disk) open(name string, open func() (vfs.File, error)) (vfs.File, error) {
	frozen := d.store.frozen()
	if strings.HasSuffix(name, ".log") {
		if frozen == nil {
			f, err := open()
			if err == nil {
				return &logFile{File: f, store: d.store}, nil
			}
			d.store.fail(err)
		}
		return &logFile{File: vfs.NewMemFile(nil), store: d.store}, nil // nothing is written to it
	}
	if frozen != nil {
		<-time.After(retryPause)
		return nil, frozen
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &file{File: f, store: d.store}, nil
}

// Create implements vfs.FS.
func (d disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.Create(name, category) })
}

// ReuseForWrite implements vfs.FS.
func (d disk) ReuseForWrite(oldName, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.ReuseForWrite(oldName, name, category) })
}

// OpenReadWrite implements vfs.FS.
func (d disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, options ...vfs.OpenOption) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.OpenReadWrite(name, category, options...) })
}

func (d disk) unlessFrozen(do func() error) error {
	if err := d.store.frozen(); err != nil {
		return err
	}
	return do()
}

// Link implements vfs.FS.
func (d disk) Link(oldName, name string) error {
	return d.unlessFrozen(func() error { return d.FS.Link(oldName, name) })
}

// Remove implements vfs.FS.
func (d disk) Remove(name string) error {
	return d.unlessFrozen(func() error { return d.FS.Remove(name) })
}

// RemoveAll implements vfs.FS.
func (d disk) RemoveAll(name string) error {
	return d.unlessFrozen(func() error { return d.FS.RemoveAll(name) })
}

// Rename implements vfs.FS.
func (d disk) Rename(oldName, name string) error {
	return d.unlessFrozen(func() error { return d.FS.Rename(oldName, name) })
}

// MkdirAll implements vfs.FS.
func (d disk) MkdirAll(dir string, mode os.FileMode) error {
	return d.unlessFrozen(func() error { return d.FS.MkdirAll(dir, mode) })
}

// file is a file that is not of the log.
type file struct {
	vfs.File
	store *Store
}

// Write implements io.Writer.
func (f *file) Write(p []byte) (int, error) {
	if err := f.store.frozen(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

// WriteAt implements io.WriterAt.
func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.store.frozen(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, offset)
}

// Sync implements vfs.File.
func (f *file) Sync() error { return errors.Join(f.store.frozen(), f.File.Sync()) }

// SyncData implements vfs.File.
func (f *file) SyncData() error { return errors.Join(f.store.frozen(), f.File.SyncData()) }

// logFile is a file of the write-ahead log.
type logFile struct {
	vfs.File
	store *Store
}

// unlessFailed does something that writes, if nothing has failed before.
func (f *logFile) unlessFailed(do func() error) {
	if f.store.failed.Load() != nil {
		return
	}
	if err := do(); err != nil {
		f.store.fail(err)
	}
}

// Write implements io.Writer.
func (f *logFile) Write(p []byte) (int, error) {
	f.unlessFailed(func() error { _, err := f.File.Write(p); return err })
	return len(p), nil
}

// Sync implements vfs.File.
func (f *logFile) Sync() error {
	f.unlessFailed(f.File.Sync)
	return nil
}

// SyncData implements vfs.File.
func (f *logFile) SyncData() error {
	f.unlessFailed(f.File.SyncData)
	return nil
}

// SyncTo implements vfs.File.
func (f *logFile) SyncTo(length int64) (full bool, err error) {
	f.unlessFailed(func() error { full, err = f.File.SyncTo(length); return err })
	return full, nil
}

// Preallocate implements vfs.File.
func (f *logFile) Preallocate(offset, length int64) error {
	f.unlessFailed(func() error { return f.File.Preallocate(offset, length) })
	return nil
}

// Close implements io.Closer.
func (f *logFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.store.fail(err)
	}
	return nil
}
