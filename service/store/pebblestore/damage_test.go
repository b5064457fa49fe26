package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
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

// grownStores are a store with every kind of file, some of its commits in tables and the last ones in the log only, as it was left.
type grownStores struct {
	killed  *vfs.MemFS // the process was killed: what it wrote is there
	failed  *vfs.MemFS // the power failed: only what was synced is there
	stopped *vfs.MemFS // it was closed
}

func grown(t *testing.T, h history, commits int) grownStores {
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
	all := vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: seeded(1)}
	g := grownStores{killed: disk.CrashClone(all), failed: disk.CrashClone(vfs.CrashCloneCfg{})}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	g.stopped = disk.CrashClone(all)
	return g
}

func (g grownStores) each() map[string]*vfs.MemFS {
	return map[string]*vfs.MemFS{"killed": g.killed, "power failed": g.failed, "stopped": g.stopped}
}

// copyOf is a copy of a disk, with all that is in it.
func copyOf(disk *vfs.MemFS) *vfs.MemFS {
	return disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: seeded(1)})
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
// reported. What it has must be what some number of commits had made of it.
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
	if errors.Is(err, errWrong) && reported.count.Load() == 0 {
		t.Errorf("%s: %.1000v", what, err)
	}
	return damagedOutcome{refused: err, commits: k}
}

// blindTail is how much of the end of the write-ahead log Pebble cannot tell from what a crash leaves: what says that it was
// synced is in the blocks of 32 KiB that follow.
const blindTail = 3 * 32 << 10

// Files that are cut off or have a wrong bit, wherever: the store refuses to open, or what it cannot read it reports. It never
// serves another value, and never forgets one.
//
// One thing cannot be told from a torn write: after a loss of power the note may be older than the last commits in the log, and
// damage to their end that came with it leaves the store as it was after an earlier commit.
func TestDamagedFilesAreNoticed(t *testing.T) {
	t.Parallel()
	const commits, tries = 36, 6
	h := history{padding: 9000}
	for how, whole := range grown(t, h, commits).each() {
		if got := openDamaged(t, h, copyOf(whole), "whole"); got.refused != nil || got.commits != commits {
			t.Fatalf("%s: without damage there are %d of %d commits, %v", how, got.commits, commits, got.refused)
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
			t.Run(how+" "+name, func(t *testing.T) {
				t.Parallel()
				for n := range 2 * tries {
					at, bit := random.IntN(len(data)), random.IntN(8)
					isCut := n%2 == 0
					damaged, what := injured(name, data, at, bit, isCut)
					fs := copyOf(whole)
					replace(t, fs, "data/"+name, damaged)
					got := openDamaged(t, h, fs, what)
					blind := how == "power failed" && kind == ".log" && (isCut || at >= len(data)-blindTail)
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
}

// injured is a file that is cut off at a place, or has a wrong bit there.
func injured(name string, data []byte, at, bit int, isCut bool) (damaged []byte, what string) {
	if isCut {
		return data[:at], fmt.Sprintf("%s is cut off after %d of %d bytes", name, at, len(data))
	}
	damaged = slices.Clone(data)
	damaged[at] ^= 1 << bit
	return damaged, fmt.Sprintf("bit %d of byte %d of %d of %s is wrong", bit, at, len(data), name)
}

// Wherever the newest list of tables or the newest log is cut off or has a wrong bit, and what is behind that, the store is
// refused. It is refused before anything in the folder has changed, with the file, what is wrong with it and what to do.
func TestDamagedEndsAreRefused(t *testing.T) {
	t.Parallel()
	h := history{padding: 500}
	for how, whole := range grown(t, h, 36).each() {
		if how == "power failed" {
			continue // the note may be older than the end of the log
		}
		found, err := pebble.Peek("data", whole)
		if err != nil {
			t.Fatal(err)
		}
		names, err := whole.List("data")
		if err != nil {
			t.Fatal(err)
		}
		log := slices.MaxFunc(names, func(a, b string) int {
			return strings.Compare(strings.TrimSuffix(a, ".log"), strings.TrimSuffix(b, ".log")) + 1000*(isLog(a)-isLog(b))
		})
		for _, name := range []string{path.Base(found.ManifestFilename), log} {
			t.Run(how+" "+name, func(t *testing.T) {
				t.Parallel()
				data := contents(t, whole, "data/"+name)
				for at := range data {
					// Every byte of the end, and some of every region before it.
					if at >= 100 && at < len(data)-100 && at%(len(data)/100+1) != 0 {
						continue
					}
					for _, isCut := range []bool{true, false} {
						damaged, what := injured(name, data, at, at%8, isCut)
						fs := copyOf(whole)
						replace(t, fs, "data/"+name, damaged)
						checkRefused(t, fs, what, name)
					}
				}
				fs := copyOf(whole)
				if err := fs.Remove("data/" + name); err != nil {
					t.Fatal(err)
				}
				checkRefused(t, fs, name+" is gone", name)
			})
		}
	}
}

func isLog(name string) int {
	if strings.HasSuffix(name, ".log") {
		return 1
	}
	return 0
}

// checkRefused fails the test unless a store is refused with words, and is then as it was before.
func checkRefused(t *testing.T, fs *vfs.MemFS, what string, words ...string) {
	t.Helper()
	before := allContents(t, fs)
	s, err := pebblestore.Open("data", pebblestore.Options{FS: fs})
	if err == nil {
		t.Errorf("%s: the store was opened", what)
		_ = s.Close()
		return
	}
	for _, word := range append(words, "the store in data is ", "restore a backup", "the word accept", "data/SYNCED") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: the error lacks %q: %v", what, word, err)
		}
	}
	if after := allContents(t, fs); !maps.Equal(before, after) {
		t.Errorf("%s: refusing changed the folder", what)
	}
}

// allContents is what is in the files of a store.
func allContents(t *testing.T, fs vfs.FS) map[string]string {
	t.Helper()
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, name := range names {
		if name != "LOCK" {
			all[name] = string(contents(t, fs, "data/"+name))
		}
	}
	return all
}

// The data folder of a newer program is refused, be it the layout that is newer or Pebble's files.
func TestNewerStoreIsRefused(t *testing.T) {
	t.Parallel()
	whole := grown(t, history{}, 3).killed
	layout := copyOf(whole)
	edit(t, folder{"data", layout}, func(db *pebble.DB) error { return db.Set([]byte("F"), []byte{99}, pebble.Sync) })
	files := copyOf(whole)
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
