package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// ownedDirs are folders for attempts of other users.
func ownedDirs(t *testing.T) *workDirs {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give folders to other users")
	}
	u, err := newUsers("3100000-3100001", passwdFile, groupFile)
	if err != nil {
		t.Fatal(err)
	}
	old := syscall.Umask(0o077) // the agent's own must not matter
	defer syscall.Umask(old)
	w, err := newWorkDirs(filepath.Join(t.TempDir(), "work"), u)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func describe(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	owner, _ := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%v %d:%d", info.Mode(), owner.Uid, owner.Gid)
}

// A folder is its user's alone, nobody gets it again, and what is in it goes, whatever modes it has.
func TestFolderOfAnotherUser(t *testing.T) { //nolint:paralleltest // the umask is the process's
	w := ownedDirs(t)
	if got := describe(t, w.dir); got != "drwx--x--x 0:0" {
		t.Errorf("the folder above is %s", got)
	}
	seen := make(map[string]bool)
	for uid := uint32(3100000); uid <= 3100001; uid++ {
		for round := range 3 {
			d, err := w.take(&runner.User{UID: uid, GID: uid + 5})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := describe(t, d.path), fmt.Sprintf("drwx------ %d:%d", uid, uid+5); got != want || seen[d.path] {
				t.Errorf("%s is %s, want %s; had before: %v", d.path, got, want, seen[d.path])
			}
			seen[d.path] = true
			for _, name := range []string{"a", "b"}[:round] { // the first time nothing
				err = errors.Join(err, os.MkdirAll(filepath.Join(d.path, name, "c"), 0o700), os.Chmod(filepath.Join(d.path, name), 0))
			}
			if err = errors.Join(err, w.give(d)); err != nil {
				t.Error(err)
			}
		}
	}
	if left, err := os.ReadDir(w.dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
}

// What cannot be removed is out of reach at least.
func TestFolderThatCannotBeRemovedIsOutOfReach(t *testing.T) { //nolint:paralleltest // as above
	w := ownedDirs(t)
	d, err := w.take(&runner.User{UID: 3100000, GID: 3100000})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d.path, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", d.path, "tmpfs", 0, "mode=777"); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(w.dir)
	err = w.give(d)
	if unmount := unix.Unmount(d.path, 0); err != nil || unmount != nil {
		t.Errorf("giving it back: %v, %v", err, unmount)
	}
	if got := describe(t, d.path); got != "drwx------ 0:0" {
		t.Errorf("the folder is %s", got)
	}
}

// However a job changes folders into links while they are removed, nothing outside is.
func TestLinksInAFolderLeadNowhere(t *testing.T) { //nolint:paralleltest // as above
	w := ownedDirs(t)
	precious := t.TempDir()
	for i := range 50 {
		for _, name := range []string{"f", "d"} {
			path := filepath.Join(precious, fmt.Sprint(name, i))
			if err := errors.Join(os.Mkdir(path, 0o755), os.WriteFile(filepath.Join(path, "file"), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var swaps int
	for range 20 {
		d, err := w.take(&runner.User{UID: 3100000, GID: 3100000})
		if err != nil {
			t.Fatal(err)
		}
		inside, err := os.OpenRoot(d.path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			name := fmt.Sprint("f", i)
			err = errors.Join(err, inside.MkdirAll(name+"/f0/deep/deeper", 0o777), inside.Symlink(precious, name+"-"), inside.WriteFile(name+"/file", nil, 0o666))
		}
		if err != nil {
			t.Fatal(err)
		}
		folder, err := inside.Open(".")
		if err != nil {
			t.Fatal(err)
		}
		ended, removed := make(chan int), new(atomic.Bool)
		go func() {
			n := 0
			for i := 0; !removed.Load(); i = (i + 1) % 20 {
				name := fmt.Sprint("f", i)
				if unix.Renameat2(int(folder.Fd()), name, int(folder.Fd()), name+"-", unix.RENAME_EXCHANGE) == nil {
					n++
				}
			}
			ended <- n
		}()
		if err := w.give(d); err != nil {
			t.Error(err)
		}
		removed.Store(true)
		swaps += <-ended
		_, _ = folder.Close(), inside.Close()
	}
	left, err := filepath.Glob(filepath.Join(precious, "*", "file"))
	if err != nil || len(left) != 100 || swaps < 100 {
		t.Errorf("%d of 100 files outside are left after %d exchanges: %v", len(left), swaps, err)
	}
	t.Logf("%d exchanges", swaps)
}

// Folders that nobody else may pass are found before any job is.
func TestStateFolderMustBePassable(t *testing.T) { //nolint:paralleltest // as above
	u := &users{one: &account{}}
	open := t.TempDir()
	if err := os.Chmod(filepath.Dir(open), 0o711); err != nil {
		t.Fatal(err)
	}
	closed := filepath.Join(open, "closed")
	if err := errors.Join(os.Mkdir(closed, 0o700), os.Symlink(closed, filepath.Join(open, "link"))); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(open, "state"):         "",
		filepath.Join(closed, "state"):       closed + " may not be entered",
		filepath.Join(open, "link", "state"): closed + " may not be entered",
	} {
		err := u.open(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s gave %v, want %q", path, err, want)
		}
		if got := describe(t, path); !strings.HasPrefix(got, "drwx--x--x") {
			t.Errorf("%s is %s", path, got)
		}
	}
	own := filepath.Join(open, "own")
	if err := (*users)(nil).open(own); err != nil || !strings.HasPrefix(describe(t, own), "drwx------") {
		t.Errorf("without others it is %s: %v", describe(t, own), err)
	}
}
