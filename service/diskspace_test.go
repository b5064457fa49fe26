package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// fakeDisk is a disk whose space the test sets, and what the guard made of it.
type fakeDisk struct {
	mu     sync.Mutex
	space  diskSpace
	err    error
	pauses []bool
	log    strings.Builder
}

func (d *fakeDisk) look(string) (diskSpace, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.space, d.err
}

func (d *fakeDisk) set(freeMiB int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space.free = freeMiB << 20
}

func (d *fakeDisk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *fakeDisk) guard(reserve int64) *diskGuard {
	return &diskGuard{
		dir: "/data/store", reserve: reserve, look: d.look,
		pause:  func(paused bool) { d.pauses = append(d.pauses, paused) },
		logger: slog.New(slog.NewTextHandler(&d.log, nil)),
	}
}

// run lets the guard look for as long as the test's clock says.
func (d *fakeDisk) run(t *testing.T, g *diskGuard) (look func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func() {
		<-time.After(2 * diskInterval)
		synctest.Wait()
	}
}

func TestDiskGuardRefusesBelowTheReserveAndGoesOnByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDisk{space: diskSpace{free: 50 << 30, size: 100 << 30}}
		g := d.guard(0)
		look := d.run(t, g)
		for _, step := range []struct {
			freeMiB int64
			refused bool
			why     string
		}{
			{51_200, false, "plenty"},
			{256, false, "as much as the reserve"},
			{255, true, "less than the reserve"},
			{0, true, "nothing"},
			{256, true, "the reserve, but not clearly more"},
			{319, true, "still not"},
			{320, false, "a quarter more than the reserve"},
			{256, false, "less, but the reserve is there"},
		} {
			d.set(step.freeMiB)
			look()
			if err := g.admit(); (err != nil) != step.refused {
				t.Errorf("with %d MiB free, %s, a submit gives %v", step.freeMiB, step.why, err)
			}
		}
		if len(d.pauses) != 2 || !d.pauses[0] || d.pauses[1] {
			t.Errorf("output was paused %v", d.pauses)
		}
		if out := d.log.String(); strings.Count(out, "level=WARN") != 1 || strings.Count(out, "has room again") != 1 {
			t.Errorf("the log says\n%s", out)
		}
	})
}

func TestDiskGuardSaysWhatToDo(t *testing.T) {
	t.Parallel()
	d := &fakeDisk{space: diskSpace{free: 12 << 20, size: 100 << 30}}
	g := d.guard(500 << 20)
	g.check()
	var refusal *job.Error
	if err := g.admit(); !errors.As(err, &refusal) || refusal.Code != job.CodeExhausted || refusal.RetryAfter <= 0 {
		t.Fatalf("a submit gives %+v", err)
	}
	for _, want := range []string{"/data/store", "12 MiB free", "500 MiB", "--disk-reserve"} {
		if !strings.Contains(refusal.Message, want) {
			t.Errorf("the refusal does not name %q: %s", want, refusal.Message)
		}
	}
	if free, reserve := g.state(); free != 12<<20 || reserve != 500<<20 {
		t.Errorf("the gauges show %d and %d", free, reserve)
	}
}

func TestDiskGuardKeepsATenthOfASmallDisk(t *testing.T) {
	t.Parallel()
	d := &fakeDisk{space: diskSpace{free: 7 << 20, size: 64 << 20}}
	g := d.guard(0)
	if g.check(); g.admit() != nil {
		t.Errorf("7 of 64 MiB free gives %v", g.admit())
	}
	d.set(6)
	if g.check(); g.admit() == nil {
		t.Error("6 of 64 MiB free are enough")
	}
}

// A file system that does not say how large it is, or fails to answer, must not stop the work.
func TestDiskGuardThatCannotSeeLetsEverythingPass(t *testing.T) {
	t.Parallel()
	d := &fakeDisk{space: diskSpace{free: 0, size: 0}}
	g := d.guard(0)
	if g.check(); g.admit() != nil {
		t.Errorf("a disk without a size gives %v", g.admit())
	}
	d.space.size = 100 << 30
	if g.check(); g.admit() == nil {
		t.Error("a full disk takes jobs")
	}
	d.fail(errors.New("stale handle"))
	g.check()
	if g.check(); g.admit() != nil {
		t.Errorf("a disk that does not answer gives %v", g.admit())
	}
	if n := strings.Count(d.log.String(), "cannot be watched"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	var none *diskGuard
	if err := none.run(t.Context()); err != nil || none.admit() != nil {
		t.Errorf("without a guard: %v", err)
	}
}

func TestDiskIsAsked(t *testing.T) {
	t.Parallel()
	space, err := lookAtDisk(t.TempDir())
	if err != nil || space.size <= 0 || space.free < 0 || space.free > space.size {
		t.Errorf("got %+v, %v", space, err)
	}
	if _, err := lookAtDisk("/no/such/folder"); err == nil || !strings.Contains(err.Error(), "/no/such/folder") {
		t.Errorf("a folder that is not there gives %v", err)
	}
}
