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
	free []*workDir
}

// workDir is a folder for an attempt. It stays open, because opening it costs more than looking into it.
type workDir struct {
	path string
	open *os.File
	made os.FileInfo
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

func (w *workDirs) take() (*workDir, error) {
	w.mu.Lock()
	if n := len(w.free); n > 0 {
		dir := w.free[n-1]
		w.free = w.free[:n-1]
		w.mu.Unlock()
		return dir, nil
	}
	w.last++
	path := filepath.Join(w.dir, strconv.Itoa(w.last))
	w.mu.Unlock()
	dir, err := newWorkDir(path)
	if err != nil {
		return nil, fmt.Errorf("making a folder for the attempt: %w", err)
	}
	return dir, nil
}

func newWorkDir(path string) (*workDir, error) {
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	open, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	made, err := open.Stat()
	if err != nil {
		return nil, errors.Join(err, open.Close())
	}
	return &workDir{path, open, made}, nil
}

// give takes a folder back. What an attempt has left in it is removed, or stays until the agent starts again.
func (w *workDirs) give(dir *workDir) {
	if !dir.pristine() {
		_ = dir.open.Close()
		_ = os.RemoveAll(dir.path)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free = append(w.free, dir)
}

// pristine reports whether a folder is the one that was made, as it was made.
func (d *workDir) pristine() bool {
	now, err := os.Lstat(d.path)
	if err != nil || now.Mode() != workMode || !os.SameFile(now, d.made) {
		return false
	}
	if _, err := d.open.Seek(0, io.SeekStart); err != nil {
		return false
	}
	_, err = d.open.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// close gives up what is kept for further attempts.
func (w *workDirs) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, dir := range w.free {
		_ = dir.open.Close()
	}
	w.free = nil
}
