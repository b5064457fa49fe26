package pebblestore

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// WithSmallTables returns options with which logs and tables are soon full.
func WithSmallTables(options Options) Options {
	options.memTableBytes = 256 << 10
	return options
}

// MakeNoteNewer turns the note in a file into one of a version that this program does not know.
func MakeNoteNewer(t *testing.T, disk vfs.FS, name string) {
	t.Helper()
	raw, err := readFile(disk, name)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < marksAt; at += pageBytes {
		page := raw[at : at+pageBytes]
		if size := int(uint32(page[8])<<24 | uint32(page[9])<<16 | uint32(page[10])<<8 | uint32(page[11])); size > 0 {
			page[7] = noteVersion + 1
			sealed(page[:size])
		}
	}
	if err := writeFile(disk, name, raw); err != nil {
		t.Fatal(err)
	}
}

// sectors is a file of which a loss of power keeps any sectors that were written since the last sync, or pieces of them, and of
// which a kill keeps everything, but perhaps the end of the last write.
type sectors struct {
	vfs.File
	synced, written []byte
	before          []byte // the last write
	syncing         func() // called in the middle of a sync
}

func (f *sectors) WriteAt(p []byte, at int64) (int, error) {
	f.before = bytes.Clone(f.written)
	return copy(f.written[at:], p), nil
}

func (f *sectors) SyncData() error {
	if f.syncing != nil {
		f.syncing()
	}
	f.synced = bytes.Clone(f.written)
	return nil
}

func (f *sectors) Close() error { return nil }

// unplugged is the file after a loss of power.
func (f *sectors) unplugged(random *rand.Rand) []byte {
	out := bytes.Clone(f.synced)
	keep := random.IntN(101)
	for at := 0; at < len(out); at += sectorBytes {
		if random.IntN(100) < keep {
			copy(out[at:at+random.IntN(sectorBytes+1)], f.written[at:])
		}
		if random.IntN(100) < keep {
			copy(out[at:at+sectorBytes], f.written[at:])
		}
	}
	return out
}

// interrupted is the file when the last write came to its beginning only.
func (f *sectors) interrupted(random *rand.Rand) []byte {
	out := bytes.Clone(f.before)
	copy(out[:random.IntN(len(out))], f.written)
	return out
}

// Whatever happens to logs and lists of tables, and whenever the power fails, in the middle of writing the note too: what can be
// read of it was true of what was synced, and it speaks of no log that was forgotten. When the process is killed it is exact, and in
// the middle of a write it is what it was before.
func TestNoteIsTrueAfterAnyCrash(t *testing.T) {
	t.Parallel()
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		f := &sectors{synced: make([]byte, noteBytes), written: make([]byte, noteBytes)}
		n := &note{file: f}
		if err := n.change(func() {}); err != nil {
			t.Fatal(err)
		}
		w := world{durable: make(map[string]int64), random: random, note: n, log: 1, manifest: 1}
		f.syncing = func() {
			w.read(t, f.unplugged(random), seed)
			if random.IntN(2) == 0 { // a commit meanwhile
				if err := w.commit(); err != nil {
					t.Fatal(err)
				}
				w.read(t, f.unplugged(random), seed)
			}
		}
		for range 120 {
			before := maps.Clone(w.durable)
			f.before = bytes.Clone(f.written)
			if err := w.step(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			w.read(t, f.unplugged(random), seed)
			read := w.read(t, f.interrupted(random), seed)
			for name, length := range before {
				if w.durable[name] > 0 && read[name] < length {
					t.Fatalf("seed %d: a kill in the middle of a write took %s from %d to %d bytes", seed, name, length, read[name])
				}
			}
			if read = w.read(t, f.written, seed); !maps.Equal(read, w.durable) {
				t.Fatalf("seed %d: after a kill the note has %v instead of %v", seed, read, w.durable)
			}
		}
	}
}

// world is what a note should say.
type world struct {
	random        *rand.Rand
	note          *note
	durable       map[string]int64
	log, manifest uint64
	length        int64
}

