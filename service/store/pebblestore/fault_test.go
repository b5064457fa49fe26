package pebblestore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// faulty is a disk on which the operations that change something fail: the one with a number, or all from that one on.
type faulty struct {
	*errorfs.FS
	disk   *vfs.MemFS
	count  atomic.Int64
	healed atomic.Bool
	missed atomic.Value // the first operation that failed
}

func newFaulty(first int64, stays bool, err error) *faulty {
	f := &faulty{disk: vfs.NewCrashableMem()}
	f.FS = errorfs.Wrap(f.disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		// When Pebble cannot sync its folder, it ends the process, which is as safe and cannot be tested here.
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpFileClose || op.Kind == errorfs.OpFileSync && op.Path == "data" ||
			f.healed.Load() {
			return nil
		}
		if n := f.count.Add(1); n == first || stays && n > first {
			f.missed.CompareAndSwap(nil, fmt.Sprint(op.Kind, " ", op.Path))
			return &fs.PathError{Op: "write", Path: op.Path, Err: err}
		}
		return nil
	}))
	return f
}

func (f *faulty) crash(kept int, seed int64) vfs.FS {
	return f.disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: seeded(uint64(seed))})
}

const faultyCommits = 12

// live writes a history through two openings and returns what was acknowledged until the first failure, which is the
// store's, of its opening or of a write.
func (f *faulty) live(t *testing.T, h history) (committed, appended int, failure error) {
	t.Helper()
	for _, last := range []int{faultyCommits / 2, faultyCommits} {
		s, err := pebblestore.Open("data", pebblestore.Options{FS: f})
		if err != nil {
			return committed, appended, err
		}
		for k := committed + 1; k <= last; k++ {
			c, a, err := h.write(t.Context(), s, k)
			if c {
				committed = k
			}
			if a {
				appended = k
			}
			if err != nil {
				<-s.Failed()
				if err := s.Commit(t.Context(), h.batch(k+1)); err == nil {
					t.Error("a commit after a failed one was acknowledged")
				}
				if k > 1 && !c {
					if _, err := s.Job(t.Context(), jobID(2)); err != nil {
						t.Errorf("reading stopped as well: %v", err)
					}
				}
				_ = s.Close() // a store that has failed may say so once more
				return committed, appended, err
			}
		}
		if err := s.Close(); err != nil {
			return committed, appended, err
		}
	}
	return committed, appended, nil
}

// Whichever operation on the disk fails, once or from then on: what was acknowledged before is there when the disk works
// again, nothing is acknowledged that is not, the store says that it has failed, and its error is that of the disk.
func TestEveryFailureOfTheDisk(t *testing.T) {
	t.Parallel()
	h := history{padding: 30_000}
	healthy := newFaulty(0, false, nil)
	if _, _, err := healthy.live(t, h); err != nil {
		t.Fatal(err)
	}
	operations := healthy.count.Load()
	for name, kind := range map[string]struct {
		err   error
		stays bool
	}{"disk full": {syscall.ENOSPC, true}, "once": {syscall.EIO, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failures := 0
			for first := int64(1); first <= operations; first++ {
				f := newFaulty(first, kind.stays, kind.err)
				committed, appended := 0, 0
				var failure error
				done := make(chan struct{})
				go func() {
					defer close(done)
					committed, appended, failure = f.live(t, h)
				}()
				select {
				case <-done:
				case <-time.After(time.Minute):
					t.Fatalf("with operation %d failing the store hangs", first)
				}
				if failure != nil {
					failures++
				}
				if failure != nil && !errors.Is(failure, kind.err) && !strings.Contains(failure.Error(), kind.err.Error()) {
					t.Errorf("the error of operation %d says %q", first, failure)
				}
				kept := int(first%2) * 100
				s := openAt(t, "data", f.crash(kept, first))
				if err := h.checkAfterCrash(t.Context(), s, committed, appended); err != nil {
					t.Errorf("with %d%% of what was not synced: %.2000v", kept, err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				f.healed.Store(true) // what Pebble still tries comes to an end
				if t.Failed() {
					t.Fatalf("operation %d, %s, of %d", first, f.missed.Load(), operations)
				}
			}
			if failures < int(operations)/4 {
				t.Errorf("of %d operations only %d were missed", operations, failures)
			}
		})
	}
}

// What stands in the way of opening is said in words, with what to do.
func TestOpeningSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		kind errorfs.OpKind
		want string
	}{
		"no access to a file": {fs.ErrPermission, errorfs.OpCreate, "give the folder and all in it to that user"},
		"no access to list":   {syscall.EACCES, errorfs.OpList, "give the folder and all in it to that user"},
		"read-only":           {syscall.EPERM, errorfs.OpLock, "give the folder and all in it to that user"},
		"full":                {syscall.ENOSPC, errorfs.OpFileWrite, "make room"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				if op.Kind == c.kind {
					return &fs.PathError{Op: "open", Path: op.Path, Err: c.err}
				}
				return nil
			}))
			if _, err := pebblestore.Open("folder", pebblestore.Options{FS: disk}); err == nil || !strings.Contains(err.Error(), c.want) ||
				!strings.Contains(err.Error(), "folder") {
				t.Errorf("the error says %v, and not %q", err, c.want)
			}
		})
	}
}

func TestSecondOpenerIsToldWhoHasTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openAt(t, dir, nil)
	defer s.Close()
	_, err := pebblestore.Open(dir, pebblestore.Options{})
	if err == nil || !strings.Contains(err.Error(), "in use by another hodei server; stop it") {
		t.Errorf("a second opener got %v", err)
	}
	if _, _, err := (history{}).write(t.Context(), s, 1); err != nil {
		t.Errorf("the first one can no longer write: %v", err)
	}
}

// A write that fails is not acknowledged, and none after it: what is on the disk is unknown from then on.
func TestFailedSyncStopsAllWrites(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileSyncData {
			return errorfs.ErrInjected
		}
		return nil
	}))
	h := history{}
	s := openAt(t, "data", fs)
	if _, _, err := h.write(t.Context(), s, 1); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := s.Commit(t.Context(), h.batch(2)); err == nil {
		t.Error("a commit whose sync failed was acknowledged")
	}
	<-s.Failed()
	broken.Store(false)
	if err := s.Commit(t.Context(), h.batch(3)); err == nil {
		t.Error("a commit after a failed one was acknowledged")
	}
	if err := s.AppendLogs(t.Context(), outputOf(2), nil); err == nil {
		t.Error("an append after a failed commit was acknowledged")
	}
	if _, err := s.Lead(t.Context()); err == nil {
		t.Error("a term was given out after a failed commit")
	}
	if err := s.Backup(t.Context(), "backup"); err == nil {
		t.Error("a backup was made after a failed commit")
	}
	if _, err := s.Job(t.Context(), jobID(2)); err != nil {
		t.Errorf("reading stopped as well: %v", err)
	}
	_ = fmt.Sprint(s.Close()) // it may complain
}
