package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestRunGivesTheJobsOutputAndExitCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	got := w.hodei("run", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if got.stdout != "out\n" || got.stderr != "err\n" || got.code != 7 {
		t.Errorf("run gave %+v", got)
	}
	for script, code := range map[string]int{"exit 0": 0, "exit 255": 255, "kill -KILL $$": 137, "kill -TERM $$": 143} {
		if got := w.hodei("run", "--", "sh", "-c", script); got.code != code {
			t.Errorf("%q gave %+v, want code %d", script, got, code)
		}
	}
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"no-such-command"}, 127, "no-such-command"},
		{[]string{plain}, 126, "not executable"},
	} {
		if got := w.hodei(append([]string{"run", "--"}, tc.args...)...); got.code != tc.code || !strings.Contains(got.stderr, tc.text) {
			t.Errorf("%q gave %+v, want code %d and %q", tc.args, got, tc.code, tc.text)
		}
	}
	if got := w.hodei("run", "--working-dir", "/no/such/dir", "--", "true"); got.code != 125 || !strings.Contains(got.stderr, "/no/such/dir") {
		t.Errorf("a missing working directory gave %+v", got)
	}
	dir := t.TempDir()
	if got := w.hodei("run", "-w", dir, "-e", "A=b c", "--", "sh", "-c", `pwd; echo "$A"; echo "$HODEI_JOB_ID" | cut -c1-4`); got.stdout != dir+"\nb c\njob_\n" {
		t.Errorf("working directory and environment gave %+v", got)
	}
	if got := w.hodei("run", "--timeout", "300ms", "--", "sleep", "100"); got.code != 124 || !strings.Contains(got.stderr, "time limit") {
		t.Errorf("a job over its time gave %+v", got)
	}
}

func TestOutputArrivesByteExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	data := make([]byte, 50_000_000)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got := w.hodei("run", "--", "cat", file)
	if sha256.Sum256([]byte(got.stdout)) != sha256.Sum256(data) {
		t.Errorf("%d bytes were written and %d arrived, or they differ: %s", len(data), len(got.stdout), got.stderr)
	}
}

func TestServerKilledInTheMiddleOfARun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", "for i in $(seq 1 100); do echo $i; sleep 0.05; done")
	await(t, "the tenth line", func() bool { return strings.Contains(run.output.String(), "\n10\n") })
	w.server.kill()
	w.restart()
	if code := run.awaitExit(t); code != 0 {
		t.Errorf("run ended with %d", code)
	}
	var want bytes.Buffer
	for i := range 100 {
		fmt.Fprintln(&want, i+1)
	}
	if run.output.String() != want.String() {
		t.Errorf("the lines did not arrive once and in order:\n%s", run.output)
	}
}

func TestServerStoppedInGoodOrderLeavesTheJobRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", "echo begin; sleep 2; echo end")
	await(t, "the first line", func() bool { return run.output.String() == "begin\n" })
	w.server.signal(t, syscall.SIGTERM)
	if code := w.server.awaitExit(t); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
	w.restart()
	if code := run.awaitExit(t); code != 0 || run.output.String() != "begin\nend\n" {
		t.Errorf("run ended with %d: %s", code, run.output)
	}
}

func TestCancelLeavesNoProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	mark := "sleep 1000." + strconv.Itoa(os.Getpid()) + "1"
	id := w.submit("--", "sh", "-c", "setsid "+mark+" & "+mark)
	await(t, "both processes", func() bool { return processes(t, mark) == 2 })
	w.must("cancel", id)
	w.awaitJob(id, "CANCELED")
	if n := processes(t, mark); n != 0 {
		t.Errorf("%d processes outlived the cancel", n)
	}
	if got := w.hodei("cancel", id); got.code != 1 || !strings.Contains(got.stderr, "has ended already") {
		t.Errorf("canceling a job that has ended gave %+v", got)
	}
}

func TestInterruptCancelsARunAndTheSecondForces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	mark := "sleep 1000." + strconv.Itoa(os.Getpid()) + "2"
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", "trap 'echo no' TERM; echo ready; "+mark+" & while :; do sleep 0.05; done")
	await(t, "the job", func() bool { return strings.Contains(run.output.String(), "ready") && processes(t, mark) == 1 })
	run.signal(t, os.Interrupt)
	await(t, "the polite signal", func() bool { return strings.Contains(run.output.String(), "no\n") })
	run.signal(t, os.Interrupt)
	if code := run.awaitExit(t); code != 130 {
		t.Errorf("run ended with %d: %s", code, run.output)
	}
	if n := processes(t, mark); n != 0 {
		t.Errorf("%d processes outlived the cancel", n)
	}
}

