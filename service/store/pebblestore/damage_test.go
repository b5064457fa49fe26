package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// errorsLogged counts what a store reports.
type errorsLogged struct {
	slog.Handler
	count atomic.Int64
}

func (l *errorsLogged) Enabled(context.Context, slog.Level) bool { return true }
func (l *errorsLogged) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		l.count.Add(1)
	}
	return nil
}

// grown is a store with every kind of file, as it was left by a crash: some of its commits are in tables, the last ones in the
// log only.
func grown(t *testing.T, h history, commits int) *vfs.MemFS {
	t.Helper()
	disk := vfs.NewCrashableMem()
	s := openAt(t, "data", disk)
	for k := 1; k <= commits; k++ {
		if k%(commits/3) == 0 && k < commits {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, "data", disk)
		}
		if _, _, err := h.write(t.Context(), s, k); err != nil {
			t.Fatal(err)
		}
	}
	copied := disk.CrashClone(vfs.CrashCloneCfg{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return copied
}

func contents(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func replace(t *testing.T, fs vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// damagedOutcome is what came of opening a damaged store: refused or not, and how many commits it has.
type damagedOutcome struct {
	refused error
	commits int
}

// openDamaged opens a store and fails the test if it serves anything that was not written, or lacks something that it has not
// reported. What it has must be what some number of commits had made of it. Without a name, anything goes.
func openDamaged(t *testing.T, h history, fs vfs.FS, what string) damagedOutcome {
	t.Helper()
	reported := new(errorsLogged)
	s, err := pebblestore.Open("data", pebblestore.Options{FS: fs, Logger: slog.New(reported)})
	if err != nil {
		if !strings.Contains(err.Error(), "the store in data") {
			t.Errorf("%s: the error does not name the folder: %v", what, err)
		}
		return damagedOutcome{refused: err}
	}
	defer s.Close()
	k, err := h.last(t.Context(), s)
	if err == nil {
		err = errors.Join(h.check(t.Context(), s, k), h.checkOutput(t.Context(), s, 0, k+1))
	}
	if what != "" && errors.Is(err, errWrong) && reported.count.Load() == 0 {
		t.Errorf("%s: %.1000v", what, err)
	}
	return damagedOutcome{refused: err, commits: k}
}

// blindTail is how much of the end of the write-ahead log Pebble cannot tell from what a crash leaves: what says that it was
// synced is in the blocks of 32 KiB that follow.
const blindTail = 3 * 32 << 10

// Files that are cut off or have a wrong bit, wherever: the store refuses to open, or what it cannot read it reports. It never
// serves another value.
//
// Two things cannot be told from a crash, and are harmless only while a disk keeps what it was told to sync. A log that is cut
// off, or damaged near its end, is read up to there: the store is as it was after an earlier commit. And a list of tables
// (MANIFEST) that is cut off, or damaged, is read up to there as well: tables that were added later are forgotten.
func TestDamagedFilesAreNoticed(t *testing.T) {
	t.Parallel()
	const commits, tries = 36, 6
	h := history{padding: 9000}
	whole := grown(t, h, commits)
	if got := openDamaged(t, h, whole.CrashClone(vfs.CrashCloneCfg{}), "whole"); got.refused != nil || got.commits != commits {
		t.Fatalf("without damage there are %d of %d commits, %v", got.commits, commits, got.refused)
	}
	names, err := whole.List("data")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, name := range names {
		data := contents(t, whole, "data/"+name)
		if len(data) == 0 {
			continue
		}
		kind, _, isNamed := strings.Cut(name, "-")
		if !isNamed {
			kind = path.Ext(name)
		}
		kinds[kind]++
		random := seeded(uint64(len(data)))
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := range 2 * tries {
				at, bit := random.IntN(len(data)), random.IntN(8)
				isCut := n%2 == 0
				damaged := data[:at]
				what := fmt.Sprintf("%s is cut off after %d of %d bytes", name, at, len(data))
				if !isCut {
					damaged = slices.Clone(data)
					damaged[at] ^= 1 << bit
					what = fmt.Sprintf("bit %d of byte %d of %d of %s is wrong", bit, at, len(data), name)
				}
				fs := whole.CrashClone(vfs.CrashCloneCfg{})
				replace(t, fs, "data/"+name, damaged)
				if kind == "MANIFEST" {
					openDamaged(t, h, fs, "") // whatever is left, it does not panic
					continue
				}
				got := openDamaged(t, h, fs, what)
				blind := kind == ".log" && (isCut || at >= len(data)-blindTail)
				if got.refused == nil && got.commits != commits && !blind {
					t.Errorf("%s: there are %d of %d commits", what, got.commits, commits)
				}
			}
		})
	}
	for _, kind := range []string{".sst", ".log", "MANIFEST", "OPTIONS"} {
		if kinds[kind] == 0 {
			t.Errorf("the store has files of kinds %v only", kinds)
		}
	}
}

// The data folder of a newer program is refused, be it the layout that is newer or Pebble's files.
func TestNewerStoreIsRefused(t *testing.T) {
	t.Parallel()
	whole := grown(t, history{}, 3)
	layout := whole.CrashClone(vfs.CrashCloneCfg{})
	edit(t, folder{"data", layout}, func(db *pebble.DB) error { return db.Set([]byte("F"), []byte{99}, pebble.Sync) })
	files := whole.CrashClone(vfs.CrashCloneCfg{})
	names, err := files.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "marker.format-version.") {
			if err := files.Rename("data/"+name, "data/marker.format-version.999998.999"); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, fs := range map[string]vfs.FS{"layout": layout, "files": files} {
		_, err := pebblestore.Open("data", pebblestore.Options{FS: fs})
		if err == nil || !strings.Contains(err.Error(), "run the version of hodei that wrote it") {
			t.Errorf("newer %s gave %v", what, err)
		}
	}
}

// Nothing of an empty, foreign or half-made folder is taken for a store.
func TestStrangeFolders(t *testing.T) {
	t.Parallel()
	foreign := vfs.NewMem()
	if err := foreign.MkdirAll("data", 0o700); err != nil {
		t.Fatal(err)
	}
	replace(t, foreign, "data/notes.txt", []byte("not a store"))
	if err := openAt(t, "data", foreign).Close(); err != nil { // what is of no concern to a store stays
		t.Error(err)
	}
	if got := contents(t, foreign, "data/notes.txt"); string(got) != "not a store" {
		t.Errorf("a foreign file is now %q", got)
	}
	aFile := vfs.NewMem()
	replace(t, aFile, "data", []byte("a file"))
	if _, err := pebblestore.Open("data", pebblestore.Options{FS: aFile}); err == nil {
		t.Error("a file was opened as a folder")
	}
}
