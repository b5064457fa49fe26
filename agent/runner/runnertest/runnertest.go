// Package runnertest is the conformance suite of runners: what a step may do, and what must be gone after it.
package runnertest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// Run runs the suite. The runner must start real processes on this machine.
func Run(t *testing.T, r runner.Runner) {
	t.Run("Ends", func(t *testing.T) { ends(t, r) })
	t.Run("Output", func(t *testing.T) { outputs(t, r) })
	t.Run("StartErrors", func(t *testing.T) { startErrors(t, r) })
	t.Run("Escapes", func(t *testing.T) { escapes(t, r, nil) })
	t.Run("Stop", func(t *testing.T) { stops(t, r, nil) })
	t.Run("Terminal", func(t *testing.T) { terminals(t, r) })
}

func start(t *testing.T, r runner.Runner, c *runner.Command) runner.Process {
	t.Helper()
	p, err := r.Start(complete(t, c))
	if err != nil {
		t.Fatalf("starting %q: %v", c.Argv, err)
	}
	return p
}

func complete(t *testing.T, c *runner.Command) *runner.Command {
	t.Helper()
	c.ID = strings.ToLower(rand.Text())
	if c.Dir == "" {
		c.Dir = openDir(t)
	}
	if c.Env == nil {
		c.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	if c.Stdout == nil {
		c.Stdout = new(bytes.Buffer)
	}
	if c.Stderr == nil {
		c.Stderr = new(bytes.Buffer)
	}
	if c.Grace == 0 {
		c.Grace = 5 * time.Second
	}
	return c
}

// openDir makes a folder that any user may use, whoever the steps are.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil { //nolint:gosec // it is empty, and soon gone
		t.Fatal(err)
	}
	return dir
}

func shell(script string) []string { return []string{"sh", "-c", script} }

func ends(t *testing.T, r runner.Runner) {
	for _, tc := range []struct {
		script, signal string
		code           int
	}{
		{"exit 0", "", 0},
		{"exit 7", "", 7},
		{"exit 255", "", 255},
		{"kill -KILL $$", "SIGKILL", 137},
		{"kill -TERM $$", "SIGTERM", 143},
		{"kill -SEGV $$", "SIGSEGV", 139},
	} {
		if got := start(t, r, &runner.Command{Argv: shell(tc.script)}).Wait(); got.ExitCode != tc.code || got.Signal != tc.signal {
			t.Errorf("%q ended with %d %q, want %d %q", tc.script, got.ExitCode, got.Signal, tc.code, tc.signal)
		}
	}
}

