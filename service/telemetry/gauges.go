package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Snapshot is what the gauges show.
type Snapshot struct {
	QueueSize map[string]int64 // unfinished jobs by the name of their state
	Agents    int64            // connected
	Workers   []WorkerLoad     // of those that are connected
	// DiskFree and DiskReserve are of the disk of the embedded store, in bytes; they are not shown when the reserve is zero.
	DiskFree, DiskReserve int64
}

// WorkerLoad is what one worker has in use.
type WorkerLoad struct {
	ID                                 string // tells workers of one name apart; may be empty
	Name                               string
	CPUMilli, MemoryBytes              int64 // measured on the machine
	ReservedCPUMilli, ReservedMemBytes int64
}

// SnapshotFunc says how things stand. It is called from any goroutine, also by an exporter before the first scrape and when
// the process ends, and must not wait for long. After an error the gauges show nothing; the other metrics stay.
type SnapshotFunc func(context.Context) (Snapshot, error)

// gauges are the instruments that are asked, not told.
type gauges struct {
	queueSize, agents, cpuUsed, memoryUsed, cpuReserved, memoryReserved, diskFree, diskReserve metric.Int64ObservableGauge
}

func newGauges(meter metric.Meter) (gauges, error) {
	var problems []error
	gauge := func(name, what string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithDescription(what))
		problems = append(problems, err)
		return g
	}
	return gauges{
		queueSize:      gauge("hodei.queue.size", "Unfinished jobs, by their state."),
		agents:         gauge("hodei.agents.active", "Agents that are connected."),
		cpuUsed:        gauge("hodei.worker.cpu.used.milli", "CPU in use on a worker's machine, in thousandths of a CPU."),
		memoryUsed:     gauge("hodei.worker.memory.used.bytes", "Memory in use on a worker's machine."),
		cpuReserved:    gauge("hodei.worker.cpu.reserved.milli", "CPU reserved on a worker, in thousandths of a CPU."),
		memoryReserved: gauge("hodei.worker.memory.reserved.bytes", "Memory reserved on a worker."),
		diskFree:       gauge("hodei.disk.free.bytes", "Free space on the disk of the store."),
		diskReserve:    gauge("hodei.disk.reserve.bytes", "Free space below which new jobs are refused and output waits."),
	}, errors.Join(problems...)
}

// Observe lets the gauges show what snapshot returns. Call it once, when all that snapshot needs is there.
func (m *Metrics) Observe(snapshot SnapshotFunc) error {
	g := m.gauges
	_, err := m.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		s, err := snapshot(ctx)
		if err != nil {
			return fmt.Errorf("the gauges show nothing: %w", err)
		}
		g.show(o, &s)
		return nil
	}, g.queueSize, g.agents, g.cpuUsed, g.memoryUsed, g.cpuReserved, g.memoryReserved, g.diskFree, g.diskReserve)
	return err
}

func (g *gauges) show(o metric.Observer, s *Snapshot) {
	for state, n := range s.QueueSize {
		o.ObserveInt64(g.queueSize, n, metric.WithAttributes(attribute.String("state", state)))
	}
	o.ObserveInt64(g.agents, s.Agents)
	if s.DiskReserve > 0 {
		o.ObserveInt64(g.diskFree, s.DiskFree)
		o.ObserveInt64(g.diskReserve, s.DiskReserve)
	}
	for i := range s.Workers {
		w := &s.Workers[i]
		name := strings.ToValidUTF8(w.Name, "\uFFFD") // Prometheus takes nothing else
		who := metric.WithAttributeSet(attribute.NewSet(attribute.String("worker", name), attribute.String("worker_id", w.ID)))
		o.ObserveInt64(g.cpuUsed, w.CPUMilli, who)
		o.ObserveInt64(g.memoryUsed, w.MemoryBytes, who)
		o.ObserveInt64(g.cpuReserved, w.ReservedCPUMilli, who)
		o.ObserveInt64(g.memoryReserved, w.ReservedMemBytes, who)
	}
}