func TestCancelOfOneStepGoesOnWithTheNext(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	spec := filepath.Join(t.TempDir(), "job.yaml")
	text := "name: steps\nsteps:\n- name: first\n  command: [sleep, '1000']\n- name: second\n  run: echo second\n"
	if err := os.WriteFile(spec, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(w.must("submit", "-f", spec))
	w.awaitJob(id, "RUNNING")
	w.must("cancel", "--step", "first", id)
	if got := w.hodei("logs", "-f", id); got.stdout != "second\n" || got.code != 0 {
		t.Errorf("the log is %+v", got)
	}
	w.awaitJob(id, "SUCCEEDED")
	if got := w.hodei("wait", id); got.code != 0 {
		t.Errorf("wait gave %+v", got)
	}
	if got := w.must("job", "get", id, "-o", "yaml"); !strings.Contains(got, "STEP_STATE_CANCELED") {
		t.Errorf("the first step is not shown as canceled:\n%s", got)
	}
}

func TestAgentKilledEndsItsJobAsLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--lease", "4s")
	first := w.agent("w1", "--label", "disk=fast")
	mark := "sleep 1000." + strconv.Itoa(os.Getpid()) + "3"
	once := w.submit("--", "sh", "-c", "echo before; exec "+mark)
	again := w.submit("--max-attempts", "2", "--", "sh", "-c", `test "$HODEI_ATTEMPT" = 2 || exec `+mark)
	await(t, "both processes", func() bool { return processes(t, mark) == 2 })
	first.kill()
	w.agent("w2")
	w.awaitJob(once, "LOST")
	w.awaitJob(again, "SUCCEEDED")
	if ran, second := w.field("job", again, "worker_id"), w.field("worker", "w2", "id"); ran != second {
		t.Errorf("the second attempt ran on %s and not on %s", ran, second)
	}
	if got := w.hodei("logs", once); got.stdout != "before\n" || !strings.Contains(got.stderr, "missing") {
		t.Errorf("the log of the lost job is %+v", got)
	}
	// The agent comes back with its folder: what it left behind is ended.
	args := append([]string{}, first.cmd.Args[1:]...)
	startDaemon(t, nil, "hodei-agent", args...)
	w.awaitWorker("w1", "WORKER_STATE_READY")
	await(t, "the left-overs to be gone", func() bool { return processes(t, mark) == 0 })
}

func TestJobThatMayRunAgainOutlivesItsLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--lease", "3s")
	w.agent("w1")
	if got := w.hodei("run", "--max-attempts", "2", "--", "sh", "-c", "sleep 5; echo $HODEI_ATTEMPT"); got.stdout != "1\n" || got.code != 0 {
		t.Errorf("a job longer than the lease gave %+v", got)
	}
}

func TestAgentCutOffEndsWhatMayBeHandedOutAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--lease", "5s")
	agent := w.agent("w1")
	mark := "sleep 1000." + strconv.Itoa(os.Getpid()) + "4"
	w.submit("--max-attempts", "3", "--", "sh", "-c", "exec "+mark)
	await(t, "the process", func() bool { return processes(t, mark) == 1 })
	if err := stopped(w.server); err != nil { // the connection stays, but nothing comes
		t.Fatal(err)
	}
	await(t, "the agent to fence itself", func() bool { return processes(t, mark) == 0 })
	if err := resumed(w.server); err != nil {
		t.Fatal(err)
	}
	await(t, "another attempt", func() bool { return processes(t, mark) == 1 })
	agent.kill()
}

func TestDemoAndDevLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	env := []string{"XDG_CONFIG_HOME=" + home + "/config", "XDG_DATA_HOME=" + home + "/data", "TMPDIR=" + home, "HODEI_URL=", "HODEI_CONTEXT="}
	got := runHodei(t, env, nil, "demo")
	if got.code != 0 || !strings.Contains(got.stdout, "Hello from a real process") || !strings.Contains(got.stderr, "the log is complete") {
		t.Errorf("demo gave %+v", got)
	}
	if left, err := os.ReadDir(home); err != nil || len(left) != 0 {
		t.Errorf("demo left %v %v", left, err)
	}
	dev := startDaemon(t, env, "hodei", "dev", "--listen", "127.0.0.1:0")
	await(t, "dev", func() bool { return strings.Contains(dev.output.String(), "Hodei runs at") })
	if got := runHodei(t, env, nil, "config", "view", "-o", "json"); !strings.Contains(got.stdout, `"url":"https://127.0.0.1:`) {
		t.Errorf("config view gave %+v", got)
	}
	if got := runHodei(t, env, nil, "run", "--", "echo", "hi"); got.stdout != "hi\n" || got.code != 0 {
		t.Errorf("run gave %+v", got)
	}
	dev.signal(t, os.Interrupt)
	if code := dev.awaitExit(t); code != 0 {
		t.Errorf("dev ended with %d", code)
	}
}

