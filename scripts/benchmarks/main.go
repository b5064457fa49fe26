// Command benchmarks runs every measurement of `hodei bench` and writes docs/benchmarks.md from what they print. It takes
// about fifteen minutes on a machine of two cores that has nothing else to do.
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
	"slices"
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
type figure struct {
	name, path, format, goal string

	seen []float64 // one of each run
}

const postgres = "POSTGRES" // stands for the URL, which is nobody's business

var measurements = []measurement{
	{"Jobs a second, embedded store", []string{"jobs"}, jobFigures("150,000", "8")},
	{"Jobs a second, PostgreSQL on the same machine", []string{"jobs", "--store", postgres}, jobFigures("80,000", "")},
	{"Single submits, 64 callers", []string{"submit"}, []figure{
		{name: "submits a second", path: "submits_per_second", format: "%.0f", goal: "at least 14,000"},
		{name: "p50, ms", path: "submit_ms.p50", format: "%.1f"},
		{name: "p99, ms", path: "submit_ms.p99", format: "%.1f", goal: "below 20"},
		{name: "server's CPU us a submit", path: "server_cpu_us_per_job", format: "%.1f"},
		{name: "client's CPU us a submit", path: "client_cpu_us_per_job", format: "%.1f"},
		{name: "bare TLS round trips a second", path: "limit.round_trips_per_second", format: "%.0f"},
		{name: "ratio", path: "limit_ratio", format: "%.2f"},
		{name: "median submit over median fsync", path: "submit_p50_over_fsync_p50", format: "%.1f"},
	}},
	{"Processes", []string{"exec"}, []figure{
		{name: "jobs that run `/bin/true`, a second", path: "jobs_per_second", format: "%.0f"},
		{name: "`/bin/true` without Hodei, a second", path: "limit.spawns_per_second", format: "%.0f"},
		{name: "ratio", path: "limit_ratio", format: "%.2f", goal: "at least 0.80"},
	}},
	{"Latency, idle", []string{"latency"}, []figure{
		{name: "submit to start, p50 ms", path: "start_ms.p50", format: "%.2f"},
		{name: "one fsync on the idle machine, in turn with the jobs, p50 ms", path: "idle_fsync_ms.p50", format: "%.2f"},
		{name: "two of these and 0.3 ms", path: "start_limit_ms", format: "%.2f", goal: "not less than the start"},
		{name: "one of many fsyncs right after each other, p50 us", path: "limit.fsync_p50_us", format: "%.0f"},
		{name: "submit to first byte of `echo`, p50 ms", path: "first_byte_ms.p50", format: "%.2f"},
		{name: "of that, beyond `echo` without Hodei, ms", path: "overhead_p50_ms", format: "%.2f", goal: "below 5"},
	}},
	{"A million waiting jobs", []string{"queue"}, []figure{
		{name: "server's memory, bytes", path: "rss_bytes", format: "%.0f", goal: "below 200,000,000"},
		{name: "boot, s", path: "boot_seconds", format: "%.2f", goal: "below 2"},
		{name: "submits a second, the first tenth", path: "first_submits_per_second", format: "%.0f"},
		{name: "submits a second, the last tenth", path: "last_submits_per_second", format: "%.0f", goal: "within 20 % of the first"},
	}},
	{"A thousand idle agents", []string{"agents"}, []figure{
		{name: "server's memory, bytes", path: "rss_bytes", format: "%.0f", goal: "below 200,000,000"},
		{name: "cores in use", path: "cores", format: "%.3f", goal: "below 0.2"},
		{name: "seconds to enrol and connect", path: "connect_seconds", format: "%.1f"},
	}},
	{"Recovery, the server killed 50 times under load", []string{"recovery", "--kills", "50"}, []figure{
		{name: "acknowledged jobs", path: "acknowledged", format: "%.0f"},
		{name: "lost", path: "lost", format: "%.0f", goal: "0"},
		{name: "started twice", path: "started_twice", format: "%.0f", goal: "0"},
		{name: "boot, p99 s", path: "boot_seconds.p99", format: "%.2f"},
		{name: "from boot to the first job that ends, p99 s", path: "work_seconds.p99", format: "%.2f", goal: "below 5"},
		{name: "jobs of a killed agent are lost or wait again after, s", path: "agent_lost_seconds", format: "%.1f", goal: "below 20"},
	}},
	{"Output", []string{"logs"}, []figure{
		{name: "a line, from the write in the job to a client, idle, p50 ms", path: "idle_latency_ms.p50", format: "%.2f", goal: "below 3"},
		{name: "the same, p99 ms", path: "idle_latency_ms.p99", format: "%.2f", goal: "below 5"},
		{name: "1,000 jobs write at once, lines a minute", path: "load.lines_per_minute", format: "%.0f"},
		{name: "of their logs, exact to the byte", path: "load.exact", format: "%.0f", goal: "1,000"},
		{name: "a line, from the agent to its reader, under that load, p50 ms", path: "load.delivery_ms.p50", format: "%.1f"},
		{name: "the same, p99 ms", path: "load.delivery_ms.p99", format: "%.1f", goal: "below 50"},
		{name: "heartbeats late by, p99 ms", path: "load.heartbeat_delay_ms.p99", format: "%.0f", goal: "below 1,000"},
		{name: "one job writes as fast as it can, MB/s", path: "throughput.mb_per_second", format: "%.0f", goal: "at least 100"},
		{name: "agent's peak memory meanwhile, bytes", path: "throughput.agent_peak_rss_bytes", format: "%.0f"},
		{name: "server's peak memory meanwhile, bytes", path: "throughput.server_peak_rss_bytes", format: "%.0f"},
		{name: "a page at line 900,000 of 1,000,000, p50 ms", path: "line_ms.p50", format: "%.1f", goal: "below 20"},
		{name: "a rare word in these 97 MB, p50 ms", path: "search_ms.p50", format: "%.0f", goal: "below 300"},
		{name: "stored bytes for each byte of a build's output", path: "store_cost", format: "%.2f", goal: "at most 0.25"},
		{name: "masker, 100 secrets, MB/s", path: "mask_mb_per_second", format: "%.0f", goal: "at least 300"},
		{name: "masker, nothing to find, MB/s", path: "mask.pass_through", format: "%.0f"},
		{name: "ratio to a copy of the same memory", path: "mask.pass_ratio", format: "%.2f", goal: "at least 0.80"},
	}},
	{"The scheduler", []string{"sched"}, []figure{
		{name: "placements a second, 1,000 workers, 24 shapes, one core", path: "speed.placements_per_second", format: "%.0f", goal: "at least 200,000"},
		{name: "one pass, p99 ms", path: "speed.pass_ms.p99", format: "%.1f"},
		{name: "with weights, quotas and limits on starts, a second", path: "policies_on.placements_per_second", format: "%.0f"},
		{name: "ratio", path: "policies_on.ratio", format: "%.2f", goal: "at least 0.70"},
		{name: "10,000 workers, 100,000 jobs wait, a second", path: "large.placements_per_second", format: "%.0f", goal: "at least 100,000"},
		{name: "one pass, p99 ms", path: "large.pass_ms.p99", format: "%.1f", goal: "below 5"},
		{name: "workload of Lublin and Feitelson: CPUs in use, first come first served", path: "lublin.fcfs.utilisation", format: "%.3f"},
		{name: "the same, Hodei", path: "lublin.hodei.utilisation", format: "%.3f", goal: "at least 0.05 more"},
		{name: "the mean wait is shorter by", path: "lublin.wait_reduction", format: "%.2f", goal: "at least 0.30"},
		{name: "starts later than promised", path: "lublin.hodei.late", format: "%.0f", goal: "0"},
		{name: "20 namespaces, largest deviation from a weight", path: "fairness.largest_deviation", format: "%.3f", goal: "at most 0.05"},
		{name: "workers needed beyond first fit decreasing", path: "packing.excess", format: "%.3f", goal: "at most 0.05"},
	}},
	{"Proofs of identity", []string{"auth"}, []figure{
		{name: "full mutual handshakes a second", path: "handshakes_per_second", format: "%.0f"},
		{name: "the same with Go's crypto/tls at both ends, a second", path: "go_handshakes_per_second", format: "%.0f"},
		{name: "ratio", path: "handshake_ratio", format: "%.2f", goal: "at least 0.80"},
		{name: "server's CPU us a handshake", path: "server_cpu_us_per_handshake", format: "%.0f"},
		{name: "new connections with one call each, a second", path: "connections_per_second", format: "%.0f"},
		{name: "a call that anybody may make, p50 us", path: "open_call_p50_us", format: "%.0f"},
		{name: "one that needs a permission, p50 us", path: "known_call_p50_us", format: "%.0f"},
	}},
	{"The embedded store alone", []string{"store"}, storeFigures()},
	{"The PostgreSQL store alone", []string{"store", "--store", postgres}, storeFigures()},
}

