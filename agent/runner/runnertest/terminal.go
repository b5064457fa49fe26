package runnertest

import (
	"bytes"
	"crypto/rand"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hodei-jobs/hodei/agent/runner"
)

var aTerminal = &runner.Terminal{Columns: 100, Rows: 30}

func terminals(t *testing.T, r runner.Runner) {
	for name, tc := range map[string]struct {
		script, output string // "\n" stands for "\r\n"
		end            runner.Result
	}{
		"descriptors":  {script: "for i in 0 1 2; do test -t $i && printf '%s ' $i; done; tty | cut -c -5", output: "0 1 2 /dev/\n"},
		"size":         {script: "stty size", output: "30 100\n"},
		"controlling":  {script: "echo by its name >/dev/tty", output: "by its name\n"},
		"session":      {script: "test $(cut -d' ' -f6 /proc/$$/stat) = $$ || echo it leads none"},
		"order":        {script: "echo 1; echo 2 >&2; echo 3", output: "1\n2\n3\n"},
		"colours":      {script: "printf '\\033[31mred\\033[0m'", output: "\x1b[31mred\x1b[0m"},
		"exit code":    {script: "echo x; exit 7", output: "x\n", end: runner.Result{ExitCode: 7}},
		"signal":       {script: "echo x; kill -KILL $$", output: "x\n", end: runner.Result{ExitCode: 137, Signal: "SIGKILL"}},
		"input":        {script: "cat; cat; cat </dev/tty; read x || echo end", output: "end\n"},
		"raw input":    {script: "stty -icanon; head -c 30 >/dev/null; echo end", output: "end\n"},
		"echo":         {script: "stty sane; cat; echo end", output: "end\n"},
		"closed":       {script: "exec <&- >&- 2>&-; sleep 0.1; echo back >/dev/tty; exit 4", output: "back\n", end: runner.Result{ExitCode: 4}},
		"no output":    {script: "exec <&- >&- 2>&-; exit 5", end: runner.Result{ExitCode: 5}},
		"its children": {script: "(sleep 0.1; echo late) & echo early; wait", output: "early\nlate\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			got := start(t, r, &runner.Command{Argv: shell(tc.script), Terminal: aTerminal, Stdout: &stdout, Stderr: &stderr}).Wait()
			got.Usage = runner.Usage{}
			if want := strings.ReplaceAll(tc.output, "\n", "\r\n"); got != tc.end || stdout.String() != want || stderr.Len() > 0 {
				t.Errorf("ended with %+v and wrote %q %q, want %+v and %q", got, &stdout, &stderr, tc.end, want)
			}
		})
	}
	t.Run("Sizes", func(t *testing.T) { sizes(t, r) })
	t.Run("Large", func(t *testing.T) { largeOutput(t, r) })
	t.Run("Escapes", func(t *testing.T) { escapes(t, r, aTerminal) })
	t.Run("Stop", func(t *testing.T) { stops(t, r, aTerminal) })
}

func sizes(t *testing.T, r runner.Runner) {
	var out bytes.Buffer
	for _, size := range []runner.Terminal{{Columns: 1, Rows: math.MaxUint16}, {Columns: math.MaxUint16, Rows: 1}} {
		start(t, r, &runner.Command{Argv: shell("stty size"), Terminal: &size, Stdout: &out}).Wait()
	}
	if out.String() != "65535 1\r\n1 65535\r\n" {
		t.Errorf("the smallest and the largest terminals are %q", &out)
	}
}

func largeOutput(t *testing.T, r runner.Runner) {
	data := make([]byte, 10<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(openDir(t), "data")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	start(t, r, &runner.Command{Argv: []string{"cat", file}, Terminal: aTerminal, Stdout: &out}).Wait()
	if want := bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")); !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%d bytes were to arrive and %d did, or they differ", len(want), out.Len())
	}
}
