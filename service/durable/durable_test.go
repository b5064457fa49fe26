package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"one", "another", ""} {
		if err := WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != text || info.Mode() != 0o640 {
			t.Errorf("%q, %v: %v, %v", got, info.Mode(), err, statErr)
		}
	}
	if rest, err := filepath.Glob(filepath.Join(filepath.Dir(path), Unfinished)); err != nil || len(rest) > 0 {
		t.Errorf("%v is left: %v", rest, err)
	}
}

// A file that cannot be written leaves what was there, and nothing else.
func TestFileThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if rest, err := filepath.Glob(filepath.Join(dir, Unfinished)); err != nil || len(rest) > 0 {
		t.Errorf("%v is left: %v", rest, err)
	}
	if err := WriteFile(filepath.Join(dir, "none", "f"), []byte("x"), 0o600); err == nil {
		t.Error("a file was written into a folder that is not there")
	}
	if err := SyncFolder(filepath.Join(dir, "none")); err == nil {
		t.Error("a folder was synced that is not there")
	}
}
