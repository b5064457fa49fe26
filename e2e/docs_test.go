package e2e

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shellBlocks returns the blocks of shell commands below a heading of a document.
func shellBlocks(t *testing.T, file, heading string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", file))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(data), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", file, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var blocks []string
	for {
		_, rest, ok := strings.Cut(section, "```sh\n")
		if !ok {
			return blocks
		}
		block, after, _ := strings.Cut(rest, "```")
		blocks, section = append(blocks, block), after
	}
}

// shell runs a script with the programs in PATH and in bin/, as a reader of the README would.
func shell(t *testing.T, env []string, script string) string {
	t.Helper()
	dir := t.TempDir()
	programs, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	if programs, err = filepath.Abs(programs); err != nil {
		t.Fatal(err)
	}
	tools, err := filepath.Abs("../.bin")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{
		os.Symlink(programs, filepath.Join(dir, "bin")),
		os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "x.go"), []byte("package x\n"), 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	cmd := exec.Command("bash", "-e", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "PATH="+programs+":"+tools+":"+os.Getenv("PATH"), "PWD="+dir), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s\n--- of\n%s", err, out, script)
	}
	return string(out)
}

func TestReadmeUseIt(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	env := []string{
		"XDG_CONFIG_HOME=" + home, "XDG_DATA_HOME=" + home, "HODEI_LISTEN=127.0.0.1:0", "HODEI_URL=", "HODEI_CONTEXT=",
	}
	block := strings.Replace(shellBlocks(t, "README.md", "Use it")[0], "scripts/build ", "true ", 1)
	// The reader waits for dev's words before going on, and ends it with Ctrl-C.
	block = strings.Replace(block, "worker on this machine\n", "worker on this machine\ndev=$!\ntrap 'kill $dev; wait $dev' EXIT\n"+
		"for i in $(seq 300); do bin/hodei worker list 2>/dev/null | grep -q ready && break; sleep 0.1; done\n", 1)
	block = strings.Replace(block, "exit 7'; echo $?", "exit 7' || echo $?", 1)
	out := shell(t, env, block)
	for _, want := range []string{"out\n", "err\n", "7\n", "State:", "cancel"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

func TestReadmeCallIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	block := shellBlocks(t, "README.md", "Call it")[0]
	block = strings.ReplaceAll(block, "DATA-DIR", w.dir)
	block = strings.ReplaceAll(block, "127.0.0.1:7443", strings.TrimPrefix(w.url, "https://"))
	out := shell(t, nil, block)
	for _, want := range []string{"hodei.v1.JobService", "hwp.v1.WorkerService", "job_"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
}

func TestSecretsAsTheDocumentUsesThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	out := shell(t, w.env(), shellBlocks(t, "docs/secrets.md", "Use secrets")[0])
	for _, want := range []string{"version 1\n", "TOKEN  1 ", "the token is ****\n", "\n22\n22\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	blocks := shellBlocks(t, "docs/secrets.md", "What is masked")
	script := "fetch-token() { echo a-fetched-token; }\n" + blocks[0] + "cat token\n"
	if got := w.hodei("run", "--", "sh", "-c", "PATH="+filepath.Dir(program(t, "hodei-agent"))+":$PATH\n"+strings.ReplaceAll(script, "fetch-token", "fetch_token")); got.stdout != "****\n" {
		t.Errorf("a job that adds a secret gave %+v", got)
	}
	key := shell(t, nil, shellBlocks(t, "docs/secrets.md", "How they are kept")[0]+"cat secrets.key\n")
	if _, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key)); err != nil || len(strings.TrimSpace(key)) != 44 {
		t.Errorf("the key is %q, %v", key, err)
	}
}

func TestLogsAsTheDocumentReadsThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	out := shell(t, w.env(), shellBlocks(t, "docs/logs.md", "Read logs")[0])
	out = strings.ReplaceAll("\n"+out, "\nwarning: old\n", "\n") // what went to stderr, whenever that was
	out = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z`).ReplaceAllString(out, "TIME")
	want := "\n1003\n::endgroup::\ndone\n990\n991\n992\n993\n994\n995\n996\n997\n998\n999\nTIME warning: old\n1003\n::group::Build\n"
	if out != want {
		t.Errorf("the commands printed %q, want %q", out, want)
	}
}

func TestSchedulingAsTheDocumentDescribesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1", "--cpus", "4", "--label", "zone=a", "--label", "mem=64", "--label", "cuda=12.4")
	w.agent("w2", "--cpus", "2", "--label", "zone=b")
	w.agent("w3", "--cpus", "2", "--label", "zone=b", "--taint", "batch", "--extra", "gpu=1")
	var script strings.Builder
	for _, heading := range []string{
		"Why does my job wait", "Which workers can take it", "Which of them is chosen", "Queues and shares", "Priority and ageing", "Limits",
		"One at a time", "Gangs", "Preemption", "Reservations and backfilling",
	} {
		for _, block := range shellBlocks(t, "docs/scheduling.md", heading) {
			script.WriteString(block)
		}
	}
	out := shell(t, w.env(), script.String())
	for _, want := range []string{
		"no worker can take it now: 3 workers without label gpu=h100", "Advice:   connect a worker with a slot and the labels gpu=h100",
		"2 workers too small for 64 CPUs", "reserved\n", "texts\n", "numbers\n", "versions\n", "labels that are there, and not there\n",
		"on a tainted worker with a GPU\n", "batch", "QUEUES", "liked and disliked\n", "research  3", "default    builds ", "nightly  starts: paused", "deployed\n", "short\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	for _, name := range []string{"rank-0", "rank-1", "api", "db"} {
		w.awaitJob(w.jobs(name)[0], "SUCCEEDED")
	}
	data, err := os.ReadFile("../docs/scheduling.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```yaml\n")
	spec, _, ok := strings.Cut(rest, "```")
	if got := runHodei(t, w.env(), []byte(spec), "explain", "-f", "-"); !ok || got.code != 0 || !strings.Contains(got.stdout, "it would be refused") {
		t.Errorf("the document's spec gave %+v", got)
	}
}

func TestSpecOfTheDocumentIsAccepted(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../docs/spec.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(data), "```yaml\n")
	spec, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/spec.md has no YAML block")
	}
	w := newWorld(t)
	if got := runHodei(t, w.env(), []byte(spec), "submit", "-f", "-"); got.code != 0 || !strings.HasPrefix(got.stdout, "job_") {
		t.Errorf("submit gave %+v", got)
	}
}
