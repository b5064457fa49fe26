package pebblestore

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
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
	err := fmt.Errorf(format, args...)
	l.store.logger.Error("the store failed; the server stops so that nothing is acknowledged that may be lost", "error", err)
	l.store.fail(err)
}

// explainOpen says what to do about a store that cannot be opened.
func explainOpen(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN), strings.Contains(err.Error(), "lock held by current process"):
		return fmt.Errorf("the data folder %s is in use by another hodei server; stop it, or choose another folder with --data-dir: %w", dir, err)
	case errors.Is(err, errors.ErrUnsupported):
		return fmt.Errorf("the data folder %s is on a file system that lacks what a store needs: %w", dir, err)
	default:
		return fmt.Errorf("opening the store in %s: %w", dir, err)
	}
}
