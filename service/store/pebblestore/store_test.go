package pebblestore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
	"github.com/hodei-jobs/hodei/service/store/storetest"
)

func openAt(t *testing.T, dir string, fs vfs.FS) *pebblestore.Store {
	t.Helper()
	s, err := pebblestore.Open(dir, pebblestore.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, harness(func(t *testing.T) folder { t.Helper(); return folder{dir: t.TempDir()} }))
}

// The model opens many stores, which is slow on a disk.
func TestModel(t *testing.T) {
	t.Parallel()
	storetest.Model(t, harness(func(*testing.T) folder { return folder{dir: "data", fs: vfs.NewMem()} }))
}

// A store of an earlier version is refused, and so is one of a later.
func TestStoreOfAnotherFormatIsRefused(t *testing.T) {
	t.Parallel()
	f := folder{"data", vfs.NewMem()}
	if err := openAt(t, f.dir, f.fs).Close(); err != nil {
		t.Fatal(err)
	}
	for _, format := range []byte{2, 3, 5} {
		edit(t, f, func(db *pebble.DB) error { return db.Set([]byte("F"), []byte{format}, pebble.Sync) })
		_, err := pebblestore.Open(f.dir, pebblestore.Options{FS: f.fs})
		if want := fmt.Sprintf("has format [%d] and this program reads format 4", format); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a store of format %d gave %v", format, err)
		}
	}
}

// folder is where a store lies.
type folder struct {
	dir string
	fs  vfs.FS
}

// placed is a store that knows where it lies.
type placed struct {
	*pebblestore.Store
	folder folder
}

func harness(newFolder func(t *testing.T) folder) storetest.Harness {
	open := func(t *testing.T, f folder) store.Store {
		t.Helper()
		return placed{openAt(t, f.dir, f.fs), f}
	}
	closed := func(t *testing.T, s store.Store) folder {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return where(t, s)
	}
	return storetest.Harness{
		Open: func(t *testing.T) store.Store { t.Helper(); return open(t, newFolder(t)) },
		Reopen: func(t *testing.T, s store.Store) store.Store {
			t.Helper()
			return open(t, closed(t, s))
		},
		Damage: func(t *testing.T, s store.Store, which storetest.Stored) store.Store {
			t.Helper()
			f := closed(t, s)
			edit(t, f, func(db *pebble.DB) error {
				key, err := keyOf(db, which)
				if err != nil {
					return err
				}
				if _, closer, err := db.Get(key); err != nil {
					return fmt.Errorf("there is no %+v: %w", which, err)
				} else if err := closer.Close(); err != nil {
					return err
				}
				return db.Set(key, []byte("\x63garbage"), pebble.Sync)
			})
			return open(t, f)
		},
		OpenSecond: func(t *testing.T, s store.Store) (store.Store, error) {
			t.Helper()
			f := where(t, s)
			second, err := pebblestore.Open(f.dir, pebblestore.Options{FS: f.fs})
			if err != nil {
				return nil, err
			}
			return placed{second, f}, nil
		},
	}
}

func where(t *testing.T, s store.Store) folder {
	t.Helper()
	p, ok := s.(placed)
	if !ok {
		t.Fatal("not a store of this harness")
	}
	return p.folder
}

// keyOf is where a record lies, by the layout in keys.go.
func keyOf(db *pebble.DB, which storetest.Stored) ([]byte, error) {
	logPart := func(part byte) []byte {
		return append(binary.BigEndian.AppendUint32(append([]byte{'L'}, which.Log.Job[:]...), uint32(which.Log.Attempt)), part)
	}
	switch which.Kind {
	case storetest.StoredSpec: // the job has a page of its own
		return append(append([]byte{'J'}, which.Job[:]...), 'a'), nil
	case storetest.StoredEnding:
		prefix := append(append([]byte{'J'}, which.Job[:]...), 'z')
		return find(db, 'J', func(key []byte) bool { return bytes.HasPrefix(key, prefix) })
	case storetest.StoredLogBlock:
		return binary.BigEndian.AppendUint64(logPart('c'), which.Offset), nil
	case storetest.StoredLogEnd:
		return logPart('e'), nil
	case storetest.StoredUnfinished:
		return find(db, 'h', func([]byte) bool { return true })
	case storetest.StoredRequest:
		return find(db, 'r', func(key []byte) bool { return bytes.HasSuffix(key, []byte(which.Request)) })
	}
	return nil, fmt.Errorf("kind %d is unknown", which.Kind)
}

// find returns the last key with a prefix that is wanted.
func find(db *pebble.DB, prefix byte, wanted func(key []byte) bool) (key []byte, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return nil, err
	}
	for ok := it.Last(); ok && key == nil; ok = it.Prev() {
		if wanted(it.Key()) {
			key = bytes.Clone(it.Key())
		}
	}
	return key, errors.Join(it.Error(), it.Close())
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// outputOf is what is appended after commit k.
func outputOf(k int) []store.LogBlock { return []store.LogBlock{output((k - 1) * blockSize)} }

// edit changes a store by Pebble alone, and has it taken as it is then.
func edit(t *testing.T, f folder, change func(*pebble.DB) error) {
	t.Helper()
	if f.fs == nil {
		f.fs = vfs.Default
	}
	db, err := pebble.Open(f.dir, &pebble.Options{FS: f.fs, Logger: quiet{}, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		t.Fatal(err)
	}
	if err := change(db); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	replace(t, f.fs, f.fs.PathJoin(f.dir, "SYNCED"), []byte("accept\n"))
}

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...)) //nolint:forbidigo // Pebble expects that it does not return
}
