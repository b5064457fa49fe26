package telemetry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/trace"
)

// collector is an OTLP collector that keeps what it gets.
type collector struct {
	*httptest.Server
	mu  sync.Mutex
	got map[string][]byte // bodies by path
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{got: make(map[string][]byte)}
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got[r.URL.Path] = append(c.got[r.URL.Path], body...)
	}))
	t.Cleanup(c.Close)
	return c
}

// use makes one measurement and one span, and ends the telemetry as a process does whose context has ended.
func use(t *testing.T, tel *Telemetry) error {
	t.Helper()
	newMetrics(t, tel, nil).JobsSubmitted(1)
	_, span := tel.Tracers.Tracer("test").Start(t.Context(), "a-span")
	span.End()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	return tel.Shutdown(ended)
}

func TestCollector(t *testing.T) {
	const metrics, traces = "/v1/metrics", "/v1/traces"
	tests := []struct {
		name        string
		environment map[string]string // URL stands for the collector's
		want        []string
	}{
		{"none named", nil, nil},
		{"one for both", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL"}, []string{metrics, traces}},
		{"for traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "URL" + traces}, []string{traces}},
		{"for metrics", map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "URL" + metrics}, []string{metrics}},
		{"switched off", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_SDK_DISABLED": "True"}, nil},
		{"no traces", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_TRACES_EXPORTER": "none"}, []string{metrics}},
		{"no sample", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "URL", "OTEL_TRACES_SAMPLER": "always_off"}, []string{metrics}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCollector(t)
			for name, value := range tt.environment {
				t.Setenv(name, strings.Replace(value, "URL", c.URL, 1))
			}
			if err := use(t, setup(t)); err != nil {
				t.Fatal(err)
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.got) != len(tt.want) {
				t.Errorf("the collector got %d kinds, want %v", len(c.got), tt.want)
			}
			marks := map[string]string{metrics: "hodei.jobs.submitted", traces: "a-span"}
			for _, path := range tt.want {
				for _, part := range []string{marks[path], "service.name", "service.version", "1.2.3"} {
					if !bytes.Contains(c.got[path], []byte(part)) {
						t.Errorf("what came to %s does not contain %q", path, part)
					}
				}
			}
		})
	}
}

// TestCollectorInTrouble shows that a collector that is not there, or fails, or never answers, stops nothing.
func TestCollectorInTrouble(t *testing.T) {
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hanging.Close()
	defer close(release)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	failing := httptest.NewServer(http.NotFoundHandler())
	defer failing.Close()
	for name, endpoint := range map[string]string{"hanging": hanging.URL, "gone": gone.URL, "failing": failing.URL} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			tel := setup(t)
			newMetrics(t, tel, nil).JobsSubmitted(1)
			wantLines(t, scrape(t, tel), "hodei_jobs_submitted_total 1")
			_, span := tel.Tracers.Tracer("test").Start(t.Context(), "a-span")
			span.End()
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := tel.Shutdown(ended); err == nil {
				t.Error("Shutdown does not say that something was lost")
			}
		})
	}
}

func TestShutdownTwice(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	for range 2 {
		if err := tel.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if newMetrics(t, tel, nil) == nil {
		t.Error("there are no instruments after the end")
	}
	scrape(t, tel)
}

func TestResource(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "mine")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.version=9")
	tel := setup(t)
	newMetrics(t, tel, nil).JobsSubmitted(1)
	wantLines(t, scrape(t, tel), `target_info{deployment_environment_name="test",service_name="mine",service_version="9"} 1`)
}

func TestBadResource(t *testing.T) {
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "nonsense")
	if _, err := Setup(t.Context(), "hodei", "1"); err == nil || !strings.Contains(err.Error(), "OTEL_RESOURCE_ATTRIBUTES") ||
		!strings.Contains(err.Error(), "nonsense") {
		t.Errorf("Setup = %v, want an error that names the variable and the text", err)
	}
}

func TestBadEndpoint(t *testing.T) {
	for _, endpoint := range []string{"::nonsense::", "localhost:4318", "collector", "grpc://localhost:4317", "http://", "/v1/traces"} {
		for _, variable := range []string{
			"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
		} {
			t.Run(variable+"="+endpoint, func(t *testing.T) {
				t.Setenv(variable, endpoint)
				_, err := Setup(t.Context(), "hodei", "1")
				if err == nil || !strings.Contains(err.Error(), variable) || !strings.Contains(err.Error(), "http://localhost:4318") {
					t.Errorf("Setup = %v, want an error that names the variable and a good value", err)
				}
			})
		}
	}
}

// TestNothingGlobal shows that two servers may live in one process.
func TestNothingGlobal(t *testing.T) {
	t.Parallel()
	first, second := setup(t), setup(t)
	newMetrics(t, first, nil).JobsSubmitted(1)
	newMetrics(t, second, nil).JobsSubmitted(2)
	wantLines(t, scrape(t, first), "hodei_jobs_submitted_total 1")
	wantLines(t, scrape(t, second), "hodei_jobs_submitted_total 2")
	if _, ok := otel.GetTracerProvider().(*trace.TracerProvider); ok {
		t.Error("the tracer provider is registered globally")
	}
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "hodei_") {
			t.Errorf("%s is in the global registry", f.GetName())
		}
	}
}

func TestNoCollectorNoSpans(t *testing.T) {
	t.Parallel()
	_, span := setup(t).Tracers.Tracer("test").Start(t.Context(), "a-span")
	if span.IsRecording() || span.SpanContext().IsSampled() {
		t.Error("a span is recorded that nobody reads")
	}
}
