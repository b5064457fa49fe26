package pebblestore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

// pebbleLogger gives Pebble's words to the server's logger. Pebble expects Fatalf to end the process; here it marks the
// store as failed, which every waiting and later write returns, and the server stops in good order.
type pebbleLogger struct{ store *Store }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.store.logger.Debug(fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.store.logger.Error(fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.store.fail(fmt.Errorf(format, args...))
}

// openPebble opens Pebble. Where a write in the background fails, Pebble tries it again for ever and Open does not return; the
// failure of the store ends the waiting.
func (s *Store) openPebble(dir string, options *pebble.Options) (*pebble.DB, error) {
	type result struct {
		db  *pebble.DB
		err error
	}
	opened := make(chan result, 1)
	go func() {
		var r result
		defer func() {
			if p := recover(); p != nil { // it cannot make the name of a file durable
				err, ok := p.(error)
				if !ok {
					err = fmt.Errorf("%v", p)
				}
				r.err = errors.Join(err, s.note.close())
			}
			opened <- r
		}()
		if r.db, r.err = pebble.Open(dir, options); r.err != nil {
			r.err = errors.Join(r.err, s.note.close())
		}
	}()
	select {
	case r := <-opened:
		return r.db, r.err
	case <-s.broken:
		go func() {
			if r := <-opened; r.db != nil {
				_ = s.closePebble(r.db) // the disk works again, and nobody wants it any more
			}
		}()
		return nil, *s.failed.Load()
	}
}

// closePebble ends Pebble and gives the folder up.
func (s *Store) closePebble(db *pebble.DB) error { return errors.Join(db.Close(), s.note.close()) }

// explainOpen says what to do about a store that cannot be opened.
func explainOpen(dir string, err error) error {
	text := err.Error()
	if found := new(damage); errors.As(err, &found) {
		return found
	}
	switch {
	case errors.Is(err, syscall.EAGAIN), strings.Contains(text, "lock held by current process"):
		return fmt.Errorf("the data folder %s is in use by another hodei server; stop it, or choose another folder with --data-dir: %w", dir, err)
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("the data folder %s is on a file system that lacks what a store needs: %w", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the data folder %s cannot be used by the user that runs this server; give the folder and all in it to that user, "+
			"or choose another one with --data-dir: %w", dir, err)
	case isFull(err):
		return fmt.Errorf("the disk of the data folder %s is full; make room and start again: %w", dir, err)
	case strings.Contains(text, "unknown format major version"), errors.Is(err, errNewerNote):
		return fmt.Errorf("the store in %s was written by a newer program; run the version of hodei that wrote it, or use another folder: %w", dir, err)
	default:
		return fmt.Errorf("opening the store in %s (if files in it are damaged or gone, restore a backup): %w", dir, err)
	}
}
