//go:build linux

package procrunner

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// A step that cannot be started for a while, because a folder on the way does not answer, holds up no other.
func TestThreadsAreAsManyAsAreNeeded(t *testing.T) {
	threads := newThreads()
	defer threads.close()
	release := make(chan struct{})
	var all sync.WaitGroup
	seen := make(chan int, 3*idleThreads)
	for range cap(seen) {
		all.Go(func() {
			if err := threads.do(false, func() { seen <- unix.Gettid(); <-release }); err != nil {
				t.Error(err)
			}
		})
	}
	different := make(map[int]bool)
	for range cap(seen) {
		different[<-seen] = true
	}
	if len(different) != cap(seen) || different[unix.Gettid()] {
		t.Errorf("%d that hang have %d threads", cap(seen), len(different))
	}
	close(release)
	all.Wait()
	if n := threads.idle.Load(); n > idleThreads {
		t.Errorf("%d threads wait for work, want at most %d", n, idleThreads)
	}
}

func TestThreadThatMayHaveStrayedIsNotUsedAgain(t *testing.T) {
	threads := newThreads()
	defer threads.close()
	if err := threads.do(true, func() {}); err != nil {
		t.Fatal(err)
	}
	select {
	case threads.work <- func(error) {}:
		t.Error("the thread waits for more work")
	default:
	}
}

// Looking as a user gives no more rights than the user has, and the thread has its own again afterwards.
func TestLookAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can look as another user")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, nil, 0o640), os.Chown(file, 0, 3_300_001), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	threads := newThreads()
	defer threads.close()
	open := func() error {
		fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
	for name, tc := range map[string]struct {
		user *runner.User
		want error
	}{
		"agent":    {nil, nil},
		"stranger": {&runner.User{UID: 3_300_000, GID: 3_300_000}, unix.EACCES},
		"group":    {&runner.User{UID: 3_300_000, GID: 3_300_001}, nil},
		"groups":   {&runner.User{UID: 3_300_000, GID: 3_300_000, Groups: []uint32{3_300_001}}, nil},
	} {
		var as, after error
		err := threads.do(false, func() {
			lookAs(tc.user, func() { as = open() })
			after = open()
		})
		if as != tc.want || after != nil || err != nil { //nolint:errorlint // what the kernel says
			t.Errorf("%s: %v, want %v; afterwards %v; %v", name, as, tc.want, after, err)
		}
	}
}
