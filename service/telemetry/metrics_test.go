package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMetricNames holds the names and labels that dashboards and alerts rely on.
func TestMetricNames(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	m := newMetrics(t, tel, func(context.Context) (Snapshot, error) {
		return Snapshot{
			QueueSize: map[string]int64{"QUEUED": 4, "RUNNING": 0}, Agents: 2, DiskFree: 7 << 20, DiskReserve: 5 << 20,
			Workers: []WorkerLoad{
				{ID: "wkr_1", Name: "host", CPUMilli: 1500, MemoryBytes: 1 << 30, ReservedCPUMilli: 2000, ReservedMemBytes: 2 << 30},
				{ID: "wkr_2", Name: "host", CPUMilli: 7},
			},
		}, nil
	})
	m.JobsSubmitted(3)
	m.JobsSubmitted(2)
	m.JobsScheduled(4)
	m.JobsEnded("SUCCEEDED", "exit_code", 1)
	m.JobsEnded("FAILED", "exit_code", 1)
	m.JobsEnded("FAILED", "signal", 2)
	m.StaleReports(1)
	m.MeasurementsIgnored(2)
	m.LogBytes(4096)
	m.ConnectionRefused("address")
	m.ConnectionRefused("address")
	m.ConnectionRefused("waiting")
	m.CallRefused("identity")
	m.Commit(1500*time.Microsecond, 70)
	wantLines(t, scrape(t, tel),
		"# HELP hodei_jobs_submitted_total Jobs that were accepted.",
		"# TYPE hodei_jobs_submitted_total counter",
		"hodei_jobs_submitted_total 5",
		"hodei_jobs_scheduled_total 4",
		`hodei_jobs_completed_total{cause="exit_code",state="SUCCEEDED"} 1`,
		`hodei_jobs_completed_total{cause="exit_code",state="FAILED"} 1`,
		`hodei_jobs_completed_total{cause="signal",state="FAILED"} 2`,
		"hodei_stale_reports_total 1",
		"hodei_measurements_ignored_total 2",
		"hodei_log_bytes_total 4096",
		`hodei_connections_refused_total{reason="address"} 2`,
		`hodei_connections_refused_total{reason="waiting"} 1`,
		`hodei_calls_refused_total{reason="identity"} 1`,
		`hodei_commit_duration_seconds_bucket{le="0.001"} 0`,
		`hodei_commit_duration_seconds_bucket{le="0.002"} 1`,
		"hodei_commit_duration_seconds_sum 0.0015",
		`hodei_commit_batch_size_bucket{le="50"} 0`,
		`hodei_commit_batch_size_bucket{le="100"} 1`,
		"# TYPE hodei_queue_size gauge",
		`hodei_queue_size{state="QUEUED"} 4`,
		`hodei_queue_size{state="RUNNING"} 0`,
		"hodei_agents_active 2",
		"hodei_disk_free_bytes 7.340032e+06",
		"hodei_disk_reserve_bytes 5.24288e+06",
		`hodei_worker_cpu_used_milli{worker="host",worker_id="wkr_1"} 1500`,
		`hodei_worker_cpu_used_milli{worker="host",worker_id="wkr_2"} 7`,
		`hodei_worker_memory_used_bytes{worker="host",worker_id="wkr_1"} 1.073741824e+09`,
		`hodei_worker_cpu_reserved_milli{worker="host",worker_id="wkr_1"} 2000`,
		`hodei_worker_memory_reserved_bytes{worker="host",worker_id="wkr_1"} 2.147483648e+09`,
		`target_info{service_name="hodei",service_version="1.2.3"} 1`,
	)
}

