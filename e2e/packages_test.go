package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	hodei "github.com/hodei-jobs/hodei/clients/go"
)

// quickstart returns the program of a language in the document about clients.
func quickstart(t *testing.T, language string) string {
	t.Helper()
	data, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "```"+language+"\n")
	program, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		t.Fatalf("the document has no program in %s", language)
	}
	return program + "\n"
}

// The packages of the clients install into an empty environment, and the programs of their quickstart run there: they submit a job and follow
// it, see why another one fails, and run a hundred.
func TestQuickstarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	env := append(person(t, ""), "HODEI_URL="+w.url, "HODEI_CA="+w.ca(), "HODEI_TOKEN="+w.apiToken())
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	const want = "line 1\nline 2\nline 3\nexit code 3 "
	for language, script := range map[string]struct{ file, run string }{
		"go": {"main.go", `cd "$ROOT" && go run "$DIR/main.go"`},
		"python": {"quickstart.py", `cp -r "$ROOT/clients/python/"{pyproject.toml,README.md,src} . &&
			"$ROOT/clients/python/.venv/bin/python" -m build --outdir dist . >&2 &&
			python3 -m venv empty && empty/bin/pip install --quiet --disable-pip-version-check dist/*.whl &&
			rm -r src && empty/bin/python quickstart.py`},
		"ts": {"quickstart.mts", `npm pack --silent --pack-destination . "$ROOT/clients/typescript" >&2 &&
			npm init -y > init.log && npm pkg set type=module && npm install --silent --no-audit --no-fund ./*.tgz >&2 &&
			"$ROOT/clients/typescript/node_modules/.bin/esbuild" --log-level=error --outfile=quickstart.mjs quickstart.mts && node quickstart.mjs`},
	} {
		t.Run(language, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, script.file), []byte(quickstart(t, language)), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", script.run)
			cmd.Dir = dir
			cmd.Env = append(append(os.Environ(), env...), "ROOT="+root, "DIR="+dir)
			var errors strings.Builder
			cmd.Stderr = &errors
			out, err := cmd.Output()
			if text := string(out); err != nil || !strings.HasPrefix(text, want) || !strings.HasSuffix(text, "\n99 of 100 succeeded\n") {
				t.Errorf("%v: it printed %q\n%s", err, text, &errors)
			}
		})
	}
}

// The tests of the Python client that need a server, and every example in its documents, run against this one.
func TestPythonClient(t *testing.T) {
	t.Parallel()
	binary, err := filepath.Abs(program(t, "hodei"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), ".venv/bin/pytest", "-q", "-p", "no:cacheprovider")
	cmd.Dir = "../clients/python"
	cmd.Env = append(os.Environ(), "HODEI_BINARY="+binary)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "skipped") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The example of a sweep finds the best of its jobs.
func TestSweepExample(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1")
	cmd := exec.CommandContext(t.Context(), clientPython, "../examples/python/sweep.py", "12")
	cmd.Env = append(append(os.Environ(), person(t, "")...), "HODEI_URL="+w.url, "HODEI_CA="+w.ca(), "HODEI_TOKEN="+w.apiToken(), "PYTHONPATH=../clients/python/src")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), `best: {"rate": 0.001, "seed": `) {
		t.Errorf("%v: it printed %s", err, out)
	}
}

// The clients are released together.
func TestClientsHaveOneVersion(t *testing.T) {
	t.Parallel()
	for file, line := range map[string]string{
		"typescript/package.json": `"version": "` + hodei.Version + `"`, "typescript/src/version.ts": `"` + hodei.Version + `"`,
		"python/pyproject.toml": `version = "` + hodei.Version + `"`, "python/src/hodei/_version.py": `"` + hodei.Version + `"`,
	} {
		data, err := os.ReadFile(filepath.Join("../clients", file))
		if err != nil || !strings.Contains(string(data), line) {
			t.Errorf("clients/%s does not say %s, the version of the Go client: %v", file, line, err)
		}
	}
}
