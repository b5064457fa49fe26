package e2e

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Whatever bytes a program writes, and in whatever way, these bytes are what readers get.
func TestAnyBytesArriveAsTheyWereWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	for name, c := range map[string]struct{ script, want string }{
		"invalid UTF-8":     {`printf '\377\376a\200\n'`, "\xff\xfea\x80\n"},
		"NUL":               {`printf 'a\000b\000\n'`, "a\x00b\x00\n"},
		"progress bars":     {`for i in 1 2 3; do printf "\r%d %%" $i; done`, "\r1 %\r2 %\r3 %"},
		"a closed stdout":   {`exec >&-; echo lost 2>&- || exit 0`, ""},
		"no line end":       {`printf end`, "end"},
		"only line ends":    {`printf '\n\n\n'`, "\n\n\n"},
		"a late grandchild": {`(sleep 0.2; echo late) & echo first`, "first\n"}, // the step ends with its first process
	} {
		if got := w.hodei("run", "--", "sh", "-c", c.script); got.stdout != c.want || got.code != 0 {
			t.Errorf("%s: run gave %+v, want %q", name, got, c.want)
		}
	}
	big := sha256.New()
	_, _ = big.Write([]byte(strings.Repeat("x", 64_000_000)))
	if got := w.hodei("run", "--", "sh", "-c", "head -c 64000000 /dev/zero | tr '\\0' x"); sha256.Sum256([]byte(got.stdout)) != [32]byte(big.Sum(nil)) {
		t.Errorf("of a line of 64 MB %d bytes arrived, or others: %s", len(got.stdout), got.stderr)
	}
	if got := w.hodei("run", "--", "dd", "if=/dev/zero", "bs=1", "count=1000000", "status=none"); got.stdout != strings.Repeat("\x00", 1_000_000) {
		t.Errorf("of a million writes of one byte %d bytes arrived: %s", len(got.stdout), got.stderr)
	}
}

// A process that has left its step and holds the step's output open delays the end of the output, but not for ever.
func TestOutputThatAnotherProcessHoldsOpenEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	pipe := filepath.Join(t.TempDir(), "pipe")
	// A process of the test, which no step owns, opens the step's stdout by its descriptor.
	script := `echo $$ > ` + pipe + `; echo ready; while [ ! -e ` + pipe + `.held ]; do sleep 0.05; done; echo end`
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", script)
	await(t, "the step", func() bool { return strings.Contains(run.output.String(), "ready\n") })
	pid, err := os.ReadFile(pipe)
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile("/proc/"+strings.TrimSpace(string(pid))+"/fd/1", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if err := os.WriteFile(pipe+".held", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run.awaitExit(t); code != 0 || run.output.String() != "ready\nend\n" {
		t.Errorf("run ended with %d: %s", code, run.output)
	}
}

// The server is away for many leases while a job writes 200 MB: nothing is lost.
func TestServerAwayWhileAJobWritesMuch(t *testing.T) {
	t.Parallel()
	const lease = 6 * time.Second // longer than an agent may take to come back
	w := newWorld(t, "--lease", lease.String())
	w.agent("w1")
	written := filepath.Join(t.TempDir(), "written")
	script := fmt.Sprintf(`echo begin; while [ ! -e %[1]s.go ]; do sleep 0.05; done; seq 26000000 | head -c 200000000; echo; echo end; touch %[1]s`, written)
	id := w.submit("--", "sh", "-c", script)
	await(t, "the job", func() bool { return strings.HasPrefix(w.hodei("logs", id).stdout, "begin\n") })
	w.server.kill()
	if err := os.WriteFile(written+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the job to have written everything", func() bool {
		_, err := os.Stat(written)
		return err == nil
	})
	<-time.After(2*lease + lease/2)
	w.restart()
	w.awaitJob(id, "SUCCEEDED")
	got := w.hodei("logs", "-f", id)
	sum := sha256.New()
	fmt.Fprint(sum, "begin\n")
	left := 200_000_000
	for i := 1; left > 0; i++ {
		line := strconv.Itoa(i) + "\n"
		line = line[:min(left, len(line))]
		left -= len(line)
		fmt.Fprint(sum, line)
	}
	fmt.Fprint(sum, "\nend\n")
	if sha256.Sum256([]byte(got.stdout)) != [32]byte(sum.Sum(nil)) || got.stderr != "" || got.code != 0 {
		t.Errorf("%d bytes arrived, or others than were written; code %d, %s", len(got.stdout), got.code, got.stderr)
	}
}

