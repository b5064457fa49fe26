package telemetry

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestOperationsHandler(t *testing.T) {
	t.Parallel()
	handler := OperationsHandler(setup(t).Registry, func() error { return errors.New("the reactor does not answer") })
	tests := []struct {
		method, path string
		status       int
		body         string // a part
	}{
		{http.MethodGet, "/metrics", http.StatusOK, "go_goroutines"},
		{http.MethodGet, "/livez", http.StatusOK, "ok\n"},
		{http.MethodHead, "/livez", http.StatusOK, ""},
		{http.MethodGet, "/readyz", http.StatusServiceUnavailable, "the reactor does not answer\n"},
		{http.MethodGet, "/debug/pprof/", http.StatusOK, "goroutine"},
		{http.MethodGet, "/debug/pprof/heap?debug=1", http.StatusOK, "heap profile"},
		{http.MethodGet, "/debug/pprof/cmdline", http.StatusOK, ""},
		{http.MethodGet, "/debug/pprof/nothing", http.StatusNotFound, ""},
		{http.MethodGet, "/", http.StatusNotFound, ""},
		{http.MethodGet, "/livez/x", http.StatusNotFound, ""},
		{http.MethodGet, "/debug/", http.StatusNotFound, ""},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed, ""},
		{http.MethodPost, "/debug/pprof/profile", http.StatusMethodNotAllowed, ""},
		{http.MethodDelete, "/readyz", http.StatusMethodNotAllowed, ""},
	}
	for _, tt := range tests {
		status, body := get(t, handler, tt.method, tt.path)
		if status != tt.status || !strings.Contains(body, tt.body) {
			t.Errorf("%s %s answers %d %.80q, want %d with %q", tt.method, tt.path, status, body, tt.status, tt.body)
		}
	}
}

// TestOneBadMetric shows that a metric that cannot be shown does not hide the others.
func TestOneBadMetric(t *testing.T) {
	t.Parallel()
	tel := setup(t)
	newMetrics(t, tel, nil).JobsSubmitted(1)
	bad := prometheus.NewDesc("bad", "Cannot be shown.", nil, nil)
	tel.Registry.MustRegister(prometheus.CollectorFunc(func(ch chan<- prometheus.Metric) {
		ch <- prometheus.NewInvalidMetric(bad, errors.New("no"))
	}))
	wantLines(t, scrape(t, tel), "hodei_jobs_submitted_total 1")
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	var problem error
	handler := OperationsHandler(setup(t).Registry, func() error { return problem })
	for _, step := range []struct {
		problem error
		status  int
		body    string
	}{
		{errors.New("recovering jobs"), http.StatusServiceUnavailable, "recovering jobs\n"},
		{nil, http.StatusOK, "ok\n"},
		{errors.New("the server is stopping"), http.StatusServiceUnavailable, "the server is stopping\n"},
	} {
		problem = step.problem
		if status, body := get(t, handler, http.MethodGet, "/readyz"); status != step.status || body != step.body {
			t.Errorf("/readyz answers %d %q, want %d %q", status, body, step.status, step.body)
		}
		if status, body := get(t, handler, http.MethodGet, "/livez"); status != http.StatusOK || body != "ok\n" {
			t.Errorf("/livez answers %d %q when the server is not ready", status, body)
		}
	}
}
