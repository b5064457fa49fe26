package telemetry

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// TestMain takes the variables away that the machine may have set.
func TestMain(m *testing.M) {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "OTEL_") {
			if err := os.Unsetenv(name); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
		}
	}
	os.Exit(m.Run())
}

// setup makes a telemetry that must work, and ends it with the test.
func setup(t *testing.T) *Telemetry {
	t.Helper()
	tel, err := Setup(t.Context(), "hodei", "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tel.Shutdown(context.Background()) })
	return tel
}

// newMetrics makes instruments that must work.
func newMetrics(t *testing.T, tel *Telemetry, snapshot SnapshotFunc) *Metrics {
	t.Helper()
	m, err := tel.NewMetrics(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// get asks a handler.
func get(t *testing.T, handler http.Handler, method, path string) (status int, body string) {
	t.Helper()
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	data, err := io.ReadAll(answer.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Code, string(data)
}

// scrape returns what Prometheus would read.
func scrape(t *testing.T, tel *Telemetry) string {
	t.Helper()
	status, body := get(t, OperationsHandler(tel.Registry, func() error { return nil }), http.MethodGet, "/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics answers %d: %s", status, body)
	}
	return body
}

// wantLines checks that a scrape has each line.
func wantLines(t *testing.T, body string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+body, "\n"+line+"\n") {
			t.Errorf("the scrape has no line %q", line)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(body) {
			if strings.HasPrefix(line, "hodei_") || strings.HasPrefix(line, "target_") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}