func TestWaitingJobSaysWhy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	run := startDaemon(t, w.env(), "hodei", "run", "--cpu", "1000", "--", "true")
	await(t, "the reason", func() bool { return strings.Contains(run.output.String(), "no worker has ever connected") })
	w.agent("small")
	await(t, "the new reason", func() bool { return strings.Contains(run.output.String(), "too small for 1000 CPUs") })
	run.signal(t, os.Interrupt)
	if code := run.awaitExit(t); code != 130 {
		t.Errorf("run ended with %d: %s", code, run.output)
	}
}

func TestWaitEndsWithTheJobAlsoThroughARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	gate := filepath.Join(t.TempDir(), "gate")
	one := w.submit("--", "sh", "-c", "while [ ! -e "+gate+" ]; do sleep 0.05; done; exit 9")
	w.awaitJob(one, "RUNNING")
	wait := startDaemon(t, w.env(), "hodei", "wait", one)
	expired := w.hodei("wait", "--timeout", "100ms", one)
	if expired.code != 124 {
		t.Errorf("wait over its time gave %+v", expired)
	}
	w.server.kill()
	w.restart()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := wait.awaitExit(t); code != 9 {
		t.Errorf("wait ended with %d: %s", code, wait.output)
	}
}

func TestJobWhoseOutputNobodyReadsIsCanceled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	cmd := exec.Command("bash", "-c", program(t, "hodei")+" run --name unread -- yes | head -n 1")
	cmd.Env = append(os.Environ(), w.env()...)
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "y\n" {
		t.Errorf("the pipe gave %q, %v", out, err)
	}
	await(t, "the job to end", func() bool {
		return strings.Contains(w.must("job", "list", "--name", "unread", "-o", "json"), "JOB_STATE_CANCELED")
	})
}

func TestDrainedWorkerTakesNoJobs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	w.must("worker", "drain", "w1")
	id := w.submit("--", "true")
	await(t, "the reason", func() bool { return strings.Contains(w.field("job", id, "pending_reason"), "draining") })
	w.server.kill()
	w.restart()
	w.awaitWorker("w1", "WORKER_STATE_DRAINING")
	w.must("worker", "drain", "--resume", "w1")
	w.awaitJob(id, "SUCCEEDED")
}

func TestAgentDrainsOnTheFirstSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	agent := w.agent("w1")
	run := startDaemon(t, w.env(), "hodei", "run", "--", "sh", "-c", "echo begin; sleep 1; echo end")
	await(t, "the job", func() bool { return run.output.String() == "begin\n" })
	agent.signal(t, syscall.SIGTERM)
	if code := run.awaitExit(t); code != 0 || run.output.String() != "begin\nend\n" {
		t.Errorf("the job ended with %d: %s", code, run.output)
	}
	if code := agent.awaitExit(t); code != 0 {
		t.Errorf("the agent ended with %d", code)
	}
}

