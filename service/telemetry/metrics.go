package telemetry

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Metrics are the server's own measurements. Recording is cheap and may be done from any goroutine.
type Metrics struct {
	submitted, scheduled, completed, stale, logBytes metric.Int64Counter
	commitSeconds                                    metric.Float64Histogram
	commitJobs                                       metric.Int64Histogram

	queueSize, agents, cpuUsed, memoryUsed, cpuReserved, memoryReserved metric.Int64ObservableGauge
}

// Snapshot is what the gauges show.
type Snapshot struct {
	QueueSize map[string]int64 // unfinished jobs by the name of their state
	Agents    int64            // connected
	Workers   []WorkerLoad
}

// WorkerLoad is what one worker has in use.
type WorkerLoad struct {
	Name                               string
	CPUMilli, MemoryBytes              int64 // measured on the machine
	ReservedCPUMilli, ReservedMemBytes int64
}

// NewMetrics makes the instruments. snapshot is called whenever the gauges are read.
func (t *Telemetry) NewMetrics(snapshot func(context.Context) (Snapshot, error)) (*Metrics, error) {
	meter := t.Meters.Meter("hodei")
	var problems []error
	counter := func(name, what string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithDescription(what))
		problems = append(problems, err)
		return c
	}
	gauge := func(name, what string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithDescription(what))
		problems = append(problems, err)
		return g
	}
	m := &Metrics{
		submitted:      counter("hodei.jobs.submitted", "Jobs that were accepted."),
		scheduled:      counter("hodei.jobs.scheduled", "Attempts that were given to a worker."),
		completed:      counter("hodei.jobs.completed", "Jobs that ended, by their state and the cause."),
		stale:          counter("hodei.reports.stale", "Reports of agents about attempts that are no longer theirs."),
		logBytes:       counter("hodei.log.bytes", "Bytes of output that were stored."),
		queueSize:      gauge("hodei.queue.size", "Unfinished jobs, by their state."),
		agents:         gauge("hodei.agents.active", "Agents that are connected."),
		cpuUsed:        gauge("hodei.worker.cpu.used.milli", "CPU in use on a worker's machine, in thousandths of a CPU."),
		memoryUsed:     gauge("hodei.worker.memory.used.bytes", "Memory in use on a worker's machine."),
		cpuReserved:    gauge("hodei.worker.cpu.reserved.milli", "CPU reserved on a worker, in thousandths of a CPU."),
		memoryReserved: gauge("hodei.worker.memory.reserved.bytes", "Memory reserved on a worker."),
	}
	var err error
	m.commitSeconds, err = meter.Float64Histogram("hodei.commit.duration", metric.WithUnit("s"),
		metric.WithDescription("How long one turn of the reactor took, its commit included."),
		metric.WithExplicitBucketBoundaries(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1))
	problems = append(problems, err)
	m.commitJobs, err = meter.Int64Histogram("hodei.commit.jobs", metric.WithDescription("Jobs written by one commit."),
		metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 50, 100, 500, 1000, 5000))
	problems = append(problems, err)
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error { return m.observe(ctx, o, snapshot) },
		m.queueSize, m.agents, m.cpuUsed, m.memoryUsed, m.cpuReserved, m.memoryReserved)
	return m, errors.Join(append(problems, err)...)
}

func (m *Metrics) observe(ctx context.Context, o metric.Observer, snapshot func(context.Context) (Snapshot, error)) error {
	s, err := snapshot(ctx)
	if err != nil {
		return err
	}
	for state, n := range s.QueueSize {
		o.ObserveInt64(m.queueSize, n, metric.WithAttributes(attribute.String("state", state)))
	}
	o.ObserveInt64(m.agents, s.Agents)
	for _, w := range s.Workers {
		worker := metric.WithAttributes(attribute.String("worker", w.Name))
		o.ObserveInt64(m.cpuUsed, w.CPUMilli, worker)
		o.ObserveInt64(m.memoryUsed, w.MemoryBytes, worker)
		o.ObserveInt64(m.cpuReserved, w.ReservedCPUMilli, worker)
		o.ObserveInt64(m.memoryReserved, w.ReservedMemBytes, worker)
	}
	return nil
}

// JobsSubmitted counts accepted jobs.
func (m *Metrics) JobsSubmitted(n int) { m.submitted.Add(context.Background(), int64(n)) }

// JobsScheduled counts attempts that were given to a worker.
func (m *Metrics) JobsScheduled(n int) { m.scheduled.Add(context.Background(), int64(n)) }

// JobEnded counts a job that ended.
func (m *Metrics) JobEnded(state, cause string) {
	m.completed.Add(context.Background(), 1, metric.WithAttributes(attribute.String("state", state), attribute.String("cause", cause)))
}

// StaleReport counts a report that changed nothing.
func (m *Metrics) StaleReport() { m.stale.Add(context.Background(), 1) }

// LogBytes counts stored output.
func (m *Metrics) LogBytes(n int) { m.logBytes.Add(context.Background(), int64(n)) }

// Commit records one turn of the reactor that wrote something.
func (m *Metrics) Commit(d time.Duration, jobs int) {
	m.commitSeconds.Record(context.Background(), d.Seconds())
	m.commitJobs.Record(context.Background(), int64(jobs))
}
