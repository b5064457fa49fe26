// Package telemetry makes the server's measurements visible: metrics for Prometheus on the operations port, and traces and
// metrics over OTLP when the standard OTEL_* variables name a collector.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Telemetry holds the providers. Nothing is registered globally.
type Telemetry struct {
	Registry *prometheus.Registry
	Meters   *metric.MeterProvider
	Tracers  *trace.TracerProvider
}

// shutdownTimeout bounds how long a collector that does not answer can hold up the end of the process.
const shutdownTimeout = 3 * time.Second

// Setup makes the providers. A collector that cannot be reached never stops the server; exporters try again by themselves.
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
	reader, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("making the exporter for Prometheus: %w", err)
	}
	meters := []metric.Option{metric.WithResource(what), metric.WithReader(reader)}
	tracers := []trace.TracerProviderOption{trace.WithResource(what)}
	if wanted("METRICS") {
		exporter, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("making the OTLP exporter for metrics: %w", err)
		}
		meters = append(meters, metric.WithReader(metric.NewPeriodicReader(exporter)))
	}
	if wanted("TRACES") {
		exporter, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, fmt.Errorf("making the OTLP exporter for traces: %w", err)
		}
		tracers = append(tracers, trace.WithBatcher(exporter))
	} else {
		tracers = append(tracers, trace.WithSampler(trace.NeverSample()))
	}
	return &Telemetry{Registry: registry, Meters: metric.NewMeterProvider(meters...), Tracers: trace.NewTracerProvider(tracers...)}, nil
}

// wanted reports whether the environment names a collector for a signal.
func wanted(signal string) bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != ""
}

// Shutdown sends what has gathered, for a few seconds at most.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	return errors.Join(t.Tracers.Shutdown(ctx), t.Meters.Shutdown(ctx))
}