// TestStrangeNames shows that whatever a worker calls itself, the scrape stays readable.
func TestStrangeNames(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	m := newMetrics(t, tel, func(context.Context) (Snapshot, error) {
		return Snapshot{Workers: []WorkerLoad{
			{ID: "1", Name: "a\"} 1\nhodei_agents_active 99"}, {ID: "2", Name: `\`}, {ID: "3", Name: "機"}, {ID: "4"}, {ID: "5", Name: "\xff"},
		}}, nil
	})
	m.JobsSubmitted(1)
	wantLines(t, scrape(t, tel),
		`hodei_worker_cpu_used_milli{worker="a\"} 1\nhodei_agents_active 99",worker_id="1"} 0`,
		`hodei_worker_cpu_used_milli{worker="\\",worker_id="2"} 0`,
		`hodei_worker_cpu_used_milli{worker="機",worker_id="3"} 0`,
		`hodei_worker_cpu_used_milli{worker="",worker_id="4"} 0`,
		"hodei_worker_cpu_used_milli{worker=\"\uFFFD\",worker_id=\"5\"} 0",
		"hodei_agents_active 0", "hodei_jobs_submitted_total 1",
	)
}

func TestGaugesForget(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	workers := []WorkerLoad{{ID: "wkr_1", Name: "a"}, {ID: "wkr_2", Name: "b"}}
	newMetrics(t, tel, func(context.Context) (Snapshot, error) { return Snapshot{Workers: workers}, nil })
	wantLines(t, scrape(t, tel), `hodei_worker_cpu_used_milli{worker="a",worker_id="wkr_1"} 0`)
	workers = workers[1:]
	body := scrape(t, tel)
	wantLines(t, body, `hodei_worker_cpu_used_milli{worker="b",worker_id="wkr_2"} 0`)
	if strings.Contains(body, `"wkr_1"`) {
		t.Error("a worker that left is still shown")
	}
}

func TestSnapshotFails(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	var problem error
	m := newMetrics(t, tel, func(context.Context) (Snapshot, error) { return Snapshot{Agents: 3}, problem })
	m.JobsSubmitted(1)
	wantLines(t, scrape(t, tel), "hodei_agents_active 3", "hodei_jobs_submitted_total 1")
	problem = errors.New("the server is stopping")
	body := scrape(t, tel)
	wantLines(t, body, "hodei_jobs_submitted_total 1")
	if strings.Contains(body, "\nhodei_agents_active 3") {
		t.Error("the gauge shows an old value as if it were new")
	}
}

// TestObserveLater makes the instruments before there is anything to show, as a server that starts does.
func TestObserveLater(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	m := newMetrics(t, tel, nil)
	m.JobsSubmitted(1)
	body := scrape(t, tel)
	wantLines(t, body, "hodei_jobs_submitted_total 1")
	if strings.Contains(body, "hodei_agents_active") {
		t.Error("a gauge shows something that nobody told it")
	}
	if err := m.Observe(func(context.Context) (Snapshot, error) { return Snapshot{Agents: 7}, nil }); err != nil {
		t.Fatal(err)
	}
	wantLines(t, scrape(t, tel), "hodei_agents_active 7")
}

// TestManyWorkers shows a large fleet: each worker must keep its own series.
func TestManyWorkers(t *testing.T) {
	t.Parallel()
	const fleet = 10_000
	tel := setup(t)
	workers := make([]WorkerLoad, fleet)
	for i := range workers {
		workers[i] = WorkerLoad{ID: fmt.Sprintf("wkr_%d", i), Name: "host"}
	}
	newMetrics(t, tel, func(context.Context) (Snapshot, error) { return Snapshot{Workers: workers}, nil })
	body := scrape(t, tel)
	if got := strings.Count(body, "\nhodei_worker_cpu_used_milli{"); got != fleet {
		t.Errorf("%d of %d workers are shown", got, fleet)
	}
	if strings.Contains(body, "overflow") {
		t.Error("workers are put together")
	}
}

func TestRecordingTogether(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	m := newMetrics(t, tel, func(context.Context) (Snapshot, error) { return Snapshot{}, nil })
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for i := range 1000 {
				m.JobsSubmitted(1)
				m.JobsEnded([]string{"SUCCEEDED", "FAILED"}[i%2], "exit_code", 1)
				m.Commit(time.Millisecond, 1)
			}
		})
	}
	for range 3 {
		scrape(t, tel)
	}
	group.Wait()
	wantLines(t, scrape(t, tel), "hodei_jobs_submitted_total 8000", "hodei_commit_batch_size_count 8000",
		`hodei_jobs_completed_total{cause="exit_code",state="SUCCEEDED"} 4000`,
		`hodei_jobs_completed_total{cause="exit_code",state="FAILED"} 4000`)
}

// TestRecordingMakesNoGarbage holds that the reactor may record with every job.
func TestRecordingMakesNoGarbage(t *testing.T) {
	m := newMetrics(t, setup(t), nil)
	allocations := testing.AllocsPerRun(1000, func() {
		m.JobsSubmitted(1)
		m.JobsScheduled(1)
		m.JobsEnded("SUCCEEDED", "exit_code", 1)
		m.StaleReports(1)
		m.LogBytes(1)
		m.Commit(time.Millisecond, 1)
	})
	if allocations != 0 {
		t.Errorf("recording one job allocates %v times", allocations)
	}
}
