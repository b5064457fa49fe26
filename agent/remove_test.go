package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// nest makes folders in folders, each with a file.
func nest(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for range depth {
		if err == nil {
			err = errors.Join(unix.Mkdirat(at, "1", 0o700), unix.Symlinkat("..", at, "link"))
		}
		var below int
		if err == nil {
			below, err = unix.Openat(at, "1", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		_ = unix.Close(at)
		at = below
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(at)
}

// However deep folders are, those that remove them need few files, and an agent starts where such were left.
func TestDeepFoldersAreRemoved(t *testing.T) { //nolint:paralleltest // the limit is the process's
	dir := filepath.Join(t.TempDir(), "work")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	nest(t, dir, 500)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	w, err := newWorkDirs(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.take(nil)
	if err != nil {
		t.Fatal(err)
	}
	nest(t, d.path, 500)
	if err := w.give(d); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
}

// Whatever a folder has in it goes, and nothing beside it does.
func TestTreesAreRemoved(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "remove")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		outside := filepath.Join(dir, "outside", "kept")
		err = errors.Join(os.MkdirAll(outside, 0o700), os.Mkdir(filepath.Join(dir, "tree"), 0o700))
		folders := []string{filepath.Join(dir, "tree")}
		var modes []string
		for range rapid.IntRange(0, 30).Draw(t, "entries") {
			in := rapid.SampledFrom(folders).Draw(t, "in")
			path := filepath.Join(in, fmt.Sprint(rapid.IntRange(1, 4).Draw(t, "name")))
			if _, there := os.Lstat(path); there == nil {
				continue
			}
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				err = errors.Join(err, os.WriteFile(path, nil, 0))
			case 1:
				err = errors.Join(err, os.Symlink(rapid.SampledFrom([]string{"..", ".", outside, "1", "gone", "../../outside"}).Draw(t, "to"), path))
			case 2:
				err = errors.Join(err, unix.Mkfifo(path, 0o600))
			default:
				err = errors.Join(err, os.Mkdir(path, 0o700))
				folders = append(folders, path)
				modes = append(modes, path)
			}
		}
		for i := len(modes) - 1; i >= 0; i-- {
			err = errors.Join(err, os.Chmod(modes[i], os.FileMode(rapid.SampledFrom([]int{0, 0o500, 0o700}).Draw(t, "mode"))))
		}
		root, errOpen := os.OpenRoot(dir)
		if err = errors.Join(err, errOpen); err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := removeTree(root, "tree"); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(folders[0]); !os.IsNotExist(err) {
			t.Errorf("the tree is still there: %v", err)
		}
		if _, err := os.Stat(outside); err != nil {
			t.Errorf("what lay beside it is gone: %v", err)
		}
	})
}
