//go:build linux

package procrunner

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// pool lends out groups of version 2 that are empty and as they were made: making one costs more than starting a process.
type pool struct {
	mu   sync.Mutex
	last int
	free []*lent
}

// lent is a group that is used for one step after the other. Its files stay open, because opening them costs more than
// reading them.
type lent struct {
	dir    string
	folder int // the descriptor of dir
	events int // of cgroup.events
	state  [len(asMade)]int
}

// asMade is what a new group has in its files: no controllers for groups below, not frozen, no group of threads.
var asMade = [...]struct{ file, content string }{
	{"cgroup.subtree_control", ""}, {"cgroup.freeze", "0"}, {"cgroup.type", "domain"},
}

// take returns an empty group. Names begin with prefix.
func (p *pool) take(prefix string) (*lent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		l := p.free[n-1]
		p.free = p.free[:n-1]
		return l, nil
	}
	for {
		p.last++
		dir := prefix + strconv.Itoa(p.last)
		if err := os.Mkdir(dir, 0o755); errors.Is(err, os.ErrExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		l, err := openLent(dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
			continue // an agent that starts just now took it for abandoned
		}
		return l, err
	}
}

func openLent(dir string) (*lent, error) {
	l := &lent{dir: dir}
	var problems []error
	open := func(path string) int {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		problems = append(problems, err)
		return fd
	}
	l.folder = open(dir)
	// The lock says that the agent lives. It comes before the files are opened: if the group is still there then, it stays.
	if err := unix.Flock(l.folder, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		problems = append(problems, err)
	}
	l.events = open(filepath.Join(dir, "cgroup.events"))
	for i := range asMade {
		l.state[i] = open(filepath.Join(dir, asMade[i].file))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, errors.Join(err, l.remove())
	}
	return l, nil
}

// give takes a group back if the step has left it as it was made, without groups below. It reports whether it did.
func (p *pool) give(l *lent) bool {
	var buffer [64]byte
	for i := range asMade {
		n, err := unix.Pread(l.state[i], buffer[:], 0)
		if err != nil || string(bytes.TrimSpace(buffer[:n])) != asMade[i].content {
			return false
		}
	}
	var stat unix.Stat_t
	if unix.Fstat(l.folder, &stat) != nil || stat.Nlink != 2 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, l)
	return true
}

// populated reports whether anything lives in the group, or in groups below it.
func (l *lent) populated() bool {
	var buffer [256]byte
	n, err := unix.Pread(l.events, buffer[:], 0)
	return err == nil && isPopulated(buffer[:n])
}

// isPopulated reads what is in cgroup.events.
func isPopulated(events []byte) bool { return bytes.Contains(events, []byte("populated 1")) }

func (l *lent) closeFiles() {
	for _, fd := range append(l.state[:], l.folder, l.events) {
		_ = unix.Close(fd) // one that was not opened is -1
	}
}

// remove removes a group that has never been used, or is free.
func (l *lent) remove() error {
	err := os.Remove(l.dir)
	l.closeFiles() // now, so that nobody else removes it meanwhile
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// removeAbandoned removes groups of a pool whose agent was killed and will not come back; one that lives holds the lock on each. They are
// empty, but thousands of them would slow down the whole machine.
func removeAbandoned(dir string) {
	folder, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(folder) //nolint:errcheck // it was only read
	if unix.Flock(folder, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	var locked, named unix.Stat_t // the name may be that of another group by now
	if unix.Fstat(folder, &locked) == nil && unix.Stat(dir, &named) == nil && locked.Ino == named.Ino {
		_ = os.Remove(dir) // unless something lives in it
	}
}

// clear removes the groups that are free.
func (p *pool) clear() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var problems []error
	for _, l := range p.free {
		problems = append(problems, l.remove())
	}
	p.free = nil
	return errors.Join(problems...)
}
