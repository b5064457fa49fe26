//go:build linux

package procrunner_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/agent/runner"
	"github.com/hodei-jobs/hodei/agent/runner/procrunner"
	"github.com/hodei-jobs/hodei/agent/runner/runnertest"
)

// firstUID begins the UIDs that these tests give to steps: nobody else has them, and no two tests that run at once.
const firstUID = 3_200_000

func owns(uid uint32) bool { return uid >= firstUID && uid < firstUID+100 }

// stranger runs steps as another user.
type stranger struct {
	*procrunner.Runner
	user runner.User
}

func (s stranger) Start(c *runner.Command) (runner.Process, error) {
	c.User = &s.user
	return s.Runner.Start(c)
}

// newStranger makes a runner whose steps have the UID of that number.
func newStranger(t *testing.T, number uint32, options procrunner.Options) stranger {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run steps as other users")
	}
	options.Instance, options.Owns = fmt.Sprintf("testuser%d", number), owns
	r := procrunner.New(options)
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return stranger{r, runner.User{UID: firstUID + number, GID: firstUID + number}}
}

// says runs a script as the user, in a folder of its own, and returns its output.
func (s stranger) says(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.Chown(dir, int(s.user.UID), int(s.user.GID))); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	p, err := s.Start(&runner.Command{
		ID: "says", Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: dir, Stdout: &out, Stderr: &stderr, Grace: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Wait()
	return out.String() + stderr.String()
}

func TestConformanceAsAnotherUser(t *testing.T) {
	t.Run("Best", func(t *testing.T) { runnertest.Run(t, newStranger(t, 0, procrunner.Options{})) })
	t.Run("Subreaper", func(t *testing.T) { runnertest.Run(t, newStranger(t, 1, procrunner.Options{NoCgroups: true})) })
}

func TestStepOfAnotherUserHasNothingElse(t *testing.T) {
	s := newStranger(t, 2, procrunner.Options{})
	s.user.Groups = []uint32{firstUID + 90, firstUID + 91}
	want := fmt.Sprintf("%d %d %[2]d %d %d\n", s.user.UID, s.user.GID, firstUID+90, firstUID+91)
	for range 20 { // also on threads that have started others
		if got := s.says(t, "echo $(id -u) $(id -G | tr ' ' '\\n' | sort -u | sed '1{p}')"); got != want {
			t.Fatalf("the step is %q, want %q", got, want)
		}
	}
	status := s.says(t, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
	if len(strings.Fields(status)) != 12 || regexp.MustCompile(`Cap\w+:\s0*[1-9a-f]`).MatchString(status) || !strings.Contains(status, "NoNewPrivs:\t1") {
		t.Errorf("the step's rights are\n%s", status)
	}
	if got := s.says(t, "echo out >/dev/stdout; echo err >/dev/stderr"); got != "out\nerr\n" {
		t.Errorf("by the names of its outputs the step wrote %q", got)
	}
	// What the agent may do is as before.
	if data, err := os.ReadFile("/proc/self/status"); err != nil || !strings.Contains(string(data), "NoNewPrivs:\t0") {
		t.Errorf("the agent itself has lost something: %s %v", data, err)
	}
}

// Each step has keys of its own, which no other step sees.
func TestStepsShareNoKeys(t *testing.T) {
	s := newStranger(t, 3, procrunner.Options{})
	if _, err := os.Stat("/proc/keys"); err != nil {
		t.Log("this kernel has no keys")
		return
	}
	one, two := s.says(t, "grep _ses /proc/keys"), s.says(t, "grep _ses /proc/keys")
	if len(one) < 8 || len(two) < 8 || one[:8] == two[:8] {
		t.Errorf("the first step has the keys %q, the second %q", one, two)
	}
}

// What a step may use is decided with the eyes of its user.
func TestPathsAreThoseOfTheUser(t *testing.T) {
	s := newStranger(t, 4, procrunner.Options{})
	dir := t.TempDir()
	closed, hidden, program := filepath.Join(dir, "closed"), filepath.Join(dir, "closed", "hidden"), filepath.Join(dir, "closed", "true")
	for _, step := range []error{
		os.Chmod(filepath.Dir(dir), 0o711), os.Chmod(dir, 0o711), os.MkdirAll(hidden, 0o777), os.Chmod(closed, 0o700),
		os.WriteFile(program, []byte("#!/bin/sh\nexit 9\n"), 0o755), os.WriteFile(filepath.Join(dir, "roots"), []byte("#!/bin/sh\n"), 0o700),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	start := func(dir, path string, argv ...string) error {
		p, err := s.Start(&runner.Command{ID: "paths", Argv: argv, Env: []string{"PATH=" + path}, Dir: dir, Stdout: io.Discard, Stderr: io.Discard})
		if err == nil {
			if got := p.Wait(); got.ExitCode != 0 {
				return fmt.Errorf("it ended with %+v", got)
			}
		}
		return err
	}
	if err := start("/", closed+":/usr/bin:/bin", "true"); err != nil {
		t.Errorf("a program behind a folder that the user may not enter: %v", err)
	}
	for name, tc := range map[string]struct {
		err  error
		text string
	}{
		"folder of another":  {start(closed, "/usr/bin:/bin", "true"), "may not be entered"},
		"behind that":        {start(hidden, "/usr/bin:/bin", "true"), "permission denied"},
		"program of another": {start("/", "/usr/bin:/bin", filepath.Join(dir, "roots")), "permission denied to execute"},
		"behind the folder":  {start("/", closed, "true"), "command not found"},
	} {
		var start *runner.StartError
		if !errors.As(tc.err, &start) || !start.Invalid || !strings.Contains(start.Message, tc.text) {
			t.Errorf("%s: %v, want an invalid command and %q", name, tc.err, tc.text)
		}
	}
}

// Whatever runs as a UID of the agent's own is left from a former life, also where no group and no variable tells.
func TestRecoverEndsWhatHasAnOwnUID(t *testing.T) {
	s := newStranger(t, 5, procrunner.Options{NoCgroups: true})
	other := newStranger(t, 6, procrunner.Options{NoCgroups: true})
	other.user.UID = firstUID + 100 // not one of those
	c := &runner.Command{ID: "left", Argv: []string{"env", "-i", "sleep", "1000"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Stdout: io.Discard, Stderr: io.Discard}
	left, err := s.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	stays, err := other.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Recover(); err != nil {
		t.Fatal(err)
	}
	if got := left.Wait(); got.Signal != "SIGKILL" {
		t.Errorf("what was left ended with %+v", got)
	}
	stays.Stop(false)
	if got := stays.Wait(); got.Signal != "SIGTERM" {
		t.Errorf("the process of another user ended with %+v", got)
	}
}

func TestMemoryLimitOfAnotherUser(t *testing.T) {
	s := newStranger(t, 8, procrunner.Options{})
	if s.Mode() == "subreaper" {
		t.Log("this machine cannot limit memory; the limit is not in force and not tested")
		return
	}
	for range 3 { // the next one starts on a thread that is not in the group of the one before
		p, err := s.Start(&runner.Command{
			ID: "oom", Argv: []string{"sh", "-c", "x=a; while :; do x=$x$x; done"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/",
			Stdout: io.Discard, Stderr: io.Discard, MemoryLimitBytes: 32 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Wait(); !got.OOMKilled || got.Signal != "SIGKILL" {
			t.Errorf("a step over its memory limit ended with %+v", got)
		}
		if got := s.says(t, "cat /proc/self/cgroup"); strings.Contains(got, "oom") {
			t.Errorf("the next step is in\n%s", got)
		}
	}
}
