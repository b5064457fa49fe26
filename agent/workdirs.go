package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// workDirs hands out empty folders for attempts to start in. Making and removing a folder costs more than starting a
// process, so one that is as empty when it comes back as it was is used again, unless it was another user's: what may be
// set on a folder is more than can be seen.
type workDirs struct {
	dir  string
	root *os.Root // no link that an attempt has made leads out of it

	mu   sync.Mutex
	last int
	free []*workDir
}

// workDir is a folder for an attempt. It stays open, because opening it costs more than looking into it.
type workDir struct {
	path  string
	open  *os.File
	made  os.FileInfo
	owner *runner.User // nil: the agent's own
}

// workMode is the mode of a folder that is handed out.
const workMode = os.ModeDir | 0o700

// newWorkDirs begins anew: what a former life of the agent has left is removed.
func newWorkDirs(dir string, u *users) (*workDirs, error) {
	parent, err := os.OpenRoot(filepath.Dir(dir))
	if err != nil {
		return nil, fmt.Errorf("looking for the folders of former attempts: %w", err)
	}
	defer parent.Close() //nolint:errcheck // nothing was written
	if err := removeTree(parent, filepath.Base(dir)); err != nil {
		return nil, fmt.Errorf("removing the folders of former attempts: %w", err)
	}
	var root *os.Root
	if err = parent.Mkdir(filepath.Base(dir), 0o700); err == nil {
		root, err = os.OpenRoot(dir)
	}
	if err == nil {
		err = u.prepare(root)
	}
	if err != nil {
		return nil, fmt.Errorf("making the folder for attempts: %w", err)
	}
	return &workDirs{dir: dir, root: root}, nil
}

// take returns a folder that is a user's, nil: the agent's own.
func (w *workDirs) take(owner *runner.User) (*workDir, error) {
	w.mu.Lock()
	if n := len(w.free); n > 0 && owner == nil {
		dir := w.free[n-1]
		w.free = w.free[:n-1]
		w.mu.Unlock()
		return dir, nil
	}
	w.last++
	name := strconv.Itoa(w.last)
	w.mu.Unlock()
	dir, err := w.make(name, owner)
	if err != nil {
		return nil, fmt.Errorf("making a folder for the attempt: %w", err)
	}
	return dir, nil
}

func (w *workDirs) make(name string, owner *runner.User) (*workDir, error) {
	if err := w.root.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	open, err := w.root.Open(name)
	if err != nil {
		return nil, err
	}
	if owner != nil {
		err = open.Chown(int(owner.UID), int(owner.GID))
	}
	made, errStat := open.Stat()
	if err = errors.Join(err, errStat); err != nil {
		return nil, errors.Join(err, open.Close())
	}
	return &workDir{filepath.Join(w.dir, name), open, made, owner}, nil
}

// give takes a folder back. What an attempt has left in it is removed, or stays until the agent starts again; nobody but
// the agent can reach it then. An error says that not even that could be done.
func (w *workDirs) give(dir *workDir) error {
	if dir.owner == nil && dir.pristine() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.free = append(w.free, dir)
		return nil
	}
	var err error
	if dir.owner != nil {
		err = errors.Join(dir.open.Chown(os.Geteuid(), os.Getegid()), dir.open.Chmod(0o700))
	}
	if removeTree(w.root, filepath.Base(dir.path)) == nil {
		err = nil
	}
	_ = dir.open.Close()
	return err
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
	_ = w.root.Close()
}
