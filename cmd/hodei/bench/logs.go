package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// LogsResult is what Logs measured.
type LogsResult struct {
	Store string `json:"store"`
	// IdleLatencyMillis is from the write of a line in the job, a process, to its arrival in a client that follows.
	IdleLatencyMillis Quantiles      `json:"idle_latency_ms"`
	Load              LogLoad        `json:"load"`
	Throughput        LogThroughput  `json:"throughput"`
	LineMillis        Quantiles      `json:"line_ms"`   // to read a page at a line near the end of a long log
	SearchMillis      Quantiles      `json:"search_ms"` // to find a rare word in all of it
	LongLogBytes      int64          `json:"long_log_bytes"`
	LongLogLines      int            `json:"long_log_lines"`
	StoredBytes       int64          `json:"stored_bytes"` // what the embedded store has on the disk for all logs of the run
	RawBytes          int64          `json:"raw_bytes"`    // what jobs wrote that is typical of builds, the long log
	StoreCost         float64        `json:"store_cost"`   // one over the other
	Mask              MaskThroughput `json:"mask"`
	MaskMBPerSecond   float64        `json:"mask_mb_per_second"` // with a hundred secrets, over the output of a build
	Limit             Limit          `json:"limit"`
}

// LogThroughput is how one job that writes as fast as it can gets through.
type LogThroughput struct {
	Bytes         int64   `json:"bytes"`
	MBPerSecond   float64 `json:"mb_per_second"` // until all of it is durable on the server
	AgentPeakRSS  int64   `json:"agent_peak_rss_bytes"`
	ServerPeakRSS int64   `json:"server_peak_rss_bytes"`
}

// LogOptions say how large the parts of Logs are.
type LogOptions struct {
	Streams        int           // jobs that write at the same time
	LinesPerMinute int           // of all together
	IdleLines      int           // that are timed one by one
	Throughput     time.Duration // for how long one job writes as fast as it can
	LongLines      int           // of the long log
}

// Logs measures how output gets from jobs to readers: one line at a time on an idle server, many jobs at once, one job as fast as it
// can, and how a long log is read.
func Logs(ctx context.Context, options Options, logs LogOptions) (*LogsResult, error) {
	r := &LogsResult{Store: storeName(options)}
	mask, err := measureMask()
	if err != nil {
		return nil, err
	}
	r.Mask, r.MaskMBPerSecond = mask, mask.HundredSecrets
	if err := measureIdleAndLong(ctx, options, logs, r); err != nil {
		return nil, err
	}
	if r.Load, err = measureLogLoad(ctx, options, logs); err != nil {
		return nil, err
	}
	if r.Throughput, err = measureThroughput(ctx, options, logs.Throughput); err != nil {
		return nil, err
	}
	r.Limit, err = MeasureLimit(options)
	return r, err
}

