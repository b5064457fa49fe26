// Package telemetry makes the server's measurements visible: metrics for Prometheus on the operations port, and traces and
// metrics over OTLP when the standard OTEL_* variables name a collector.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Telemetry holds the providers. Nothing is registered globally.
type Telemetry struct {
	Registry *prometheus.Registry  // what /metrics serves
	Meters   *metric.MeterProvider // its metrics are in Registry, and at the collector if there is one
	Tracers  *trace.TracerProvider // records nothing when there is no collector

	stop    sync.Once
	stopped error
}

// shutdownTimeout bounds how long a collector that does not answer can hold up the end of the process.
const shutdownTimeout = 3 * time.Second

// seriesLimit bounds how many series one metric may have. It leaves room for as many workers as a server can have.
const seriesLimit = 20_000

// Setup makes the providers. The error says which OTEL_* variable has a value that makes no sense. A collector that cannot be
// reached is no error, now or later: exporters try again by themselves.
func Setup(ctx context.Context, service, version string) (*Telemetry, error) {
	what, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", service), attribute.String("service.version", version)),
		resource.WithFromEnv(), // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	)
	if err != nil {
		return nil, fmt.Errorf("reading OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	meters, err := newMeters(ctx, what, registry)
	if err != nil {
		return nil, err
	}
	tracers, err := newTracers(ctx, what)
	if err != nil {
		return nil, errors.Join(err, meters.Shutdown(ctx))
	}
	return &Telemetry{Registry: registry, Meters: meters, Tracers: tracers}, nil
}

func newMeters(ctx context.Context, what *resource.Resource, registry *prometheus.Registry) (*metric.MeterProvider, error) {
	reader, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("making the exporter for Prometheus: %w", err)
	}
	options := []metric.Option{
		metric.WithResource(what), metric.WithReader(reader), metric.WithCardinalityLimit(seriesLimit),
		metric.WithExemplarFilter(exemplar.AlwaysOffFilter),
	} // they cost memory for each series
	send, err := wanted("METRICS")
	if err != nil {
		return nil, err
	}
	if send {
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("making the OTLP exporter for metrics: %w", err)
		}
		options = append(options, metric.WithReader(metric.NewPeriodicReader(exporter)))
	}
	return metric.NewMeterProvider(options...), nil
}

func newTracers(ctx context.Context, what *resource.Resource) (*trace.TracerProvider, error) {
	send, err := wanted("TRACES")
	if err != nil {
		return nil, err
	}
	if !send {
		return trace.NewTracerProvider(trace.WithResource(what), trace.WithSampler(trace.NeverSample())), nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("making the OTLP exporter for traces: %w", err)
	}
	return trace.NewTracerProvider(trace.WithResource(what), trace.WithBatcher(exporter)), nil
}

// wanted reports whether the environment names a collector for a signal, and does not switch the signal off. An endpoint that
// is no URL is an error, because the exporters would send to a default of theirs instead.
func wanted(signal string) (bool, error) {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_"+signal+"_EXPORTER") == "none" {
		return false, nil
	}
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_" + signal + "_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		endpoint := os.Getenv(variable)
		if endpoint == "" {
			continue
		}
		if u, err := url.Parse(endpoint); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return false, fmt.Errorf("%s is %q; set it to the URL of a collector that takes OTLP over HTTP, such as http://localhost:4318",
				variable, endpoint)
		}
		return true, nil
	}
	return false, nil
}

// Shutdown sends what has gathered, for a few seconds at most, also when ctx has ended already. The error says what was not
// sent. Further calls wait for the first and return the same.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.stop.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		meters := make(chan error, 1)
		go func() { meters <- t.Meters.Shutdown(ctx) }() // so that one slow collector does not use up the other's time
		t.stopped = errors.Join(t.Tracers.Shutdown(ctx), <-meters)
	})
	return t.stopped
}
