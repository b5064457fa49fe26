package service

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/service/job"
)

const (
	// diskInterval is how often the free space is looked at: often enough for output that arrives as fast as a disk writes.
	diskInterval = 250 * time.Millisecond
	// defaultDiskReserve is kept free, or of a small disk the share of one in smallDiskShare.
	defaultDiskReserve = 256 << 20
	smallDiskShare     = 10
	// diskRetryAfter is when a refused submit may be tried again.
	diskRetryAfter = 5 * time.Second
)

// diskSpace is what a file system has, in bytes.
type diskSpace struct{ free, size int64 }

// diskGuard watches the disk of the embedded store. When there is less free than the reserve, no new jobs and no output are
// taken in, so that the disk keeps room for what must go on: reports, cancels, and the removal of old jobs. A commit that
// finds no room at all stops the server, and it should not come that far.
type diskGuard struct {
	dir     string
	reserve int64 // 0: by the size of the disk
	look    func(dir string) (diskSpace, error)
	pause   func(paused bool) // of output
	logger  *slog.Logger

	blind   bool // the last look failed
	space   atomic.Pointer[diskSpace]
	limit   atomic.Int64              // the reserve in effect
	refusal atomic.Pointer[job.Error] // why no jobs are taken; nil: they are
}

// lookAtDisk asks the file system of a folder.
func lookAtDisk(dir string) (diskSpace, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return diskSpace{}, fmt.Errorf("asking for the free space of %s: %w", dir, err)
	}
	block := int64(s.Bsize) //nolint:unconvert // it has another type on other systems
	return diskSpace{free: int64(s.Bavail) * block, size: int64(s.Blocks) * block}, nil
}

// run looks at the disk until the context ends. A nil guard does nothing.
func (g *diskGuard) run(ctx context.Context) error {
	if g == nil {
		return nil
	}
	ticker := time.NewTicker(diskInterval)
	defer ticker.Stop()
	for {
		g.check()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// check looks once and does what follows from it. A disk that cannot be asked, or does not know its size, counts as one with
// room: then a write that fails is the first to tell.
func (g *diskGuard) check() {
	space, err := g.look(g.dir)
	if err != nil && !g.blind {
		g.logger.Warn("the free space of the disk cannot be watched", "error", err)
	}
	g.blind = err != nil
	if err != nil || space.size <= 0 {
		g.open(space)
		return
	}
	reserve := g.reserve
	if reserve == 0 {
		reserve = min(defaultDiskReserve, space.size/smallDiskShare)
	}
	g.space.Store(&space)
	g.limit.Store(reserve)
	enough := reserve
	if g.refusal.Load() != nil {
		enough += reserve / 4 // so that it does not go to and fro with every file that is removed
	}
	if space.free >= enough {
		g.open(space)
	} else {
		g.close(space, reserve)
	}
}

func (g *diskGuard) open(space diskSpace) {
	if g.refusal.Swap(nil) == nil {
		return
	}
	g.pause(false)
	g.logger.Info("the disk has room again; jobs and output are taken in", "folder", g.dir, "free_mib", space.free>>20)
}

func (g *diskGuard) close(space diskSpace, reserve int64) {
	refusal := &job.Error{
		Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: diskRetryAfter,
		Message: fmt.Sprintf("the server takes no new jobs: the disk of %s has %d MiB free, and %d MiB are kept in reserve; "+
			"free space there, or start the server with a smaller --disk-reserve", g.dir, space.free>>20, reserve>>20),
	}
	if g.refusal.Swap(refusal) != nil {
		return
	}
	g.pause(true)
	g.logger.Warn("the disk is nearly full: new jobs are refused and output waits with the agents until there is room",
		"folder", g.dir, "free_mib", space.free>>20, "reserve_mib", reserve>>20)
}

// admit returns why no new jobs are taken, nil when they are. A nil guard takes all.
func (g *diskGuard) admit() error {
	if g == nil {
		return nil
	}
	if refusal := g.refusal.Load(); refusal != nil {
		return refusal
	}
	return nil
}

// state returns what was seen last, zeros when nothing was.
func (g *diskGuard) state() (free, reserve int64) {
	if g == nil {
		return 0, 0
	}
	if space := g.space.Load(); space != nil {
		free = space.free
	}
	return free, g.limit.Load()
}