func storeFigures() []figure {
	return []figure{
		{name: "jobs a second", path: "jobs_per_second", format: "%.0f"},
		{name: "CPU us a job", path: "cpu_us_per_job", format: "%.2f"},
	}
}

func jobFigures(rate, cpu string) []figure {
	figures := []figure{
		{name: "jobs a second", path: "jobs_per_second", format: "%.0f", goal: "at least " + rate},
		{name: "server's CPU us a job", path: "server_cpu_us_per_job", format: "%.2f"},
		{name: "agent's CPU us a job", path: "agent_cpu_us_per_job", format: "%.2f"},
		{name: "client's CPU us a job", path: "client_cpu_us_per_job", format: "%.2f"},
		{name: "syncs a job", path: "fsyncs_per_job", format: "%.4f"},
		{name: "server's peak memory, bytes", path: "peak_rss_bytes", format: "%.0f"},
		{name: "the store alone, jobs a second", path: "limit.store_jobs_per_second", format: "%.0f"},
		{name: "ratio", path: "limit_ratio", format: "%.2f"},
	}
	if cpu != "" {
		figures[1].goal = "at most " + cpu
	}
	return figures
}

func main() {
	url := flag.String("postgres", "", "URL of a PostgreSQL database whose schema public the runs may drop; empty: leave its runs out")
	rounds := flag.Int("rounds", 5, "how often each measurement is run")
	only := flag.String("only", "", "run this measurement alone, and write its section anew")
	out := flag.String("o", "docs/benchmarks.md", "file to write")
	flag.Parse()
	if err := run(*url, *only, *out, max(*rounds, 1)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(url, only, out string, rounds int) error {
	if built, err := exec.Command("scripts/build").CombinedOutput(); err != nil { // so that the figures are those of this code
		return fmt.Errorf("building: %w\n%s", err, built)
	}
	var left []*measurement
	for i := range measurements {
		m := &measurements[i]
		if (only == "" || m.args[0] == only) && (url != "" || !strings.Contains(strings.Join(m.args, " "), postgres)) {
			left = append(left, m)
		}
	}
	for round := range rounds { // one after the other, so that a slow minute of the machine is not all that one of them sees
		for _, m := range left {
			fmt.Fprintf(os.Stderr, "== round %d: %s\n", round+1, m.title)
			if err := m.run(url); err != nil {
				return fmt.Errorf("%s: %w", m.title, err)
			}
		}
	}
	if only != "" {
		return replaceSections(out, left)
	}
	var page bytes.Buffer
	fmt.Fprintf(&page, `# Benchmarks

Made by `+"`go run ./scripts/benchmarks`"+` on %s: %d cores, %s, %s; each measurement was run %d times. The machine is shared with
others and its speed changes from minute to minute, hence the smallest and the largest value beside the median. Server, agent, client and,
where there is one, PostgreSQL share the machine; they are processes of their own with mTLS, and every acknowledged job is on the
disk. Each section has the command that prints its figures, beside what the machine itself can do, measured in the same run. How
they came about is in [adr](adr).
`, time.Now().Format("2006-01-02"), runtime.NumCPU(), runtime.GOOS+"/"+runtime.GOARCH, runtime.Version(), rounds)
	for _, m := range left {
		m.write(&page)
	}
	return os.WriteFile(out, page.Bytes(), 0o644)
}

// replaceSections writes the sections of some measurements anew; those that the page does not have come at its end.
func replaceSections(path string, measurements []*measurement) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, m := range measurements {
		var section bytes.Buffer
		m.write(&section)
		head, rest, found := bytes.Cut(page, []byte("\n## "+m.title+"\n"))
		var tail []byte
		if next := bytes.Index(rest, []byte("\n## ")); found && next >= 0 {
			tail = rest[next:]
		}
		page = bytes.Join([][]byte{head, section.Bytes(), tail}, nil)
	}
	return os.WriteFile(path, page, 0o644)
}

// run runs the measurement once and keeps what it has seen.
func (m *measurement) run(url string) error {
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
	for i := range m.figures {
		f := &m.figures[i]
		value, ok := lookup(result, strings.Split(f.path, "."))
		if !ok {
			return fmt.Errorf("the result has no %s", f.path)
		}
		f.seen = append(f.seen, value)
	}
	return nil
}

// write writes the measurement's section.
func (m *measurement) write(page *bytes.Buffer) {
	shown := strings.ReplaceAll(strings.Join(m.args, " "), postgres, "postgres://...")
	fmt.Fprintf(page, "\n## %s\n\n```sh\nhodei bench %s -o json\n```\n\n", m.title, shown)
	fmt.Fprint(page, "| figure | median | smallest | largest | goal |\n|---|---|---|---|---|\n")
	for _, f := range m.figures {
		slices.Sort(f.seen)
		show := func(value float64) string { return grouped(fmt.Sprintf(f.format, value)) }
		fmt.Fprintf(page, "| %s | %s | %s | %s | %s |\n", f.name, show(f.seen[len(f.seen)/2]), show(f.seen[0]), show(f.seen[len(f.seen)-1]), f.goal)
	}
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
