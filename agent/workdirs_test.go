package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFoldersOfAttemptsAreEmptyWhoeverHadThemBefore(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "work")
	if err := os.MkdirAll(filepath.Join(dir, "1", "left by a former agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := newWorkDirs(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, use := range map[string]func(string) error{
		"nothing": func(string) error { return nil },
		"file":    func(d string) error { return os.WriteFile(filepath.Join(d, "f"), nil, 0o600) },
		"folder":  func(d string) error { return os.Mkdir(filepath.Join(d, "d"), 0o700) },
		"mode":    func(d string) error { return os.Chmod(d, 0o500) },
		"gone":    os.Remove,
		"another": func(d string) error { return errors.Join(os.Rename(d, d+"-"), os.Mkdir(d, 0o700)) },
		"came and went": func(d string) error {
			f := filepath.Join(d, "f")
			return errors.Join(os.WriteFile(f, nil, 0o600), os.Remove(f))
		},
		"link": func(d string) error { return os.Symlink("/", filepath.Join(d, "l")) },
		"replaced": func(d string) error {
			if err := os.Remove(d); err != nil {
				return err
			}
			return os.Symlink("/tmp", d)
		},
	} {
		d, err := w.take(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := use(d.path); err != nil {
			t.Fatal(err)
		}
		if err := w.give(d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		next, err := w.take(nil)
		if err != nil {
			t.Fatal(err)
		}
		if (next == d) != (name == "nothing" || name == "came and went") || !next.pristine() {
			t.Errorf("after %s the next attempt starts in %s, pristine: %v", name, next.path, next.pristine())
		}
	}
}
