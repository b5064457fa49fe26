package pebblestore_test

import (
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

const noteName = "data/SYNCED"

// commitsOf opens a store and returns how many commits it has, which must be right.
func commitsOf(t *testing.T, h history, fs vfs.FS, what string) int {
	t.Helper()
	got := openDamaged(t, h, fs, what)
	if got.refused != nil {
		t.Errorf("%s: %v", what, got.refused)
	}
	return got.commits
}

func remove(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	if err := fs.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// Without its note a store is refused, however often it is asked, unless the operator says otherwise. That is told, and holds
// once.
func TestStoreWithoutItsNoteIsRefused(t *testing.T) {
	t.Parallel()
	h := history{padding: 3000}
	for how, whole := range grown(t, h, 9).each() {
		remove(t, whole, noteName)
		checkRefused(t, whole, how, "SYNCED is gone")
		checkRefused(t, whole, how+", again", "SYNCED is gone")
		replace(t, whole, noteName, []byte("accept\n"))
		if n := commitsOf(t, h, whole, how+", accepted"); n != 9 {
			t.Errorf("%s: %d of 9 commits are left", how, n)
		}
		if n := commitsOf(t, h, whole, how+", afterwards"); n != 9 {
			t.Errorf("%s: %d of 9 commits are left afterwards", how, n)
		}
		remove(t, whole, noteName)
		checkRefused(t, whole, how+", afterwards", "SYNCED is gone")
	}
}

// What an operator accepts is what is left, and it is guarded from then on.
func TestWhatIsLeftCanBeAccepted(t *testing.T) {
	t.Parallel()
	h := history{padding: 3000}
	fs := grown(t, h, 9).killed
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	// The newest: Pebble removes those before it when it likes, so nothing may be missing when one of them is damaged.
	log := slices.Max(slices.DeleteFunc(names, func(name string) bool { return isLog(name) == 0 }))
	data := contents(t, fs, "data/"+log)
	replace(t, fs, "data/"+log, data[:len(data)-10])
	checkRefused(t, fs, "a cut log", log)
	replace(t, fs, noteName, []byte("accept"))
	left := commitsOf(t, h, fs, "accepted")
	if left < 6 || left > 9 {
		t.Errorf("%d of 9 commits are left", left)
	}
	found, err := pebble.Peek("data", fs)
	if err != nil {
		t.Fatal(err)
	}
	manifest := contents(t, fs, found.ManifestFilename)
	replace(t, fs, found.ManifestFilename, manifest[:len(manifest)-1])
	checkRefused(t, fs, "cut after it was accepted", path.Base(found.ManifestFilename))
}

// What is behind that which was synced was never acknowledged, whatever a crash has made of it.
func TestWhatWasNotSyncedMayBeTorn(t *testing.T) {
	t.Parallel()
	h := history{padding: 3000}
	whole := grown(t, h, 9).killed
	for name, data := range allContents(t, whole) {
		if isLog(name) == 0 {
			continue
		}
		for what, tail := range map[string][]byte{"zeros": make([]byte, 5000), "the beginning of a write": []byte(data)[:50]} {
			fs := copyOf(whole)
			replace(t, fs, "data/"+name, append([]byte(data), tail...))
			if n := commitsOf(t, h, fs, what); n != 9 {
				t.Errorf("with %s behind %s there are %d of 9 commits", what, name, n)
			}
		}
	}
}

// Damage to the note itself never makes a store serve less than it has.
func TestDamagedNote(t *testing.T) {
	t.Parallel()
	h := history{padding: 3000}
	for how, whole := range grown(t, h, 9).each() {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			data := contents(t, whole, noteName)
			for at := range data {
				if at%512 == 0 {
					damaged, what := injured("SYNCED", data, at, 0, true)
					fs := copyOf(whole)
					replace(t, fs, noteName, damaged)
					checkRefused(t, fs, what, "SYNCED has")
				}
				if isUsed := data[at] != 0; !isUsed && at%700 != 0 {
					continue
				}
				damaged, what := injured("SYNCED", data, at, at%8, false)
				fs := copyOf(whole)
				replace(t, fs, noteName, damaged)
				got := openDamaged(t, h, fs, what)
				if got.refused == nil && got.commits != 9 || got.refused != nil && !strings.Contains(got.refused.Error(), "is damaged") {
					t.Errorf("%s: %d of 9 commits, %v", what, got.commits, got.refused)
				}
			}
		})
	}
}

