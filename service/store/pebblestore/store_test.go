package pebblestore_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hodei-jobs/hodei/service/job"
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
	storetest.Run(t, storetest.Harness{
		Open: func(t *testing.T) store.Store {
			t.Helper()
			dir := t.TempDir()
			return dirStore{openAt(t, dir, nil), dir}
		},
		Reopen: func(t *testing.T, s store.Store) store.Store {
			t.Helper()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			d, ok := s.(dirStore)
			if !ok {
				t.Fatal("not a store of this harness")
			}
			return dirStore{openAt(t, d.dir, nil), d.dir}
		},
	})
}

// dirStore remembers where a store lies.
type dirStore struct {
	*pebblestore.Store
	dir string
}

func accepted(t *testing.T, n int) *job.Job {
	t.Helper()
	j, err := job.New(job.NewID(time.Unix(int64(n), 0), 0, 0), job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}, time.Unix(1, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	return &j
}

// After the loss of power at any moment, with none, some or all of what was not synced, every acknowledged fact is there.
func TestWhatWasAcknowledgedSurvivesTheLossOfPower(t *testing.T) {
	t.Parallel()
	const total = 150
	for _, kept := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("%d%% of unsynced data", kept), func(t *testing.T) {
			t.Parallel()
			fs := vfs.NewCrashableMem()
			s := openAt(t, "data", fs)
			var acknowledged atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				for n := 1; n <= total; n++ {
					j := accepted(t, n)
					chunk := store.Chunk{Ref: store.LogRef{Job: j.ID, Attempt: 1}, Stream: store.Stdout, Data: j.ID[:]}
					if s.Commit(t.Context(), &store.Batch{Accepted: []*job.Job{j}}) != nil || s.AppendLogs(t.Context(), []store.Chunk{chunk}, nil) != nil {
						t.Error("a write failed")
						return
					}
					acknowledged.Store(int64(n))
				}
			}()
			random := rand.New(rand.NewPCG(uint64(kept), 1))
			for range 10 {
				for target := min(acknowledged.Load()+random.Int64N(20), total); acknowledged.Load() < target; {
					runtime.Gosched()
				}
				before := acknowledged.Load()
				crashed := openAt(t, "data", fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: random}))
				for n := int64(1); n <= before; n++ {
					j := accepted(t, int(n))
					if _, err := crashed.Job(t.Context(), j.ID); err != nil {
						t.Fatalf("%d jobs were acknowledged and job %d is gone: %v", before, n, err)
					}
					if state, err := crashed.LogState(t.Context(), store.LogRef{Job: j.ID, Attempt: 1}); err != nil || state.Bytes != uint64(len(j.ID)) {
						t.Fatalf("%d jobs were acknowledged and the log of job %d is %+v, %v", before, n, state, err)
					}
				}
				if err := crashed.Close(); err != nil {
					t.Fatal(err)
				}
			}
			<-done
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
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
	s := openAt(t, "data", fs)
	if err := s.Commit(t.Context(), &store.Batch{Accepted: []*job.Job{accepted(t, 1)}}); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := s.Commit(t.Context(), &store.Batch{Accepted: []*job.Job{accepted(t, 2)}}); err == nil {
		t.Error("a commit whose sync failed was acknowledged")
	}
	<-s.Failed()
	broken.Store(false)
	if err := s.Commit(t.Context(), &store.Batch{Accepted: []*job.Job{accepted(t, 3)}}); err == nil {
		t.Error("a commit after a failed one was acknowledged")
	}
	if err := s.AppendLogs(t.Context(), []store.Chunk{{Ref: store.LogRef{Job: job.ID{1}, Attempt: 1}, Data: []byte("x")}}, nil); err == nil {
		t.Error("an append after a failed commit was acknowledged")
	}
	if _, err := s.Job(t.Context(), accepted(t, 1).ID); err != nil {
		t.Errorf("reading stopped as well: %v", err)
	}
}

func TestSecondOpenerIsToldWhoHasTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openAt(t, dir, nil)
	defer s.Close()
	if _, err := pebblestore.Open(dir, pebblestore.Options{}); err == nil || !strings.Contains(err.Error(), "in use by another hodei server") {
		t.Errorf("a second opener got %v", err)
	}
}

func TestNewerStoreIsRefused(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	if err := openAt(t, "data", fs).Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, fs, func(db *pebble.DB) error { return db.Set([]byte("F"), []byte{3}, pebble.Sync) })
	if _, err := pebblestore.Open("data", pebblestore.Options{FS: fs}); err == nil || !strings.Contains(err.Error(), "format") {
		t.Errorf("a newer store gave %v", err)
	}
}

// A record that cannot be read is set aside; it neither stops the boot nor hides the others.
func TestDamagedJobIsSetAside(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s := openAt(t, "data", fs)
	if err := s.Commit(t.Context(), &store.Batch{Accepted: []*job.Job{accepted(t, 1), accepted(t, 2), accepted(t, 3)}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damagedID := accepted(t, 2).ID
	edit(t, fs, func(db *pebble.DB) error {
		return db.Set(append(append([]byte{'J'}, damagedID[:]...), 'a'), []byte("garbage that is no spec"), pebble.Sync)
	})
	for _, want := range []int{1, 0} {
		s = openAt(t, "data", fs)
		seen := 0
		damaged, err := s.Unfinished(t.Context(), func(job.Job) error { seen++; return nil })
		if err != nil || damaged != want || seen != 2 {
			t.Errorf("%d jobs seen, %d damaged, %v; want 2 and %d", seen, damaged, err, want)
		}
		if list, err := s.ListJobs(t.Context(), store.Filter{}, job.ID{}, 10); err != nil || len(list) != 2 {
			t.Errorf("the list has %d jobs, %v", len(list), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func edit(t *testing.T, fs vfs.FS, change func(*pebble.DB) error) {
	t.Helper()
	db, err := pebble.Open("data", &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest})
	if err != nil {
		t.Fatal(err)
	}
	if err := change(db); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