// An agent is killed while its job writes: what is stored is a true prefix, and readers are told that there is a gap.
func TestOutputOfAKilledAgentIsATruePrefix(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--lease", "4s")
	agent := w.agent("w1")
	id := w.submit("--", "sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; done")
	await(t, "much output", func() bool { return len(w.hodei("logs", id).stdout) > 100_000 })
	agent.kill()
	w.awaitJob(id, "LOST")
	prefix := func() string {
		got := w.hodei("logs", "-f", id)
		if !strings.Contains(got.stderr, "output is missing: bytes from "+strconv.Itoa(len(got.stdout))+" on of attempt 1") || got.code != 0 {
			t.Errorf("the reader is told %q after %d bytes, code %d", got.stderr, len(got.stdout), got.code)
		}
		lines := strings.SplitAfter(got.stdout, "\n")
		for i, line := range lines {
			if want := fmt.Sprintf("line %d\n", i+1); line != want && (i < len(lines)-1 || !strings.HasPrefix(want, line)) {
				t.Fatalf("line %d is %q", i+1, line)
			}
		}
		return got.stdout
	}
	before := prefix()
	// The agent comes back: it still has what it had read and not sent.
	startDaemon(t, nil, "hodei-agent", agent.cmd.Args[1:]...)
	w.awaitWorker("w1", "WORKER_STATE_READY")
	await(t, "the end of the log", func() bool { return strings.Contains(w.hodei("logs", id).stderr, "restarted") })
	if after := prefix(); !strings.HasPrefix(after, before) {
		t.Errorf("%d bytes became %d others", len(before), len(after))
	}
}

// The agent's disk is full while the server is away: the job waits, and when there is room again it goes on and nothing is lost.
func TestFullDiskOfAnAgentHoldsTheJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := smallDisk(t, 32)
	agent := w.agent("w1", "--state-dir", dir)
	started := filepath.Join(t.TempDir(), "started")
	id := w.submit("--", "sh", "-c", "echo begin; while [ ! -e "+started+" ]; do sleep 0.05; done; seq 1000000; echo end")
	await(t, "the job", func() bool { return strings.HasPrefix(w.hodei("logs", id).stdout, "begin\n") })
	w.server.kill()
	ballast := fill(t, dir, 1<<20)
	if err := os.WriteFile(started, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the agent to say what is wrong", func() bool { return strings.Contains(agent.output.String(), "output cannot be written") })
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.awaitJob(id, "SUCCEEDED")
	want := sha256.New()
	fmt.Fprint(want, "begin\n")
	for i := range 1_000_000 {
		fmt.Fprintln(want, i+1)
	}
	fmt.Fprint(want, "end\n")
	if got := w.hodei("logs", "-f", id); sha256.Sum256([]byte(got.stdout)) != [32]byte(want.Sum(nil)) || got.stderr != "" {
		t.Errorf("%d bytes arrived, or others than were written: %s", len(got.stdout), got.stderr)
	}
}

// Output is chosen by line, time, stream and text, and a namespace has limits for its logs.
func TestOutputIsChosen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	id := w.submit("--", "sh", "-c", "echo one; echo two >&2; echo three; exit 1")
	w.awaitJob(id, "FAILED")
	for name, c := range map[string]struct {
		args           []string
		stdout, stderr string
		code           int
	}{
		"all":                {nil, "one\nthree\n", "two\n", 0},
		"raw":                {[]string{"--raw"}, "one\ntwo\nthree\n", "", 0},
		"a stream":           {[]string{"--stream", "stderr"}, "", "two\n", 0},
		"tail of a stream":   {[]string{"--tail", "1", "--stream", "stdout"}, "three\n", "", 0},
		"an attempt's step":  {[]string{"--attempt", "1", "--step", "step-1"}, "one\nthree\n", "two\n", 0},
		"long ago":           {[]string{"--until", "1h"}, "", "", 0},
		"since then":         {[]string{"--since", "2000-01-01T00:00:00Z"}, "one\nthree\n", "two\n", 0},
		"lines that match":   {[]string{"--grep", "e$"}, "one\nthree\n", "", 0},
		"followed and found": {[]string{"-f", "--grep", "^t"}, "three\n", "two\n", 0},
		"no line matches":    {[]string{"--grep", "four"}, "", "", 1},
		"a bad pattern":      {[]string{"--grep", "("}, "", "missing closing", 2},
		"two beginnings":     {[]string{"--tail", "1", "--since", "1h"}, "", "keep one", 2},
		"a time of nobody":   {[]string{"--since", "yesterday"}, "", "neither a time", 2},
	} {
		got := w.hodei(append([]string{"logs", id}, c.args...)...)
		if got.code != c.code || c.code != 2 && (c.args == nil || c.args[0] != "--raw") && (got.stdout != c.stdout || got.stderr != c.stderr) ||
			c.code == 2 && !strings.Contains(got.stderr, c.stderr) {
			t.Errorf("%s: logs %v gave %+v", name, c.args, got)
		}
	}
	// The order of two streams is that in which the agent read them, which may be another than that in which they were written.
	if got := w.must("logs", "--raw", id); len(got) != len("one\ntwo\nthree\n") || !strings.Contains(got, "two\n") {
		t.Errorf("all of the output is %q", got)
	}
	w.must("admin", "retention", "set", "default", "--max-age", "168h", "--max-size", "10Gi")
	if got := w.must("admin", "retention", "list"); !strings.Contains(got, "default    168h0m0s  10240Mi") {
		t.Errorf("the limits are\n%s", got)
	}
}