func TestGenericToolsReachTheServer(t *testing.T) {
	t.Parallel()
	tools := os.Getenv("HODEI_TOOLS")
	if tools == "" {
		tools = filepath.Join("..", ".bin")
	}
	w := newWorld(t)
	w.agent("w1")
	address := strings.TrimPrefix(w.url, "https://")
	tls := []string{"-cacert", w.dir + "/tls/ca.pem", "-cert", w.dir + "/tls/admin.pem", "-key", w.dir + "/tls/admin-key.pem"}
	call := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(filepath.Join(tools, name), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	if out := call("grpcurl", append(tls, address, "list")...); !strings.Contains(out, "hodei.v1.JobService") || !strings.Contains(out, "hwp.v1.WorkerService") {
		t.Errorf("grpcurl lists %s", out)
	}
	spec := `{"spec": {"steps": [{"command": {"argv": ["echo", "hi"]}}]}}`
	if out := call("grpcurl", append(tls, "-d", spec, address, "hodei.v1.JobService/SubmitJob")...); !strings.Contains(strings.ReplaceAll(out, " ", ""), `"id":"job_`) {
		t.Errorf("grpcurl got %s", out)
	}
	bufTLS := []string{"curl", "--cacert", w.dir + "/tls/ca.pem", "--cert", w.dir + "/tls/admin.pem", "--key", w.dir + "/tls/admin-key.pem"}
	if out := call("buf", append(bufTLS, "--list-methods", w.url)...); !strings.Contains(out, "hodei.v1.LogService/TailLogs") {
		t.Errorf("buf curl lists %s", out)
	}
	if out := call("buf", append(bufTLS, "-d", spec, w.url+"/hodei.v1.JobService/SubmitJob")...); !strings.Contains(strings.ReplaceAll(out, " ", ""), `"id":"job_`) {
		t.Errorf("buf curl got %s", out)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	elsewhere := newWorld(t)
	_, pin := w.token()
	_, otherPin := elsewhere.token()
	for _, tc := range []struct {
		name string
		args []string
		env  []string
		code int
		text string
	}{
		{"no command", []string{"run"}, nil, 2, "write it after --"},
		{"unknown field", []string{"submit", "-f", write("a.yaml", "name: x\nstepz:\n- command: [true]\n")}, nil, 1, `line 2: JobSpec has no field "stepz"; did you mean "steps"?`},
		{"step without a command", []string{"submit", "-f", write("b.yaml", "steps:\n- name: x\n")}, nil, 1, "steps[0]"},
		{"no steps", []string{"submit", "-f", write("c.yaml", "name: x\n")}, nil, 1, "steps"},
		{"10 MB", []string{"submit", "-f", write("d.yaml", "name: x\nsteps: [{run: '"+strings.Repeat("x", 10<<20)+"'}]\n")}, nil, 1, "limit of 4194304 bytes"},
		{"NUL", []string{"submit", "-f", write("e.json", `{"steps": [{"command": {"argv": ["a\u0000b"]}}]}`)}, nil, 1, "NUL"},
		{"unknown job", []string{"job", "get", "job_nope"}, nil, 1, `there is no job "job_nope"`},
		{"logs of an unknown job", []string{"logs", "job_nope"}, nil, 1, `there is no job "job_nope"`},
		{"cancel of an unknown job", []string{"cancel", "job_nope"}, nil, 1, `there is no job "job_nope"`},
		{"unknown worker", []string{"worker", "get", "nope"}, nil, 1, `there is no worker "nope"`},
		{"unknown command", []string{"rnu"}, nil, 2, "unknown command"},
		{"unknown flag", []string{"run", "--nope", "--", "true"}, nil, 2, "nope"},
		{"wrong CA", []string{"job", "list"}, []string{"HODEI_CA=" + elsewhere.dir + "/tls/ca.pem"}, 1, "another CA"},
		{"foreign certificate", []string{"job", "list"}, []string{
			"HODEI_CERT=" + elsewhere.dir + "/tls/admin.pem", "HODEI_KEY=" + elsewhere.dir + "/tls/admin-key.pem",
		}, 4, "client certificate"},
		{"no server", []string{"job", "list"}, []string{"HODEI_URL=https://127.0.0.1:1"}, 1, "no server answers"},
		{"not a URL", []string{"job", "list"}, []string{"HODEI_URL=nope"}, 1, "https://host:7443"},
		{"second server", []string{"server", "--data-dir", w.dir, "--listen", "127.0.0.1:0", "--ops-listen", "-"}, nil, 1, "in use by another hodei server"},
		{"port in use", []string{"server", "--data-dir", dir + "/x", "--listen", strings.TrimPrefix(w.url, "https://")}, nil, 1, "--listen"},
		{"agent without token", []string{"agent", "--server", w.url, "--state-dir", dir + "/agent"}, nil, 1, "hodei token create"},
		{"agent with a wrong token", []string{"agent", "--server", w.url, "--state-dir", dir + "/agent", "--token", "hat_nope", "--ca-pin", pin}, nil, 1, "not known here"},
		{"agent with a wrong pin", []string{"agent", "--server", w.url, "--state-dir", dir + "/agent", "--token", "x", "--ca-pin", otherPin}, nil, 1, "this is another server"},
	} {
		got := runHodei(t, append(w.env(), tc.env...), nil, tc.args...)
		if got.code != tc.code || !strings.Contains(got.stderr, tc.text) {
			t.Errorf("%s: code %d, stderr %q; want %d and %q", tc.name, got.code, got.stderr, tc.code, tc.text)
		}
	}
	if got := w.must("job", "list", "-o", "json"); got != "[]\n" {
		t.Errorf("bad input left jobs: %s", got)
	}
}

func TestExpiredTokenIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, pin := w.token("--ttl", "1ms")
	<-time.After(10 * time.Millisecond)
	args := []string{"agent", "--server", w.url, "--state-dir", t.TempDir(), "--ca-pin", pin, "--token-file", "-"}
	got := runHodei(t, w.env(), []byte(secret), args...)
	if got.code != 1 || !strings.Contains(got.stderr, "expired") {
		t.Errorf("an expired token gave %+v", got)
	}
}
