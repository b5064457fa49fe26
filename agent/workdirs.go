package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// workDirs hands out empty folders for attempts to start in. Making and removing a folder costs more than starting a
// process, so one that is as empty when it comes back as it was is used again.
type workDirs struct {
	dir string

	mu   sync.Mutex
	last int
	free []string
}

// workMode is the mode of a folder that is handed out.
const workMode = os.ModeDir | 0o700

// newWorkDirs begins anew: what a former life of the agent has left is removed.
func newWorkDirs(dir string) (*workDirs, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("removing the folders of former attempts: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for attempts: %w", err)
	}
	return &workDirs{dir: dir}, nil
}

func (w *workDirs) take() (string, error) {
	w.mu.Lock()
	if n := len(w.free); n > 0 {
		dir := w.free[n-1]
		w.free = w.free[:n-1]
		w.mu.Unlock()
		return dir, nil
	}
	w.last++
	dir := filepath.Join(w.dir, strconv.Itoa(w.last))
	w.mu.Unlock()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("making a folder for the attempt: %w", err)
	}
	return dir, nil
}

// give takes a folder back. What an attempt has left in it is removed, or stays until the agent starts again.
func (w *workDirs) give(dir string) {
	if !pristine(dir) {
		_ = os.RemoveAll(dir)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free = append(w.free, dir)
}

// pristine reports whether a folder is as take makes it.
func pristine(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || info.Mode() != workMode {
		return false
	}
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close() //nolint:errcheck // only read
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF)
}
