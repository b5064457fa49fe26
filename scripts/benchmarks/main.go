// Command benchmarks runs every measurement of `hodei bench` and writes docs/benchmarks.md from what they print. It takes
// about ten minutes on an idle machine of two cores.
//
//	go run ./scripts/benchmarks -postgres postgres://...
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// measurement is one run of the bench and the figures of it that people look for first.
type measurement struct {
	title   string
	args    []string
	figures []figure
}

// figure is one value of the JSON object that a run prints, by its path.
type figure struct{ name, path, format, goal string }

const postgres = "POSTGRES" // stands for the URL, which is nobody's business

var measurements = []measurement{
	{"Jobs a second, embedded store", []string{"jobs"}, jobFigures("150,000", "8")},
	{"Jobs a second, PostgreSQL on the same machine", []string{"jobs", "--store", postgres}, jobFigures("80,000", "")},
	{"Single submits, 64 callers", []string{"submit"}, []figure{
		{"submits a second", "submits_per_second", "%.0f", "at least 14,000"},
		{"p50, ms", "submit_ms.p50", "%.1f", ""},
		{"p99, ms", "submit_ms.p99", "%.1f", "below 20"},
		{"server's CPU us a submit", "server_cpu_us_per_job", "%.1f", ""},
		{"client's CPU us a submit", "client_cpu_us_per_job", "%.1f", ""},
		{"bare TLS round trips a second", "limit.round_trips_per_second", "%.0f", ""},
		{"ratio", "limit_ratio", "%.2f", ""},
		{"median submit over median fsync", "submit_p50_over_fsync_p50", "%.1f", ""},
	}},
	{"Processes", []string{"exec"}, []figure{
		{"jobs that run `/bin/true`, a second", "jobs_per_second", "%.0f", ""},
		{"`/bin/true` without Hodei, a second", "limit.spawns_per_second", "%.0f", ""},
		{"ratio", "limit_ratio", "%.2f", "at least 0.80"},
	}},
	{"Latency, idle", []string{"latency"}, []figure{
		{"submit to start, p50 ms", "start_ms.p50", "%.2f", ""},
		{"one fsync on the idle machine, in turn with the jobs, p50 ms", "idle_fsync_ms.p50", "%.2f", ""},
		{"two of these and 0.3 ms", "start_limit_ms", "%.2f", "not less than the start"},
		{"one of many fsyncs right after each other, p50 us", "limit.fsync_p50_us", "%.0f", ""},
		{"submit to first byte of `echo`, p50 ms", "first_byte_ms.p50", "%.2f", ""},
		{"of that, beyond `echo` without Hodei, ms", "overhead_p50_ms", "%.2f", "below 5"},
	}},
	{"A million waiting jobs", []string{"queue"}, []figure{
		{"server's memory, bytes", "rss_bytes", "%.0f", "below 200,000,000"},
		{"boot, s", "boot_seconds", "%.2f", "below 2"},
		{"submits a second, the first tenth", "first_submits_per_second", "%.0f", ""},
		{"submits a second, the last tenth", "last_submits_per_second", "%.0f", "within 20 % of the first"},
	}},
	{"A thousand idle agents", []string{"agents"}, []figure{
		{"server's memory, bytes", "rss_bytes", "%.0f", "below 200,000,000"},
		{"cores in use", "cores", "%.3f", "below 0.2"},
		{"seconds to enrol and connect", "connect_seconds", "%.1f", ""},
	}},
	{"Recovery, the server killed 50 times under load", []string{"recovery", "--kills", "50"}, []figure{
		{"acknowledged jobs", "acknowledged", "%.0f", ""},
		{"lost", "lost", "%.0f", "0"},
		{"started twice", "started_twice", "%.0f", "0"},
		{"boot, p99 s", "boot_seconds.p99", "%.2f", ""},
		{"from boot to the first job that ends, p99 s", "work_seconds.p99", "%.2f", "below 5"},
		{"jobs of a killed agent are lost or wait again after, s", "agent_lost_seconds", "%.1f", "below 20"},
	}},
	{"The embedded store alone", []string{"store"}, storeFigures},
	{"The PostgreSQL store alone", []string{"store", "--store", postgres}, storeFigures},
}

var storeFigures = []figure{{"jobs a second", "jobs_per_second", "%.0f", ""}, {"CPU us a job", "cpu_us_per_job", "%.2f", ""}}