// measureIdleAndLong uses a world of its own, so that what its store has on the disk is that of these logs.
func measureIdleAndLong(ctx context.Context, options Options, logs LogOptions, r *LogsResult) error {
	w, c, err := openLogWorld(ctx, options)
	if err != nil {
		return err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	defer c.Close()
	if r.IdleLatencyMillis, err = idleLatency(ctx, c, options.Program, logs.IdleLines); err != nil {
		return errors.Join(err, w.health())
	}
	id, err := longLog(ctx, c, options.Program, logs.LongLines, r)
	if err != nil {
		return errors.Join(err, w.health())
	}
	if r.LineMillis, err = timed(20, func() error { return readLine(ctx, c, id, logs.LongLines) }); err != nil {
		return err
	}
	rare := "module" + strconv.Itoa((logs.LongLines-7)%77) + "/file_" + strconv.FormatUint(uint64(logs.LongLines-7)*2654435761%1_000_003, 36) + "."
	if r.SearchMillis, err = timed(5, func() error { return search(ctx, c, id, rare) }); err != nil {
		return err
	}
	if r.StoredBytes, err = w.storedBytes(); err != nil {
		return err
	}
	r.RawBytes = r.LongLogBytes
	r.StoreCost = float64(r.StoredBytes) / float64(r.RawBytes)
	return nil
}

// openLogWorld starts a server, an agent that runs processes, and a client.
func openLogWorld(ctx context.Context, options Options) (*World, *hodei.Client, error) {
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	err = w.StartAgents(ctx, 1)
	var c *hodei.Client
	if err == nil {
		c, err = w.Client()
	}
	if err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	return w, c, nil
}

// idleLatency follows a job that writes a line now and then.
func idleLatency(ctx context.Context, c *hodei.Client, program string, lines int) (Quantiles, error) {
	job, err := c.Submit(ctx, command(program, "bench", "lines", "--pause", "15ms", strconv.Itoa(lines+warmUp)))
	if err != nil {
		return Quantiles{}, err
	}
	check := newLineCheck()
	if _, err := c.ReadLogs(ctx, job.GetId(), hodei.LogOptions{Attempt: 1, Follow: true}, check.take); err != nil {
		return Quantiles{}, err
	}
	if !check.exact {
		return Quantiles{}, fmt.Errorf("the output of job %s is not what it wrote", job.GetId())
	}
	return quantilesOf(check.delays[min(warmUp, len(check.delays)):]), nil
}

// lineCheck takes the output of WriteLines: how late each line is, and whether all of it is there.
type lineCheck struct {
	mu     sync.Mutex // held by whoever looks while output comes
	delays []time.Duration
	bytes  int64
	exact  bool // the hash that the job wrote at the end is that of all before

	rest []byte
	hash interface {
		Write(p []byte) (int, error)
		Sum(b []byte) []byte
	}
}

func newLineCheck() *lineCheck { return &lineCheck{hash: sha256.New()} }

func (l *lineCheck) take(chunk *hodeiv1.LogChunk) error {
	now := time.Now().UnixNano()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bytes += int64(len(chunk.GetData()))
	l.rest = append(l.rest, chunk.GetData()...)
	for {
		end := bytes.IndexByte(l.rest, '\n')
		if end < 0 {
			return nil
		}
		line := l.rest[:end+1]
		if sum, last := bytes.CutPrefix(line, []byte("sha256 ")); last {
			l.exact = string(bytes.TrimSpace(sum)) == hex.EncodeToString(l.hash.Sum(nil))
		} else {
			l.exact = false
			_, _ = l.hash.Write(line) // never fails
			written, _, _ := bytes.Cut(line, []byte(" "))
			if at, err := strconv.ParseInt(string(written), 10, 64); err == nil {
				l.delays = append(l.delays, time.Duration(now-at))
			}
		}
		l.rest = l.rest[end+1:]
		if len(l.rest) == 0 {
			l.rest = nil
		}
	}
}

// longLog runs a job that writes a long log, and returns its id.
func longLog(ctx context.Context, c *hodei.Client, program string, lines int, r *LogsResult) (string, error) {
	job, err := c.Submit(ctx, command(program, "bench", "lines", strconv.Itoa(lines)))
	if err != nil {
		return "", err
	}
	check := newLineCheck()
	completeness, err := c.ReadLogs(ctx, job.GetId(), hodei.LogOptions{Attempt: 1, Follow: true}, check.take)
	if err != nil {
		return "", err
	}
	if !check.exact || completeness.GetState() != hodeiv1.LogState_LOG_STATE_COMPLETE {
		return "", fmt.Errorf("the log of job %s is not what it wrote, or is %v", job.GetId(), completeness)
	}
	r.LongLogBytes, r.LongLogLines = check.bytes, lines+1
	return job.GetId(), nil
}

// timed runs a call a few times, once more to warm up.
func timed(times int, call func() error) (Quantiles, error) {
	var took []time.Duration
	for i := range times + 1 {
		begin := time.Now()
		if err := call(); err != nil {
			return Quantiles{}, err
		}
		if i > 0 {
			took = append(took, time.Since(begin))
		}
	}
	return quantilesOf(took), nil
}

// errEnough ends the reading of a log.
var errEnough = errors.New("that is enough")

// readLine reads from nine tenths of a log on, until a page is there.
func readLine(ctx context.Context, c *hodei.Client, id string, lines int) error {
	line := lines / 10 * 9
	var got []byte
	_, err := c.ReadLogs(ctx, id, hodei.LogOptions{Attempt: 1, Line: int64(line) + 1}, func(chunk *hodeiv1.LogChunk) error {
		if got = append(got, chunk.GetData()...); bytes.Count(got, []byte("\n")) > 100 {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	first, _, _ := bytes.Cut(got, []byte("\n"))
	if fields := bytes.Fields(first); len(fields) < 2 || string(fields[1]) != strconv.Itoa(line) {
		return fmt.Errorf("line %d of job %s is %q", line, id, first)
	}
	return nil
}

func search(ctx context.Context, c *hodei.Client, id, text string) error {
	found, err := c.SearchLogs(ctx, &hodeiv1.SearchLogsRequest{JobId: id, Query: &hodeiv1.SearchLogsRequest_Text{Text: text}})
	if err == nil && len(found.GetMatches()) == 0 {
		return fmt.Errorf("%q was not found in the log of job %s", text, id)
	}
	return err
}

// storedBytes ends the server in good order and returns what its embedded store takes on the disk; 0 for another store.
func (w *World) storedBytes() (int64, error) {
	if w.options.Store != "" && w.options.Store != "pebble" {
		return 0, nil
	}
	if err := w.server.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	<-w.server.exited
	var sum int64
	err := filepath.WalkDir(filepath.Join(w.dir, "server", "store"), func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	return sum, err
}

// measureThroughput runs one job that writes as fast as it can.
func measureThroughput(ctx context.Context, options Options, d time.Duration) (LogThroughput, error) {
	var r LogThroughput
	w, c, err := openLogWorld(ctx, options)
	if err != nil {
		return r, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	defer c.Close()
	job, err := c.Submit(ctx, command("timeout", strconv.Itoa(max(int(d.Seconds()), 1)), "yes"))
	if err != nil {
		return r, err
	}
	if job, err = c.Ended(ctx, job.GetId()); err != nil {
		return r, err
	}
	end, err := c.ReadLogs(ctx, job.GetId(), hodei.LogOptions{Attempt: 1, Offset: farBehind, Follow: true}, func(*hodeiv1.LogChunk) error { return nil })
	if err != nil {
		return r, errors.Join(err, w.health())
	}
	took := time.Since(job.GetStartTime().AsTime())
	if end.GetState() != hodeiv1.LogState_LOG_STATE_COMPLETE || len(end.GetStreams()) != 1 {
		return r, fmt.Errorf("the log of job %s is %v", job.GetId(), end)
	}
	if r.Bytes, err = strconv.ParseInt(end.GetStreams()[0].GetBytes(), 10, 64); err != nil {
		return r, err
	}
	r.MBPerSecond = float64(r.Bytes) / took.Seconds() / 1e6
	server, err := usageOf(w.server.pid())
	if err != nil {
		return r, err
	}
	agent, err := usageOf(w.agents[0].pid())
	r.ServerPeakRSS, r.AgentPeakRSS = server.peakRSS, agent.peakRSS
	return r, err
}

// farBehind is behind the end of every log.
const farBehind = "1000000000000000000"
