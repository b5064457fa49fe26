//go:build linux

package procrunner_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/agent/runner"
	"github.com/hodei-jobs/hodei/agent/runner/procrunner"
)

// counter counts the writes of a stream.
type counter struct {
	bytes.Buffer
	writes int
}

func (c *counter) Write(p []byte) (int, error) {
	c.writes++
	return c.Buffer.Write(p)
}

// run runs a script to its end, with a terminal or without one.
func run(t *testing.T, r *procrunner.Runner, script string, to io.Writer) runner.Result {
	t.Helper()
	p, err := r.Start(runner.Command{
		ID: "job-1-0", Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: t.TempDir(),
		Stdout: to, Stderr: io.Discard, Grace: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p.Wait()
}

// However a program writes, its output arrives in few pieces: one in two milliseconds, and one for each full buffer.
func TestOutputIsGathered(t *testing.T) {
	r := procrunner.New(procrunner.Options{Instance: "testgather"})
	defer r.Close()
	for name, tc := range map[string]struct {
		script string
		bytes  int
	}{
		"single bytes": {"dd if=/dev/zero bs=1 count=1000000", 1_000_000},
		"a stream":     {"dd if=/dev/zero bs=1000 count=20000", 20_000_000},
	} {
		var got counter
		began := time.Now()
		result := run(t, r, tc.script, &got)
		most := int(time.Since(began)/(2*time.Millisecond)) + tc.bytes/(32<<10) + 2 // the first and the last one
		if result.ExitCode != 0 || got.Len() != tc.bytes || got.writes > most {
			t.Errorf("%s: %d bytes in %d writes, want %d in no more than %d: %+v", name, got.Len(), got.writes, tc.bytes, most, result)
		}
		t.Logf("%s: %d writes, %d allowed, in %s", name, got.writes, most, time.Since(began))
	}
}