// What writes to a store without keeping its note leaves it in doubt, which is said.
func TestStoreThatAnotherProgramHasOpened(t *testing.T) {
	t.Parallel()
	h := history{padding: 3000}
	fs := grown(t, h, 9).stopped
	note := contents(t, fs, noteName)
	edit(t, folder{"data", fs}, func(db *pebble.DB) error { return db.Flush() })
	replace(t, fs, noteName, note)
	checkRefused(t, fs, "opened by another program", "perhaps an older hodei", "If nothing else has happened")
}

// Pebble makes a new store where nothing says which list of tables is the current one.
func TestStoreWithoutMarkerIsRefused(t *testing.T) {
	t.Parallel()
	for how, fs := range grown(t, history{padding: 3000}, 9).each() {
		names, err := fs.List("data")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasPrefix(name, "marker.") {
				remove(t, fs, "data/"+name)
			}
		}
		checkRefused(t, fs, how, "marker.manifest.* is gone")
	}
}

// A newer program may keep another note.
func TestNoteOfANewerProgramIsRefused(t *testing.T) {
	t.Parallel()
	fs := grown(t, history{}, 3).killed
	pebblestore.MakeNoteNewer(t, fs, noteName)
	if _, err := pebblestore.Open("data", pebblestore.Options{FS: fs, Logger: slog.New(slog.DiscardHandler)}); err == nil ||
		!strings.Contains(err.Error(), "run the version of hodei that wrote it") {
		t.Errorf("a newer note gave %v", err)
	}
}

// A backup is guarded as the store is, from the moment it is made.
func TestDamagedBackupIsRefused(t *testing.T) {
	t.Parallel()
	h := history{padding: 3000}
	fs := vfs.NewCrashableMem()
	s := openAt(t, "store", fs)
	for k := 1; k <= 6; k++ {
		if _, _, err := h.write(t.Context(), s, k); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Backup(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := commitsOf(t, h, copyOf(fs), "a backup"); n != 6 {
		t.Errorf("a backup has %d of 6 commits", n)
	}
	checked := 0
	for name, data := range allContents(t, fs) {
		if isLog(name) == 1 || strings.HasPrefix(name, "MANIFEST-") {
			for _, at := range []int{0, len(data) / 2, len(data) - 1} {
				for _, isCut := range []bool{true, false} {
					damaged, what := injured(name, []byte(data), at, 3, isCut)
					copied := copyOf(fs)
					replace(t, copied, filepath.Join("data", name), damaged)
					checkRefused(t, copied, what, name)
					checked++
				}
			}
		}
	}
	if checked < 12 {
		t.Errorf("only %d damages were made", checked)
	}
}

// A log that has been damaged since it was written does not become a backup that lacks its end.
func TestDamagedStoreIsNotBackedUp(t *testing.T) {
	t.Parallel()
	h := history{padding: 3000}
	dir := t.TempDir()
	s := openAt(t, filepath.Join(dir, "store"), nil)
	defer s.Close()
	for k := 1; k <= 6; k++ {
		if _, _, err := h.write(t.Context(), s, k); err != nil {
			t.Fatal(err)
		}
	}
	logs, err := filepath.Glob(filepath.Join(dir, "store", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatal("there is no log", err)
	}
	f, err := os.OpenFile(logs[len(logs)-1], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("\xff\x00\xff\x00"), 30_000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(dir, "backup")
	if err := s.Backup(t.Context(), backup); err == nil || !strings.Contains(err.Error(), "the store is damaged") {
		t.Errorf("a backup of a damaged log gave %v", err)
	}
	if _, err := os.Stat(backup); !os.IsNotExist(err) {
		t.Errorf("it was left there, %v", err)
	}
}
