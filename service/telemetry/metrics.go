package telemetry

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Metrics are the server's own measurements. Recording is cheap and may be done from any goroutine.
type Metrics struct {
	meter                                                     metric.Meter
	submitted, scheduled, completed, stale, ignored, logBytes metric.Int64Counter
	outputRefused, connectionsRefused, callsRefused, alarms   metric.Int64Counter
	commitSeconds                                             metric.Float64Histogram
	commitJobs                                                metric.Int64Histogram
	gauges                                                    gauges
	ends                                                      sync.Map // from end to []metric.AddOption, made at an end's first use
}

// end is a way for a job to end; there are a few dozen.
type end struct{ state, cause string }

// NewMetrics makes the instruments. snapshot is called whenever the gauges are read; nil: they show nothing until Observe.
func (t *Telemetry) NewMetrics(snapshot SnapshotFunc) (*Metrics, error) {
	m := &Metrics{meter: t.Meters.Meter("hodei")}
	var problems []error
	counter := func(name, what string) metric.Int64Counter {
		c, err := m.meter.Int64Counter(name, metric.WithDescription(what))
		problems = append(problems, err)
		return c
	}
	m.submitted = counter("hodei.jobs.submitted", "Jobs that were accepted.")
	m.scheduled = counter("hodei.jobs.scheduled", "Attempts that were given to a worker.")
	m.completed = counter("hodei.jobs.completed", "Jobs that ended, by their state and the cause.")
	m.stale = counter("hodei.stale.reports", "Reports of agents about attempts that are no longer theirs.")
	m.ignored = counter("hodei.measurements.ignored", "Measurements of workers' machines that cannot be true.")
	m.outputRefused = counter("hodei.output.refused", "Pieces of output that agents sent for attempts that are not theirs.")
	m.alarms = counter("hodei.alarms", "What an operator must look at, by its kind.")
	m.connectionsRefused = counter("hodei.connections.refused", "Connections that were refused or came to nothing, by the reason.")
	m.callsRefused = counter("hodei.calls.refused", "Calls that were refused because there were too many, by whose limit it was.")
	m.logBytes = counter("hodei.log.bytes", "Bytes of output that were stored.")
	var err error
	m.commitSeconds, err = m.meter.Float64Histogram("hodei.commit.duration", metric.WithUnit("s"),
		metric.WithDescription("How long one turn of the reactor took, its commit included."),
		metric.WithExplicitBucketBoundaries(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1))
	problems = append(problems, err)
	m.commitJobs, err = m.meter.Int64Histogram("hodei.commit.batch.size", metric.WithDescription("Jobs written by one commit."),
		metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 50, 100, 500, 1000, 5000))
	problems = append(problems, err)
	m.gauges, err = newGauges(m.meter)
	problems = append(problems, err)
	if snapshot != nil {
		problems = append(problems, m.Observe(snapshot))
	}
	return m, errors.Join(problems...)
}

// JobsSubmitted counts accepted jobs.
func (m *Metrics) JobsSubmitted(n int) { m.submitted.Add(context.Background(), int64(n)) }

// JobsScheduled counts attempts that were given to a worker.
func (m *Metrics) JobsScheduled(n int) { m.scheduled.Add(context.Background(), int64(n)) }

// JobsEnded counts jobs that ended alike. Both words are names that the domain gives, never text from outside.
func (m *Metrics) JobsEnded(state, cause string, n int) {
	key := end{state, cause}
	options, ok := m.ends.Load(key)
	if !ok {
		set := attribute.NewSet(attribute.String("state", state), attribute.String("cause", cause))
		options, _ = m.ends.LoadOrStore(key, []metric.AddOption{metric.WithAttributeSet(set)})
	}
	m.completed.Add(context.Background(), int64(n), options.([]metric.AddOption)...) //nolint:forcetypeassert // stored above
}

// StaleReports counts reports that changed nothing.
func (m *Metrics) StaleReports(n int) { m.stale.Add(context.Background(), int64(n)) }

// MeasurementsIgnored counts measurements of workers' machines that cannot be true.
func (m *Metrics) MeasurementsIgnored(n int) { m.ignored.Add(context.Background(), int64(n)) }

// OutputRefused counts pieces of output that an agent had no right to send.
func (m *Metrics) OutputRefused(n int) { m.outputRefused.Add(context.Background(), int64(n)) }

// Alarm counts something that an operator must look at. The kind is a name that the server gives.
func (m *Metrics) Alarm(kind string) {
	m.alarms.Add(context.Background(), 1, metric.WithAttributes(attribute.String("kind", kind)))
}

// ConnectionRefused counts a connection that was refused. The reason is a name that the server gives.
func (m *Metrics) ConnectionRefused(reason string) {
	m.connectionsRefused.Add(context.Background(), 1, because(reason))
}

// CallRefused counts a call that was refused because there were too many. The reason is a name that the server gives.
func (m *Metrics) CallRefused(reason string) {
	m.callsRefused.Add(context.Background(), 1, because(reason))
}

func because(reason string) metric.AddOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", reason)))
}

// LogBytes counts stored output.
func (m *Metrics) LogBytes(n int) { m.logBytes.Add(context.Background(), int64(n)) }

// Commit records one turn of the reactor that wrote something.
func (m *Metrics) Commit(d time.Duration, jobs int) {
	m.commitSeconds.Record(context.Background(), d.Seconds())
	m.commitJobs.Record(context.Background(), int64(jobs))
}
