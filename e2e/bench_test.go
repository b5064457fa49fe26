package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// small makes a measurement of a document small enough for a test.
var small = map[string][]string{
	"jobs": {"--jobs", "3000"}, "submit": {"--jobs", "200"}, "exec": {"--jobs", "50"}, "latency": {"--jobs", "3"},
	"sched": {"--workers", "20", "--jobs", "2000"}, "queue": {"--jobs", "3000"}, "agents": {"--agents", "3", "--duration", "1s"}, "recovery": {"--kills", "2"}, "store": {"--jobs", "3000"},
	"logs": {"--streams", "5", "--lines-per-minute", "600", "--duration", "1s", "--idle-lines", "5", "--long-lines", "2000", "--throughput", "1s"},
	"auth": {"--duration", "300ms"},
}

// Every command of docs/benchmarks.md runs, and prints the figures that the document shows as one JSON object on the last
// line. How large they are is not the business of a test.
func TestBenchmarksOfTheDocumentRun(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		rest, ok := strings.CutPrefix(line, "hodei bench ")
		if !ok {
			continue
		}
		args := strings.Fields(rest)
		seen[args[0]] = true
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			for i, arg := range args {
				if arg == "postgres://..." {
					args[i] = newDatabase(t, startPostgres(t))
				}
			}
			args = append(args, small[args[0]]...)
			if args[0] != "sched" { // which keeps nothing
				args = append(args, "--dir", t.TempDir())
			}
			args = append([]string{"bench"}, args...)
			got := runHodei(t, nil, nil, args...)
			lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
			var result map[string]any
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &result); err != nil || got.code != 0 {
				t.Fatalf("%v: code %d, %v\n%s\n%s", args, got.code, err, got.stdout, got.stderr)
			}
			if lost, ok := result["lost"]; ok && (lost != 0.0 || result["started_twice"] != 0.0) {
				t.Errorf("%s jobs lost, %v started twice", lost, result["started_twice"])
			}
		})
	}
	for name := range small {
		if !seen[name] {
			t.Errorf("docs/benchmarks.md does not show hodei bench %s", name)
		}
	}
}
