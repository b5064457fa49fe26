package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// LatencyResult is what Latency measured.
type LatencyResult struct {
	Store           string    `json:"store"`
	Count           int       `json:"count"`
	SubmitMillis    Quantiles `json:"submit_ms"`
	StartMillis     Quantiles `json:"start_ms"`      // from the call of submit to the start of a job that starts no process
	FirstByteMillis Quantiles `json:"first_byte_ms"` // from the call of submit to the first byte of "echo" in the client
	SpawnMillis     Quantiles `json:"spawn_ms"`      // the same without Hodei
	OverheadMillis  float64   `json:"overhead_p50_ms"`
	// IdleFsyncMillis is what an fsync costs when the machine does nothing else, timed in turn with the jobs. It is more than
	// one of many right after each other takes, which Limit has: processors and disk must be woken for it, as for a job.
	IdleFsyncMillis Quantiles `json:"idle_fsync_ms"`
	Limit           Limit     `json:"limit"`
	// StartLimit is what the goal allows for the start of a job: two fsyncs of an idle machine and 0.3 ms.
	StartLimit float64 `json:"start_limit_ms"`
}

// warmUp is how many rounds are not counted: the first ones open connections and fill caches.
const warmUp = 10

// Latency runs one job after the other on an idle server: one that starts no process, to see when it starts, and "echo", to
// see when its first byte arrives; and in turn with them what the machine takes for "echo" without Hodei and for one fsync.
func Latency(ctx context.Context, options Options) (*LatencyResult, error) {
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	for _, runner := range []string{"process", "none"} {
		if err := w.StartAgents(ctx, 1, "--runner", runner, "--label", "runner="+runner); err != nil {
			return nil, err
		}
	}
	c, err := w.Client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	disk, err := newProbe(options.Dir)
	if err != nil {
		return nil, err
	}
	defer disk.close()
	var submits, starts, firsts, bare, syncs []time.Duration
	for i := range options.Jobs + warmUp {
		start, err := timeStart(ctx, c)
		if err != nil {
			return nil, errors.Join(err, w.health())
		}
		submitted, first, err := timeOutput(ctx, c)
		if err != nil {
			return nil, errors.Join(err, w.health())
		}
		spawn, err := timeSpawn(ctx)
		if err != nil {
			return nil, err
		}
		synced, err := disk.fsync()
		if err != nil {
			return nil, err
		}
		if i >= warmUp {
			submits, starts, firsts = append(submits, submitted), append(starts, start), append(firsts, first)
			bare, syncs = append(bare, spawn), append(syncs, synced)
			report(options.Progress, i-warmUp, options.Jobs)
		}
	}
	r := &LatencyResult{
		Store: storeName(options), Count: options.Jobs, SubmitMillis: quantilesOf(submits), StartMillis: quantilesOf(starts),
		FirstByteMillis: quantilesOf(firsts), SpawnMillis: quantilesOf(bare), IdleFsyncMillis: quantilesOf(syncs),
	}
	r.OverheadMillis = r.FirstByteMillis.P50 - r.SpawnMillis.P50
	r.StartLimit = 2*r.IdleFsyncMillis.P50 + 0.3
	r.Limit, err = MeasureLimit(options)
	return r, err
}

// timeStart returns how long after the call of submit a job started. Client and agent have the same clock.
func timeStart(ctx context.Context, c *hodei.Client) (time.Duration, error) {
	begin := time.Now()
	job, err := c.Submit(ctx, onRunner(command("true"), "none"))
	if err == nil {
		job, err = c.Ended(ctx, job.GetId())
	}
	if err != nil {
		return 0, err
	}
	return job.GetStartTime().AsTime().Sub(begin), nil
}

// timeOutput returns when submit answered and when the first byte came, both from the call of submit.
func timeOutput(ctx context.Context, c *hodei.Client) (submitted, first time.Duration, err error) {
	begin := time.Now()
	job, err := c.Submit(ctx, onRunner(command("echo", "hello"), "process"))
	if err != nil {
		return 0, 0, err
	}
	submitted = time.Since(begin)
	var output bytes.Buffer
	_, err = c.ReadLogs(ctx, job.GetId(), hodei.LogOptions{Attempt: 1, Follow: true}, func(chunk *hodeiv1.LogChunk) error {
		if first == 0 {
			first = time.Since(begin)
		}
		output.Write(chunk.GetData())
		return nil
	})
	if err == nil && output.String() != "hello\n" {
		err = fmt.Errorf("job %s wrote %q instead of hello", job.GetId(), &output)
	}
	return submitted, first, err
}

func timeSpawn(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	cmd := exec.CommandContext(ctx, "echo", "hello")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		return 0, errors.Join(err, cmd.Wait())
	}
	return time.Since(begin), cmd.Wait()
}
