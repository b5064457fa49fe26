package pebblestore_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// crash is a disk as it was when the power failed, and what had been acknowledged until then.
type crash struct {
	disk                vfs.FS
	committed, appended int
}

// After the loss of power at any moment (before any operation on the disk, also while the store is opened or closed), with
// none, some or all of what was not synced, every acknowledged fact is there and exact, and of the batch that was being
// written there is all or nothing.
func TestWhatWasAcknowledgedSurvivesTheLossOfPower(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kept    int
		isSmall bool // tables and logs are, so that they come and go
	}{{0, false}, {50, false}, {100, false}, {0, true}, {50, true}, {100, true}} {
		t.Run(fmt.Sprintf("%d%% of unsynced data, small: %v", c.kept, c.isSmall), func(t *testing.T) {
			t.Parallel()
			h := history{padding: 7000}
			if c.isSmall {
				h.padding = 20_000
			}
			crashes, reused := crashesOf(t, h, c.kept, c.isSmall)
			if len(crashes) < 5 { // by the number of operations alone, which differs a little
				t.Errorf("there were only %d crashes", len(crashes))
			}
			if c.isSmall && reused == 0 {
				t.Error("no file of the log was used again")
			}
			for _, c := range crashes {
				s := openAt(t, "data", c.disk)
				if err := h.checkAfterCrash(t.Context(), s, c.committed, c.appended); err != nil {
					t.Fatalf("after %d commits: %.2000v", c.committed, err)
				}
				k, err := h.last(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := h.write(t.Context(), s, k+1); err != nil { // and it goes on from there
					t.Fatal(err)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// crashesOf writes a history and lets the power fail now and then. It returns also how many files of the log were used again.
func crashesOf(t *testing.T, h history, kept int, isSmall bool) (crashes []crash, reused int) {
	t.Helper()
	const rounds, perRound = 3, 25
	seldom := 40
	options := pebblestore.Options{}
	if isSmall {
		seldom = 80
		options = pebblestore.WithSmallTables(options)
	}
	disk := vfs.NewCrashableMem()
	var committed, appended atomic.Int64
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(uint64(kept), 1))
	left := seldom // operations until the next one
	fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == errorfs.OpReuseForWrite {
			reused++
		}
		if left--; left == 0 {
			left = 1 + random.IntN(2*seldom)
			// What is acknowledged from here on may be on the disk or not.
			c := crash{committed: int(committed.Load()), appended: int(appended.Load())}
			c.disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: kept, RNG: random})
			crashes = append(crashes, c)
		}
		return nil
	}))
	options.FS = fs
	for round := range rounds {
		s, err := pebblestore.Open("data", options)
		if err != nil {
			t.Fatal(err)
		}
		for k := round*perRound + 1; k <= (round+1)*perRound; k++ {
			if err := s.Commit(t.Context(), h.batch(k)); err != nil {
				t.Fatal(err)
			}
			committed.Store(int64(k))
			if _, err := appendOutput(t.Context(), s, k); err != nil {
				t.Fatal(err)
			}
			appended.Store(int64(k))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return crashes, reused
}
