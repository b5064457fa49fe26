package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const secretValue = "hunter2-is-no-password"

// setSecret gives a secret its value by the standard input.
func (w *world) setSecret(name, value string, args ...string) {
	w.t.Helper()
	if got := runHodei(w.t, w.env(), []byte(value), append([]string{"secret", "set", name}, args...)...); got.code != 0 {
		w.t.Fatalf("setting a secret gave %+v", got)
	}
}

// finds names the files below a folder that have a text in them.
func finds(t *testing.T, dir string, texts ...string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // files come and go
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // files come and go
		}
		for _, text := range texts {
			if bytes.Contains(data, []byte(text)) {
				files = append(files, path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A secret reaches the step that names it, and nothing else: not the output, not what the API tells of the job, not a disk.
func TestSecretReachesItsStepAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	w.setSecret("TOKEN", secretValue+"\n")
	script := `echo $TOKEN; echo $TOKEN | base64; printf %s "$TOKEN" | fold -w1; echo; printf %s "$TOKEN" | wc -c; echo "$TOKEN" >&2; exit 3`
	got := w.hodei("run", "--name", "r", "--secret", "TOKEN", "--", "sh", "-c", script)
	folded := strings.Join(strings.Split(secretValue, ""), "\n") // what other bytes separate cannot be found; the documents say so
	want := "****\n****\n" + folded + "\n22\n"
	if got.stdout != want || got.stderr != "****\n" || got.code != 3 {
		t.Errorf("run gave %+v, want %q", got, want)
	}
	dump := w.must("job", "list", "-o", "json") + w.must("secret", "list", "-o", "json") + w.must("logs", w.jobs("r")[0]) + w.server.output.String()
	encoded := base64.StdEncoding.EncodeToString([]byte(secretValue))
	if strings.Contains(dump, secretValue) || strings.Contains(dump, encoded) {
		t.Errorf("the secret is told:\n%s", dump)
	}
	if !strings.Contains(dump, `"masked":{"TOKEN":3}`) {
		t.Errorf("the replacements were not counted:\n%s", dump)
	}
}

// jobs returns the ids of the jobs of a name, the newest first.
func (w *world) jobs(name string) []string {
	w.t.Helper()
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(w.must("job", "list", "--name", name, "-o", "json")), &list); err != nil {
		w.t.Fatal(err)
	}
	ids := make([]string, len(list))
	for i, j := range list {
		ids[i] = j.ID
	}
	return ids
}

// While a step has a secret, as a variable and as a file, no disk has it; when the job has ended, the file is gone.
func TestSecretIsOnNoDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	w.setSecret("TOKEN", secretValue)
	proceed := filepath.Join(t.TempDir(), "go")
	run := startDaemon(t, w.env(), "hodei", "run", "--secret", "TOKEN", "--secret-file", "F=TOKEN", "--", "sh", "-c",
		`test "$(cat $F)" = "$TOKEN" && echo same; stat -c %a "$F"; echo "file $F"; echo $TOKEN; while [ ! -e `+proceed+` ]; do sleep 0.05; done`)
	await(t, "the output", func() bool { return strings.Contains(run.output.String(), "****\n") })
	path, _, _ := strings.Cut(run.output.String()[strings.Index(run.output.String(), "file ")+len("file "):], "\n")
	if !strings.HasPrefix(run.output.String(), "same\n400\nfile /dev/shm/") {
		t.Errorf("the step says %s", run.output)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != secretValue {
		t.Errorf("the file has %q, %v", data, err)
	}
	if files := finds(t, w.dir, secretValue, base64.StdEncoding.EncodeToString([]byte(secretValue))); len(files) > 0 {
		t.Errorf("the secret is in %v", files)
	}
	if err := os.WriteFile(proceed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := run.awaitExit(t); code != 0 {
		t.Errorf("run ended with %d", code)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

// A step on a terminal sees one of the size that was asked for, and what it prints there is masked with the terminal's line ends.
func TestStepOnATerminal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	w.setSecret("KEY", "-----BEGIN KEY-----\nfirst-line-of-it\nsecond-line-of-it\n-----END KEY-----")
	spec := filepath.Join(t.TempDir(), "spec.yaml")
	if err := os.WriteFile(spec, []byte(`
name: tty
steps:
- run: 'stty size; test -t 0 && test -t 2 && echo "$TERM"; echo err >&2; echo "$KEY"; cat; printf end'
  terminal: {columns: 132, rows: 43}
  secrets: [KEY]
`), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must("submit", "-f", spec)
	id := w.jobs("tty")[0]
	w.awaitJob(id, "SUCCEEDED")
	if got, want := w.must("logs", "-f", id), "43 132\r\nxterm-256color\r\nerr\r\n****\r\nend"; got != want {
		t.Errorf("the step wrote %q, want %q", got, want)
	}
	if got := w.hodei("run", "--tty", "-e", "TERM=dumb", "--", "sh", "-c", "stty size; echo $TERM"); got.stdout != "24 80\r\ndumb\r\n" {
		t.Errorf("run gave %+v", got)
	}
}

func TestSecretsOfNamespaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.setSecret("TOKEN", secretValue, "--namespace", "a")
	if got := w.hodei("run", "--namespace", "b", "--secret", "TOKEN", "--", "true"); got.code != 125 || !strings.Contains(got.stderr, "namespace b has no secret TOKEN") {
		t.Errorf("a job with a secret of another namespace gave %+v", got)
	}
	if list := w.must("secret", "list"); strings.Contains(list, "TOKEN") {
		t.Errorf("the default namespace has %s", list)
	}
	// A secret that is removed, or cannot be decrypted any more, fails the attempts that want it, with the reason.
	gone := w.submit("--namespace", "a", "--secret", "TOKEN", "--", "true")
	w.must("secret", "rm", "TOKEN", "--namespace", "a")
	w.setSecret("OTHER", secretValue, "--namespace", "a")
	locked := w.submit("--namespace", "a", "--secret", "OTHER", "--", "true")
	w.server.kill()
	if err := os.WriteFile(filepath.Join(w.dir, "secrets.key"), []byte(strings.Repeat("0f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.agent("w1")
	for id, reason := range map[string]string{gone: "namespace a has no secret TOKEN", locked: "was encrypted with the key"} {
		w.awaitJob(id, "FAILED")
		if out := w.must("job", "get", id, "-o", "json"); !strings.Contains(out, reason) || !strings.Contains(out, "CAUSE_KIND_INVALID") {
			t.Errorf("the job ended with %s, want %q", out, reason)
		}
	}
	if got := w.hodei("secret", "rm", "TOKEN"); got.code != 1 || !strings.Contains(got.stderr, "has no secret TOKEN") {
		t.Errorf("removing what is not there gave %+v", got)
	}
}

// A job may have further secrets masked while it runs; nobody else may do that for it.
func TestJobAddsASecretWhileItRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	agent := program(t, "hodei-agent")
	got := w.hodei("run", "--name", "adds", "--", "sh", "-c",
		`printf fetched-value | `+agent+` mask add --name fetched; echo fetched-value; echo $HODEI_AGENT_SOCKET; printf short | `+agent+` mask add`)
	lines := strings.Split(got.stdout, "\n")
	if len(lines) < 2 || lines[0] != "****" || !strings.Contains(got.stderr, "shorter than 6 bytes") || got.code != 0 {
		t.Fatalf("run gave %+v", got)
	}
	if out := w.must("job", "get", w.jobs("adds")[0], "-o", "json"); !strings.Contains(out, `"fetched":1`) {
		t.Errorf("the replacement was not counted: %s", out)
	}
	cmd := exec.Command(agent, "mask", "add")
	cmd.Env = append(os.Environ(), "HODEI_AGENT_SOCKET="+lines[1])
	cmd.Stdin = strings.NewReader("something")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "belongs to no step") {
		t.Errorf("a process that belongs to no job got %s, %v", out, err)
	}
	// What is told about the end of a step is masked as well.
	w.setSecret("TOKEN", secretValue)
	if got := w.hodei("run", "--secret", "TOKEN", "-w", "/no/"+secretValue, "--", "true"); got.code != 125 ||
		!strings.Contains(got.stderr, "/no/****") || strings.Contains(got.stderr, secretValue) {
		t.Errorf("a step that cannot start gave %+v", got)
	}
	if got := w.hodei("run", "--", "echo", "fetched-value"); got.stdout != "fetched-value\n" {
		t.Errorf("another job gave %+v", got)
	}
}
