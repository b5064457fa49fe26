package simulator

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

const someSWF = `; Version: 2.2
; MaxProcs: 128

1 10.5 -1 100 4 -1 2048 4 3600 -1 1 7 3 -1 2 -1 -1 -1
  2 5 3 61 -1 -1 -1 8 60 1024 1 -1 -1 -1 -1 -1 -1 -1
3 20 -1 -1 4 -1 -1 4 3600 -1 5 7 3 -1 2 -1 -1 -1
4 20 -1 30 -1 -1 -1 -1 3600 -1 5 7 3 -1 2 -1 -1 -1
`

func TestReadSWF(t *testing.T) {
	t.Parallel()
	jobs, skipped, err := ReadSWF(strings.NewReader(someSWF))
	if err != nil || skipped != 2 || len(jobs) != 2 {
		t.Fatalf("%d jobs, %d skipped, %v", len(jobs), skipped, err)
	}
	want := []Job{
		{
			Number: 2, Submit: 5 * time.Second, Runtime: 61 * time.Second, Limit: 2 * time.Minute, MilliCPU: 8000, MemoryMiB: 8,
			Namespace: job.DefaultNamespace, Queue: job.DefaultQueue,
		},
		{
			Number: 1, Submit: 10500 * time.Millisecond, Runtime: 100 * time.Second, Limit: time.Hour, MilliCPU: 4000, MemoryMiB: 8,
			Namespace: "group-3", Queue: "queue-2",
		},
	}
	for i := range want {
		if jobs[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", jobs[i], want[i])
		}
	}
}

func TestReadSWFSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	line := "1 10 -1 100 4 -1 -1 4 3600 -1 1 7 3 -1 2 -1 -1 -1\n"
	for text, want := range map[string]string{
		line + "1 2 3\n": "line 2: 3 fields instead of 18",
		line + line + strings.Replace(line, "100", "a lot", 1): "line 3: 19 fields",
		strings.Replace(line, "100", "1O0", 1):                 `line 1: field 4 is "1O0"`,
		strings.Replace(line, "100", "NaN", 1):                 `line 1: field 4`,
		strings.Replace(line, "100", "1e11", 1):                "line 1: it runs for",
		strings.Replace(line, " 10 ", " 1e11 ", 1):             "line 1: it is submitted at",
		"; fine\n" + strings.Repeat("1 ", maxLine):             "line 2 is longer than 65536 bytes",
	} {
		if _, _, err := ReadSWF(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestReadLines(t *testing.T) {
	t.Parallel()
	jobs, err := ReadLines(strings.NewReader(`
{"submit_seconds": 12.5, "runtime_seconds": 300, "limit_seconds": 3600, "cpus": 0.25, "memory_mib": 512, "namespace": "ci", "queue": "builds", "priority": 5, "class": "build"}

{"submit_seconds": 0, "runtime_seconds": 1}
`))
	if err != nil || len(jobs) != 2 {
		t.Fatalf("%d jobs, %v", len(jobs), err)
	}
	want := []Job{
		{Number: 2, Runtime: time.Second, Limit: time.Second, Namespace: job.DefaultNamespace, Queue: job.DefaultQueue},
		{
			Number: 1, Submit: 12500 * time.Millisecond, Runtime: 5 * time.Minute, Limit: time.Hour, MilliCPU: 250, MemoryMiB: 512,
			Namespace: "ci", Queue: "builds", Priority: 5, Class: "build",
		},
	}
	for i := range want {
		if jobs[i] != want[i] {
			t.Errorf("got  %+v\nwant %+v", jobs[i], want[i])
		}
	}
}

func TestReadLinesSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"{}\n{\"runtime\": 5}\n": `line 2: json: unknown field "runtime"; a job is a JSON object with submit_seconds`,
		"[1]":                    "line 1: json: cannot unmarshal array",
		"{} {}":                  "line 1: there is more after the job",
		`{"submit_seconds": -1}`: "line 1: a time is negative",
		`{"cpus": -1}`:           "line 1: it asks for -1 CPUs",
		`{"cpus": 1e9}`:          "line 1: it asks for 1e+09 CPUs",
		`{"memory_mib": -1}`:     "line 1: it asks for 0 thousandths of a CPU and -1 MiB",
		`{"runtime_seconds": 5, "limit_seconds": 4}`: "line 1: its limit is 4s; that must be from its runtime, 5s",
		`{"runtime_seconds": 1e300}`:                 "line 1: it runs for",
		`{"priority": 2000}`:                         "line 1: its priority is 2000",
	} {
		if _, err := ReadLines(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

// Whatever the bytes: no panic, and what is read can be simulated.
func FuzzReadSWF(f *testing.F) {
	f.Add(someSWF)
	f.Add("1 0 -1 1e12 1e12 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1")
	f.Add(";\n\n1 2 3")
	f.Fuzz(func(t *testing.T, text string) {
		if jobs, _, err := ReadSWF(strings.NewReader(text)); err == nil {
			simulable(t, jobs)
		}
	})
}

// The same, and a workload that is written as it was read gives the same jobs.
func FuzzReadLines(f *testing.F) {
	f.Add(`{"submit_seconds": 12.5, "runtime_seconds": 300, "limit_seconds": 3600, "cpus": 0.25, "memory_mib": 512, "namespace": "ci"}`)
	f.Add("{}\n{}\n")
	f.Add(`{"submit_seconds": 1e300}`)
	f.Fuzz(func(t *testing.T, text string) {
		jobs, err := ReadLines(strings.NewReader(text))
		if err != nil {
			return
		}
		simulable(t, jobs)
		var written strings.Builder
		for _, j := range jobs {
			line, err := json.Marshal(record{
				j.Submit.Seconds(), j.Runtime.Seconds(), j.Limit.Seconds(), float64(j.MilliCPU) / 1000, j.MemoryMiB,
				j.Namespace, j.Queue, j.Priority, j.Class,
			})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&written, "%s\n", line)
		}
		again, err := ReadLines(strings.NewReader(written.String()))
		if err != nil || len(again) != len(jobs) {
			t.Fatalf("%v; of\n%s", err, written.String())
		}
		for i := range jobs {
			a, b := jobs[i], again[i]
			a.Number, b.Number = 0, 0
			// Seconds as floating point numbers hold a time of years to about a microsecond.
			for _, d := range []*time.Duration{&a.Submit, &a.Runtime, &a.Limit, &b.Submit, &b.Runtime, &b.Limit} {
				*d = d.Round(time.Millisecond)
			}
			if a != b {
				t.Fatalf("%+v became %+v", a, b)
			}
		}
	})
}

func simulable(t *testing.T, jobs []Job) {
	t.Helper()
	if len(jobs) > 50 {
		return
	}
	for _, first := range []bool{true, false} {
		r, err := Run(t.Context(), Setup{Cluster: Cluster{Workers: 2, MilliCPU: 8000, MemoryMiB: 1000}, Jobs: jobs, FirstCome: first})
		if err != nil || r.Ended+r.TooLarge != len(jobs) {
			t.Fatalf("%v: %+v, of %+v", err, r, jobs)
		}
	}
}