func jobFigures(rate, cpu string) []figure {
	figures := []figure{
		{"jobs a second", "jobs_per_second", "%.0f", "at least " + rate},
		{"server's CPU us a job", "server_cpu_us_per_job", "%.2f", ""},
		{"agent's CPU us a job", "agent_cpu_us_per_job", "%.2f", ""},
		{"client's CPU us a job", "client_cpu_us_per_job", "%.2f", ""},
		{"syncs a job", "fsyncs_per_job", "%.4f", ""},
		{"server's peak memory, bytes", "peak_rss_bytes", "%.0f", ""},
		{"the store alone, jobs a second", "limit.store_jobs_per_second", "%.0f", ""},
		{"ratio", "limit_ratio", "%.2f", ""},
	}
	if cpu != "" {
		figures[1].goal = "at most " + cpu
	}
	return figures
}

func main() {
	url := flag.String("postgres", "", "URL of a PostgreSQL database whose schema public the runs may drop; empty: leave its runs out")
	out := flag.String("o", "docs/benchmarks.md", "file to write")
	flag.Parse()
	if err := run(*url, *out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, out string) error {
	if built, err := exec.Command("scripts/build").CombinedOutput(); err != nil { // so that the figures are those of this code
		return fmt.Errorf("building: %w\n%s", err, built)
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, `# Benchmarks

Made by `+"`go run ./scripts/benchmarks`"+` on %s: %d cores, %s, %s. Server, agent, client and, where there is one, PostgreSQL share the
machine; they are processes of their own with mTLS, and every acknowledged job is on the disk. Each section has the command that
prints its figures, beside what the machine itself can do, measured in the same run. How they came about is in [adr](adr).
`, time.Now().Format("2006-01-02"), runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH, runtime.Version())
	for _, m := range measurements {
		if strings.Contains(strings.Join(m.args, " "), postgres) && url == "" {
			continue
		}
		if err := m.write(&page, url); err != nil {
			return fmt.Errorf("%s: %w", m.title, err)
		}
	}
	return os.WriteFile(out, page.Bytes(), 0o644)
}

// write runs the measurement and writes its section.
func (m *measurement) write(page *bytes.Buffer, url string) error {
	fmt.Fprintln(os.Stderr, "==", m.title)
	args := []string{"bench"}
	for _, arg := range m.args {
		if arg == postgres {
			if err := empty(url); err != nil {
				return err
			}
			arg = url
		}
		args = append(args, arg)
	}
	cmd := exec.Command("bin/hodei", append(args, "-o", "json")...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.Output()
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSpace(stdout), []byte("\n"))
	last := lines[len(lines)-1]
	fmt.Fprintf(os.Stderr, "%s\n", last)
	var result map[string]any
	if err := json.Unmarshal(last, &result); err != nil {
		return err
	}
	shown := strings.ReplaceAll(strings.Join(m.args, " "), postgres, "postgres://...")
	fmt.Fprintf(page, "\n## %s\n\n```sh\nhodei bench %s -o json\n```\n\n| figure | seen | goal |\n|---|---|---|\n", m.title, shown)
	for _, f := range m.figures {
		value, ok := lookup(result, strings.Split(f.path, "."))
		if !ok {
			return fmt.Errorf("the result has no %s", f.path)
		}
		fmt.Fprintf(page, "| %s | %s | %s |\n", f.name, grouped(fmt.Sprintf(f.format, value)), f.goal)
	}
	return nil
}

func lookup(result map[string]any, path []string) (float64, bool) {
	for _, name := range path[:len(path)-1] {
		inner, ok := result[name].(map[string]any)
		if !ok {
			return 0, false
		}
		result = inner
	}
	value, ok := result[path[len(path)-1]].(float64)
	return value, ok
}

// grouped writes large whole numbers with commas.
func grouped(number string) string {
	if strings.Contains(number, ".") {
		return number
	}
	for i := len(number) - 3; i > 0; i -= 3 {
		number = number[:i] + "," + number[i:]
	}
	return number
}

// empty removes what a former run has left in the database.
func empty(url string) error {
	out, err := exec.Command("psql", "-q", url, "-c", "DROP SCHEMA public CASCADE; CREATE SCHEMA public").CombinedOutput()
	if err != nil {
		return fmt.Errorf("emptying the database: %w\n%s", err, out)
	}
	return nil
}