// step does one of the things of which a note is told.
func (w *world) step() error {
	switch w.random.IntN(6) {
	case 0: // the next log
		w.log++
		w.length = 0
		return w.note.logClosed(w.log - 1)
	case 1: // a closed log is removed
		gone := 1 + w.random.Uint64N(w.log)
		if gone == w.log {
			return nil
		}
		if err := w.note.forget(gone); err != nil {
			return err
		}
		delete(w.durable, listed{kind: kindLog, number: gone}.name())
		return nil
	case 2:
		old := listed{kind: kindManifest, number: w.manifest}.name()
		if w.random.IntN(4) == 0 {
			delete(w.durable, listed{kind: kindManifest, number: w.manifest - 1}.name())
			w.manifest++
		}
		name := listed{kind: kindManifest, number: w.manifest}.name()
		w.durable[name] = w.durable[old] + 1
		return w.note.manifestSynced(w.manifest, extent{length: w.durable[name]})
	default:
		return w.commit()
	}
}

func (w *world) commit() error {
	w.length += 1 + w.random.Int64N(100)
	w.durable[listed{kind: kindLog, number: w.log}.name()] = w.length
	return w.note.logSynced(w.log, extent{length: w.length})
}

// read returns what a note says, after checking that all of it is true.
func (w *world) read(t *testing.T, raw []byte, seed uint64) map[string]int64 {
	t.Helper()
	var n note
	if err := n.decode(raw); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	said := make(map[string]int64)
	for _, l := range append(n.files, n.log) {
		if l.length == 0 {
			continue
		}
		said[l.name()] = max(said[l.name()], l.length)
		// A list of tables that is no more is none that the marker names.
		if have := w.durable[l.name()]; l.length > have && (l.kind == kindLog || have > 0) {
			t.Fatalf("seed %d: the note has %d bytes of %s, of which %d are durable", seed, l.length, l.name(), have)
		}
	}
	return said
}

// More files than a list can hold are no reason to fail; the newest stay.
func TestNoteOfManyFiles(t *testing.T) {
	t.Parallel()
	f := &sectors{written: make([]byte, noteBytes)}
	n := &note{file: f}
	if err := n.manifestSynced(7, extent{length: 1}); err != nil {
		t.Fatal(err)
	}
	const logs = 2 * maxFiles
	for number := uint64(10); number < 10+logs; number++ {
		for _, step := range []error{n.logSynced(number, extent{length: 1}), n.logClosed(number)} {
			if step != nil {
				t.Fatal(step)
			}
		}
	}
	var read note
	if err := read.decode(f.written); err != nil {
		t.Fatal(err)
	}
	if len(read.files) != maxFiles || read.files[0].kind != kindManifest || read.files[1].number != 9+logs {
		t.Errorf("the note has %d files, the first %v", len(read.files), read.files[:2])
	}
}

// What a commit costs more because of the note takes no memory.
func TestNotingACommitAllocatesNothing(t *testing.T) {
	s, f := notedLog(t)
	p := make([]byte, 300)
	allocated := testing.AllocsPerRun(1000, func() {
		if _, err := f.Write(p); err != nil {
			t.Error(err)
		}
		if err := f.SyncData(); err != nil {
			t.Error(err)
		}
	})
	if allocated != 0 {
		t.Errorf("a commit allocates %v times", allocated)
	}
	if err := s.failed.Load(); err != nil {
		t.Error(*err)
	}
}

// fast is a file that takes everything at once.
type fast struct{ vfs.File }

func (fast) Write(p []byte) (int, error) { return len(p), nil }
func (fast) SyncData() error             { return nil }

// notedLog is a log that costs nothing, with a note on the disk.
func notedLog(t testing.TB) (*Store, *logFile) {
	t.Helper()
	name := filepath.Join(t.TempDir(), noteName)
	if err := os.WriteFile(name, make([]byte, noteBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := vfs.Default.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := &Store{note: &note{file: f, lock: io.NopCloser(nil)}, broken: make(chan struct{})}
	return s, &logFile{File: fast{}, store: s, number: 1}
}

// What the note costs a commit of some jobs of 300 bytes: the checksum and one write of 44 bytes.
func BenchmarkNote(b *testing.B) {
	for _, jobs := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(jobs), func(b *testing.B) {
			_, f := notedLog(b)
			p := make([]byte, 300*jobs)
			b.ReportAllocs()
			for b.Loop() {
				for rest := p; len(rest) > 0; rest = rest[min(len(rest), 32<<10):] { // as Pebble writes
					_, _ = f.Write(rest[:min(len(rest), 32<<10)])
				}
				_ = f.SyncData()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(jobs), "ns/job")
		})
	}
}