func outputs(t *testing.T, r runner.Runner) {
	var stdout, stderr bytes.Buffer
	start(t, r, &runner.Command{Argv: shell("echo out; echo err >&2; printf 'a\\000b'"), Stdout: &stdout, Stderr: &stderr}).Wait()
	if stdout.String() != "out\na\x00b" || stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}

	data := make([]byte, 20<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(openDir(t), "data")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	stdout.Reset()
	start(t, r, &runner.Command{Argv: []string{"cat", file}, Stdout: &stdout}).Wait()
	if sha256.Sum256(stdout.Bytes()) != sha256.Sum256(data) {
		t.Errorf("%d bytes were written and %d arrived, or they differ", len(data), stdout.Len())
	}

	broken := start(t, r, &runner.Command{Argv: shell("yes | head -c 1000000; exit 3"), Stdout: failingWriter{}})
	if got := broken.Wait(); got.ExitCode != 3 {
		t.Errorf("a writer that fails held the process up or changed its end: %+v", got)
	}
	if got := start(t, r, &runner.Command{Argv: shell("exec >&- 2>&-; exit 4")}).Wait(); got.ExitCode != 4 {
		t.Errorf("a process that closed its output ended with %+v", got)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("full") }

func startErrors(t *testing.T, r runner.Runner) {
	dir := openDir(t)
	plain, script := filepath.Join(dir, "plain"), filepath.Join(dir, "script")
	for path, mode := range map[string]os.FileMode{plain: 0o644, script: 0o755} {
		if err := os.WriteFile(path, []byte("#!/no/such/interpreter\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		c    runner.Command
		code int
		text string
	}{
		{"unknown command", runner.Command{Argv: []string{"no-such-command"}}, 127, "no-such-command"},
		{"unknown path", runner.Command{Argv: []string{"/no/such/command"}}, 127, "/no/such/command"},
		{"missing interpreter", runner.Command{Argv: []string{script}}, 127, "interpreter"},
		{"not executable", runner.Command{Argv: []string{plain}}, 126, "chmod"},
		{"a directory", runner.Command{Argv: []string{dir}}, 126, "directory"},
		{"no such directory", runner.Command{Argv: []string{"true"}, Dir: "/no/such/dir"}, 125, "/no/such/dir"},
		{"not a directory", runner.Command{Argv: []string{"true"}, Dir: plain}, 125, "not a directory"},
		{"NUL", runner.Command{Argv: []string{"echo", "a\x00b"}}, 125, "NUL"},
		{"empty", runner.Command{}, 125, "no command"},
		{"bad environment", runner.Command{Argv: []string{"true"}, Env: []string{"=x"}}, 125, "NAME=VALUE"},
		{"no columns", runner.Command{Argv: []string{"true"}, Terminal: &runner.Terminal{Rows: 24}}, 125, "0 columns"},
		{"negative rows", runner.Command{Argv: []string{"true"}, Terminal: &runner.Terminal{Columns: 80, Rows: -1}}, 125, "-1 rows"},
		{"too many columns", runner.Command{Argv: []string{"true"}, Terminal: &runner.Terminal{Columns: 65536, Rows: 24}}, 125, "to 65535"},
		{"too many rows", runner.Command{Argv: []string{"true"}, Terminal: &runner.Terminal{Columns: 80, Rows: 65536}}, 125, "to 65535"},
		{"too large", runner.Command{Argv: []string{"true", strings.Repeat("x", 1<<20)}}, 126, "larger than the system allows"},
	} {
		_, err := r.Start(complete(t, &tc.c))
		var got *runner.StartError
		if !errors.As(err, &got) || got.ExitCode != tc.code || !got.Invalid || !strings.Contains(got.Message, tc.text) {
			t.Errorf("%s: %v, want code %d and %q in the text", tc.name, err, tc.code, tc.text)
		}
	}
}

// waysOut are what processes do to outlive their step. MARK stands for a sleep that no other process has.
var waysOut = map[string]string{
	"background":        "MARK & exit 0",
	"new session":       "setsid MARK & exit 0",
	"double fork":       "(setsid sh -c 'MARK & exit' &) ; sleep 0.1; exit 0",
	"empty environment": "env -i setsid MARK & sleep 0.1; exit 0",
	"ignores SIGTERM":   "setsid sh -c 'trap \"\" TERM; MARK' & sleep 0.1; exit 0",
	"holds the pipe":    "setsid sh -c 'MARK; echo never' & exit 0",
	"family":            "for i in $(seq 50); do setsid MARK & done; sleep 0.1; exit 0",
}

func escapes(t *testing.T, r runner.Runner, terminal *runner.Terminal) {
	for name, script := range waysOut {
		t.Run(name, func(t *testing.T) {
			mark := uniqueSleep()
			c := &runner.Command{Argv: shell(strings.ReplaceAll(script, "MARK", mark)), Terminal: terminal}
			if got := start(t, r, c).Wait(); got.ExitCode != 0 {
				t.Errorf("ended with %+v", got)
			}
			expectGone(t, mark)
		})
	}
}

func stops(t *testing.T, r runner.Runner, terminal *runner.Terminal) {
	for name, script := range map[string]string{
		"new session":     "setsid MARK & MARK",
		"ignores SIGTERM": "trap '' TERM; MARK & while :; do sleep 0.05; done",
		"bomb":            "bomb() { for i in $(seq 60); do setsid MARK & done; }; bomb; while :; do MARK & sleep 0.02; done",
	} {
		for _, force := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s force=%v", name, force), func(t *testing.T) {
				mark := uniqueSleep()
				c := &runner.Command{Argv: shell(strings.ReplaceAll(script, "MARK", mark)), Terminal: terminal, Grace: 200 * time.Millisecond}
				p := start(t, r, c)
				awaitMark(t, mark)
				p.Stop(force)
				p.Stop(force)
				if got := p.Wait(); got.Signal == "" && got.ExitCode < 128 {
					t.Errorf("a stopped process ended with %+v", got)
				}
				expectGone(t, mark)
				p.Stop(true) // after the end it changes nothing
			})
		}
	}
}

func uniqueSleep() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("sleep 1000.%d%d%d%d%d%d", b[0], b[1], b[2], b[3], b[4], b[5])
}

// running returns how many processes have the mark in their command line.
func running(t *testing.T, mark string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(strings.ReplaceAll(string(data), "\x00", " "), mark) {
			n++
		}
	}
	return n
}

func awaitMark(t *testing.T, mark string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for running(t, mark) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the step did not get going")
		}
	}
}

func expectGone(t *testing.T, mark string) {
	t.Helper()
	if n := running(t, mark); n > 0 {
		t.Errorf("%d processes outlived their step", n)
	}
}
