//go:build linux

package procrunner

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

var size = runner.Terminal{Columns: 80, Rows: 24}

func TestTerminalThatCannotBeOpened(t *testing.T) {
	before := openedForSteps(t)
	for device, want := range map[string]string{"/no/such/device": "no such file", os.DevNull: "inappropriate ioctl"} {
		_, err := openTerminal(device, size, io.Discard)
		var start *runner.StartError
		if !errors.As(err, &start) || start.Invalid || start.ExitCode != runner.ExitFailure ||
			!strings.Contains(start.Message, want) || !strings.Contains(start.Message, "devpts") {
			t.Errorf("%s: %v, want %q and what to do", device, err, want)
		}
	}
	if got := explainTerminal(unix.ENOSPC).Error(); !strings.Contains(got, "pty/max") {
		t.Errorf("without a free terminal: %s", got)
	}
	if after := openedForSteps(t); after > before {
		t.Errorf("%d descriptors are open, %d were before", after, before)
	}
}

// Neither steps that ran nor those that could not be started leave a descriptor behind.
func TestNoDescriptorLeaks(t *testing.T) {
	r := New(Options{Instance: "testleaks"})
	defer r.Close()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := openedForSteps(t)
	for _, terminal := range []*runner.Terminal{nil, &size} {
		for _, argv := range [][]string{{"true"}, {script}, {"no-such-command"}, {"sh", "-c", "exec <&- >&- 2>&-"}} {
			for range 5 {
				p, err := r.Start(&runner.Command{
					ID: "job-1-0", Argv: argv, Env: []string{"PATH=/usr/bin:/bin"}, Dir: t.TempDir(), Terminal: terminal, Stdout: io.Discard, Stderr: io.Discard,
				})
				if err == nil {
					p.Wait()
				}
			}
			if after := openedForSteps(t); after > before {
				t.Errorf("%q with terminal %v: %d descriptors are open, %d were before", argv, terminal, after, before)
			}
		}
	}
}

// openedForSteps counts this process's pipes and devices.
func openedForSteps(t *testing.T) int {
	t.Helper()
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		target, _ := os.Readlink(fd) // that of the folder itself is closed by now
		if strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "/dev/") {
			n++
		}
	}
	return n
}

// Whoever got hold of a step's terminal and is none of its processes must not hold up its end, and loses nothing that it wrote before.
func TestTerminalThatIsHeldByAnother(t *testing.T) {
	r := New(Options{Instance: "testheld"})
	defer r.Close()
	dir := t.TempDir()
	name := make(chan string, 1)
	var out bytes.Buffer
	p, err := r.Start(&runner.Command{
		ID: "job-1-0", Argv: []string{"sh", "-c", "tty; until [ -e goes ]; do sleep 0.01; done; exit 3"}, Env: []string{"PATH=/usr/bin:/bin"},
		Dir: dir, Terminal: &size, Stdout: writerFunc(func(b []byte) (int, error) {
			out.Write(b)
			if line, _, whole := strings.Cut(out.String(), "\r\n"); whole {
				select {
				case name <- line:
				default:
				}
			}
			return len(b), nil
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	held, err := os.OpenFile(<-name, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.WriteString("held\n"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "goes"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.Wait(); got.ExitCode != 3 || !strings.HasSuffix(out.String(), "\r\nheld\r\n") {
		t.Errorf("ended with %+v and wrote %q", got, &out)
	}
}

// The ends of the input that nobody has read are few after hours as well, as a program that takes keys one by one sees each of them.
func TestUnreadInputDoesNotPileUp(t *testing.T) {
	r := New(Options{Instance: "testinput"})
	defer r.Close()
	var out bytes.Buffer
	p, err := r.Start(&runner.Command{
		ID: "job-1-0", Argv: []string{"sh", "-c", "sleep 1.5; stty -icanon; dd bs=1000 count=1 status=none | wc -c"}, Env: []string{"PATH=/usr/bin:/bin"},
		Dir: t.TempDir(), Terminal: &size, Stdout: &out,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Wait()
	if got, want := strings.TrimSpace(out.String()), strconv.Itoa(len(endOfInput)); got != want {
		t.Errorf("%s ends of the input are waiting, want %s", got, want)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
