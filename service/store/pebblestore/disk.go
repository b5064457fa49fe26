package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is a file system to which nothing is written after the store has failed: it stays as after a crash at that moment.
// Pebble expects its process to end then. When it goes on instead, it tries again what has failed, which may leave files that
// seem to be whole and are not.
//
// Failures in writing the write-ahead log are those of the store at once, and Pebble is told that all is well: where it
// cannot end one file of the log or begin the next it panics, in a way that nothing can recover from.
//
// Of what is made durable in the folder it keeps a note, and compares the two when the folder is opened.
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

// Lock implements vfs.FS. Pebble locks the folder before it looks at anything in it, so this is when the note is read. The lock is
// given up with the note, after Pebble has ended: it removes files when it has unlocked the folder.
func (d disk) Lock(name string) (io.Closer, error) {
	dir := d.PathDir(name)
	lock, err := pebble.LockDirectory(dir, d.FS)
	if err != nil {
		return nil, err
	}
	if d.store.note, err = d.store.openNote(d.FS, dir, lock); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return io.NopCloser(nil), nil
}

// noted returns the kind and the number of a file that the note is about, or kind 0.
func (d disk) noted(name string) (kind byte, number uint64) {
	if d.store.note == nil || d.PathDir(name) != d.store.note.home { // of a backup
		return 0, 0
	}
	return numbered(d.PathBase(name))
}

// forget must be called before a file goes that may be in the note.
func (d disk) forget(name string) error {
	kind, number := d.noted(name)
	if kind != kindLog {
		return nil
	}
	err := d.store.note.forget(number)
	if err != nil {
		d.store.fail(err)
	}
	return err
}

// open wraps a file that will be written.
func (d disk) open(name string, open func() (vfs.File, error)) (vfs.File, error) {
	frozen := d.store.frozen()
	kind, number := d.noted(name)
	if strings.HasSuffix(name, ".log") {
		if frozen == nil {
			f, err := open()
			if err == nil {
				return &logFile{File: f, store: d.store, number: number}, nil
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
	if kind == kindManifest {
		return &manifestFile{file: file{f, d.store}, number: number}, nil
	}
	return &file{f, d.store}, nil
}

// Create implements vfs.FS.
func (d disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.Create(name, category) })
}

// ReuseForWrite implements vfs.FS.
func (d disk) ReuseForWrite(oldName, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) {
		if err := d.forget(oldName); err != nil {
			return nil, err
		}
		return d.FS.ReuseForWrite(oldName, name, category)
	})
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
	return d.unlessFrozen(func() error {
		if err := d.forget(name); err != nil {
			return err
		}
		return d.FS.Remove(name)
	})
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

// manifestFile is a MANIFEST of the store.
type manifestFile struct {
	file
	number  uint64
	named   bool // its name is durable
	written extent
}

// Write implements io.Writer.
func (f *manifestFile) Write(p []byte) (int, error) {
	written := f.written.with(p) // Write may change p
	n, err := f.file.Write(p)
	if err == nil {
		f.written = written
	}
	return n, err
}

// Sync implements vfs.File. A new MANIFEST becomes the current one only after it has returned, and its name must not be lost then.
func (f *manifestFile) Sync() error {
	if err := f.file.Sync(); err != nil {
		return err
	}
	if !f.named {
		if err := syncFolder(f.store.fs, f.store.note.home); err != nil {
			return err
		}
		f.named = true
	}
	err := f.store.note.manifestSynced(f.number, f.written)
	if err != nil {
		f.store.fail(err)
	}
	return err
}

// SyncData implements vfs.File.
func (f *manifestFile) SyncData() error { return f.Sync() }

// logFile is a file of the write-ahead log.
type logFile struct {
	vfs.File
	store   *Store
	number  uint64 // 0: of a backup
	written extent
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
	f.unlessFailed(func() error {
		written := f.written
		if f.number != 0 {
			written = written.with(p) // Write may change p
		}
		if _, err := f.File.Write(p); err != nil {
			return err
		}
		f.written = written
		return nil
	})
	return len(p), nil
}

// synced syncs in one of two ways and notes how far, before whoever waits for it is told.
func (f *logFile) synced(sync func() error) error {
	f.unlessFailed(func() error {
		if err := sync(); err != nil || f.number == 0 {
			return err
		}
		return f.store.note.logSynced(f.number, f.written)
	})
	return nil
}

// Sync implements vfs.File.
func (f *logFile) Sync() error { return f.synced(f.File.Sync) }

// SyncData implements vfs.File.
func (f *logFile) SyncData() error { return f.synced(f.File.SyncData) }

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
	if f.number != 0 {
		f.unlessFailed(func() error { return f.store.note.logClosed(f.number) })
	}
	if err := f.File.Close(); err != nil {
		f.store.fail(err)
	}
	return nil
}
