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

// However a program writes, its output arrives in few pieces: one in two milliseconds, and one for each full buffer.
func TestOutputIsGathered(t *testing.T) {
	r := procrunner.New(procrunner.Options{Instance: "testgather"})
	defer r.Close()
	for name, tc := range map[string]struct {
		size, count string
		bytes       int
		terminal    *runner.Terminal
	}{
		"single bytes":               {"bs=1", "count=1000000", 1_000_000, nil},
		"a stream":                   {"bs=1000", "count=20000", 20_000_000, nil},
		"single bytes to a terminal": {"bs=1", "count=1000000", 1_000_000, &runner.Terminal{Columns: 80, Rows: 24}},
		"a stream to a terminal":     {"bs=1000", "count=20000", 20_000_000, &runner.Terminal{Columns: 80, Rows: 24}},
	} {
		var got counter
		began := time.Now()
		p, err := r.Start(&runner.Command{
			ID: "job-1-0", Argv: []string{"dd", "if=/dev/zero", "status=none", tc.size, tc.count}, Env: []string{"PATH=/usr/bin:/bin"},
			Dir: t.TempDir(), Terminal: tc.terminal, Stdout: &got, Stderr: io.Discard, Grace: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		result := p.Wait()
		most := int(time.Since(began)/(2*time.Millisecond)) + tc.bytes/(32<<10) + 2 // the first and the last one
		if result.ExitCode != 0 || got.Len() != tc.bytes || got.writes > most {
			t.Errorf("%s: %d bytes in %d writes, want %d in no more than %d: %+v", name, got.Len(), got.writes, tc.bytes, most, result)
		}
		t.Logf("%s: %d writes, %d allowed, in %s", name, got.writes, most, time.Since(began))
	}
}
