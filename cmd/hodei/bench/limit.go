package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Limit is what the machine itself can do, measured in the same run and on the same disk.
type Limit struct {
	FsyncP50Micros     float64 `json:"fsync_p50_us"` // 4 KiB appended and made durable
	FsyncP99Micros     float64 `json:"fsync_p99_us"`
	SpawnsPerSecond    float64 `json:"spawns_per_second,omitempty"`      // of trueProgram, without Hodei
	RoundTrips         float64 `json:"round_trips_per_second,omitempty"` // over as many TLS connections, the mean of before and after
	StoreJobsPerSecond float64 `json:"store_jobs_per_second,omitempty"`  // the store alone, in this process, without anything before it
}

// limitTime is how long a limit that is a rate is measured, each time.
const limitTime = 2 * time.Second

// MeasureLimit measures the disk.
func MeasureLimit(options Options) (Limit, error) {
	var l Limit
	took, err := fsyncs(options.Dir, 500)
	if err != nil {
		return l, err
	}
	l.FsyncP50Micros, l.FsyncP99Micros = micros(took, 0.50), micros(took, 0.99)
	return l, err
}

// limitJobs is how many jobs the store alone takes to be measured as a limit.
const limitJobs = 300_000

// measureStore adds what the store alone can do.
func (l *Limit) measureStore(ctx context.Context, options Options) error {
	options.Jobs = limitJobs
	r, err := Store(ctx, options)
	if err == nil {
		l.StoreJobsPerSecond = r.JobsPerSecond
	}
	return err
}

// fsyncs times appends of 4 KiB that are made durable, one right after the other.
func fsyncs(dir string, n int) ([]time.Duration, error) {
	p, err := newProbe(dir)
	if err != nil {
		return nil, err
	}
	defer p.close()
	took := make([]time.Duration, 0, n)
	for range n {
		d, err := p.fsync()
		if err != nil {
			return nil, err
		}
		took = append(took, d)
	}
	return took, nil
}

// probe is a file that shows what it costs to make data durable on a disk.
type probe struct {
	dir   string
	file  *os.File
	block [4096]byte
}

// newProbe makes a probe in a folder of its own below dir. It must be closed.
func newProbe(dir string) (*probe, error) {
	temp, err := os.MkdirTemp(dir, "hodei-fsync-")
	if err != nil {
		return nil, err
	}
	file, err := os.Create(filepath.Join(temp, "probe"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(temp))
	}
	return &probe{dir: temp, file: file}, nil
}

// fsync appends 4 KiB, makes them durable, and returns how long that took.
func (p *probe) fsync() (time.Duration, error) {
	begin := time.Now()
	if _, err := p.file.Write(p.block[:]); err != nil {
		return 0, err
	}
	err := syscall.Fdatasync(int(p.file.Fd()))
	return time.Since(begin), err
}

func (p *probe) close() {
	p.file.Close()      //nolint:errcheck // a probe's file
	os.RemoveAll(p.dir) //nolint:errcheck // a probe's file
}

// micros returns a quantile in microseconds.
func micros(d []time.Duration, q float64) float64 {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return float64(sorted[min(int(q*float64(len(d))), len(d)-1)].Nanoseconds()) / 1000
}
