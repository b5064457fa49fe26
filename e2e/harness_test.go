// Package e2e runs the built programs as users do: a server, agents and the command line as processes of their own, which
// are killed, cut off and started again.
package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for something that normally comes at once. It is a limit for hanging, not a measure.
const patience = 60 * time.Second

// binaries builds both programs once, unless HODEI_BIN names a folder that has them.
var binaries = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("HODEI_BIN"); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "hodei-e2e-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir+"/", "github.com/hodei-jobs/hodei/cmd/hodei", "github.com/hodei-jobs/hodei/cmd/hodei-agent").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return dir, nil
})

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// daemon is a program that runs until it is stopped.
type daemon struct {
	cmd    *exec.Cmd
	output *safeBuffer
	exited chan struct{}
}

func startDaemon(t *testing.T, env []string, name string, args ...string) *daemon {
	t.Helper()
	d := prepare(program(t, name), args...)
	d.cmd.Env = append(os.Environ(), env...)
	d.start(t)
	return d
}

// prepare makes a daemon that is not started yet.
func prepare(path string, args ...string) *daemon {
	d := &daemon{cmd: exec.Command(path, args...), output: new(safeBuffer), exited: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait() // how it ended is the tests' business
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", filepath.Base(d.cmd.Path), d.output)
		}
	})
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

func (d *daemon) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (d *daemon) awaitExit(t *testing.T) int {
	t.Helper()
	select {
	case <-d.exited:
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // so that it says where it hangs
		select {
		case <-d.exited:
		case <-time.After(patience):
		}
		t.Fatalf("the program did not end:\n%s", d.output)
		return 0
	}
}

// safeBuffer is a buffer that may be read while it is written to.
type safeBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

// await polls until the condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// world is a server with its folder and address, which stay the same when it is started again.
type world struct {
	t       *testing.T
	dir     string
	url     string
	server  *daemon
	options []string
	binary  string // empty: the usual one
}

func newWorld(t *testing.T, options ...string) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir(), options...)
}

// newWorldIn starts a server with its data in a folder.
func newWorldIn(t *testing.T, dir string, options ...string) *world {
	t.Helper()
	w := &world{t: t, dir: dir, options: options}
	w.start("127.0.0.1:0")
	return w
}

// start runs the server and waits until it is ready.
func (w *world) start(listen string) {
	w.t.Helper()
	args := append([]string{"server", "--data-dir", w.dir, "--listen", listen, "--ops-listen", "127.0.0.1:0", "--log-format", "json"}, w.options...)
	w.server = prepare(cmp.Or(w.binary, program(w.t, "hodei")), args...)
	w.server.start(w.t)
	await(w.t, "the server", func() bool {
		select {
		case <-w.server.exited:
			w.t.Fatalf("the server ended:\n%s", w.server.output)
		default:
		}
		w.url = w.logged("server ready", "url")
		return w.url != ""
	})
}

// logged returns a value of the first log line with this message.
func (w *world) logged(message, key string) string {
	for line := range strings.Lines(w.server.output.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message {
			value, _ := entry[key].(string)
			return value
		}
	}
	return ""
}

// restart starts the server again where it was.
func (w *world) restart() {
	w.t.Helper()
	w.start(strings.TrimPrefix(w.url, "https://"))
}

func (w *world) env() []string {
	return []string{
		"HODEI_URL=" + w.url, "HODEI_CA=" + filepath.Join(w.dir, "tls/ca.pem"),
		"HODEI_CERT=" + filepath.Join(w.dir, "tls/admin.pem"), "HODEI_KEY=" + filepath.Join(w.dir, "tls/admin-key.pem"),
		"XDG_CONFIG_HOME=" + w.dir + "/config",
	}
}

// result is what a command did.
type result struct {
	stdout, stderr string
	code           int
}

// hodei runs the command line to its end.
func (w *world) hodei(args ...string) result {
	w.t.Helper()
	return runHodei(w.t, w.env(), nil, args...)
}

func runHodei(t *testing.T, env []string, stdin []byte, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, "hodei"), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must runs the command line and expects success.
func (w *world) must(args ...string) string {
	w.t.Helper()
	r := w.hodei(args...)
	if r.code != 0 {
		w.t.Fatalf("hodei %q ended with %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// agent starts an agent with a token of its own and waits until it is connected.
func (w *world) agent(name string, args ...string) *daemon {
	w.t.Helper()
	return w.agentWith(nil, name, args...)
}

// token makes a token and returns its secret and the CA's pin.
func (w *world) token(args ...string) (secret, pin string) {
	w.t.Helper()
	var token struct {
		Secret string `json:"secret"`
		Pin    string `json:"ca_pin"`
	}
	if err := json.Unmarshal([]byte(w.must(append([]string{"token", "create", "-o", "json"}, args...)...)), &token); err != nil {
		w.t.Fatal(err)
	}
	return token.Secret, token.Pin
}

// agentWith starts an agent with variables of its own.
func (w *world) agentWith(env []string, name string, args ...string) *daemon {
	w.t.Helper()
	secret, pin := w.token()
	args = append([]string{
		"--server", w.url, "--state-dir", filepath.Join(w.dir, "agent-"+name), "--name", name, "--token", secret, "--ca-pin", pin,
	}, args...)
	d := startDaemon(w.t, env, "hodei-agent", args...)
	w.awaitWorker(name, "WORKER_STATE_READY")
	return d
}

func (w *world) awaitWorker(name, state string) {
	w.t.Helper()
	await(w.t, name+" to be "+state, func() bool { return w.field("worker", name, "state") == state })
}

// field returns a field of a job or a worker as the API has it.
func (w *world) field(kind, id, name string) string {
	r := w.hodei(kind, "get", id, "-o", "json")
	var fields map[string]any
	if r.code != 0 || json.Unmarshal([]byte(r.stdout), &fields) != nil {
		return ""
	}
	value, _ := fields[name].(string)
	return value
}

func (w *world) submit(args ...string) string {
	w.t.Helper()
	var answer struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(w.must(append([]string{"submit", "-o", "json"}, args...)...)), &answer); err != nil {
		w.t.Fatal(err)
	}
	return answer.ID
}

func (w *world) awaitJob(id, state string) {
	w.t.Helper()
	await(w.t, id+" to be "+state, func() bool { return w.field("job", id, "state") == "JOB_STATE_"+state })
}

// processes returns how many processes have the text in their command line, those of the tests themselves left out.
func processes(t *testing.T, text string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		line := strings.TrimSuffix(strings.ReplaceAll(string(data), "\x00", " "), " ")
		if err == nil && line == text {
			n++
		}
	}
	return n
}

func stopped(d *daemon) error { return d.cmd.Process.Signal(syscall.SIGSTOP) }
func resumed(d *daemon) error { return d.cmd.Process.Signal(syscall.SIGCONT) }

// pin returns the hash of the server's CA.
func (w *world) pin() string {
	w.t.Helper()
	_, pin := w.token()
	return pin
}
