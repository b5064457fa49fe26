//go:build linux

package procrunner_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
	"github.com/hodei-jobs/hodei/agent/runner/procrunner"
	"github.com/hodei-jobs/hodei/agent/runner/runnertest"
)

// The two modes run one after the other: without groups, a process whose descent is lost counts for the last step that runs.
func TestConformance(t *testing.T) {
	t.Run("Best", func(t *testing.T) {
		r := procrunner.New(procrunner.Options{Instance: "test"})
		t.Logf("processes are found by %s", r.Mode())
		runnertest.Run(t, r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		left, err := filepath.Glob("/sys/fs/cgroup/*/hodei-test-*")
		if err != nil || len(left) > 0 {
			t.Errorf("control groups are left: %v %v", left, err)
		}
	})
	t.Run("Subreaper", func(t *testing.T) {
		runnertest.Run(t, procrunner.New(procrunner.Options{NoCgroups: true}))
	})
}

// groupOf runs a script in a step and returns the control group that it ran in.
func groupOf(t *testing.T, r *procrunner.Runner, script string) string {
	t.Helper()
	var out, stderr bytes.Buffer
	p, err := r.Start(&runner.Command{
		ID: "group", Argv: []string{"sh", "-c", `sed -n s/^0:://p /proc/self/cgroup; ` + script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: t.TempDir(),
		Stdout: &out, Stderr: &stderr, Grace: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if result := p.Wait(); result.ExitCode != 0 {
		t.Fatalf("%+v: %s", result, &stderr)
	}
	return strings.TrimSpace(out.String())
}

// A control group is used again when a step has left it as it was, and not when it has changed it.
func TestGroupsAreUsedAgainUnlessAStepChangedThem(t *testing.T) {
	r := procrunner.New(procrunner.Options{Instance: "testreuse"})
	if r.Mode() != "cgroup2" {
		t.Log("this machine has no control groups of version 2, so there is nothing to use again")
		return
	}
	mount := "$(sed -n 's/.* \\([^ ]*\\) [^ ]* - cgroup2 .*/\\1/p' /proc/self/mountinfo | head -1)"
	own := mount + "$(sed -n s/^0:://p /proc/self/cgroup)"
	first := groupOf(t, r, "true")
	if again := groupOf(t, r, "mkdir "+own+"/below"); again != first {
		t.Errorf("a group that was left as it was is not used again: %s, then %s", first, again)
	}
	second := groupOf(t, r, "ls -d "+own+"/below 2>/dev/null && exit 1 || true")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/*/hodei-testreuse-*"); err != nil || len(left) > 0 {
		t.Errorf("%s and %s are left: %v %v", first, second, left, err)
	}
}

// deadAgent says that this process is to run a step and leave as if it were killed.
const deadAgent = "PROCRUNNER_TEST_DEAD_AGENT"

func TestMain(m *testing.M) {
	if os.Getenv(deadAgent) == "" {
		os.Exit(m.Run())
	}
	r := procrunner.New(procrunner.Options{Instance: "testdead"})
	for range 100 { // a group is not kept when something still lived in it at the end of its step
		p, err := r.Start(&runner.Command{
			ID: "x", Argv: []string{"true"}, Env: []string{"PATH=/usr/bin:/bin"}, Stdout: io.Discard, Stderr: io.Discard,
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		p.Wait()
		if kept, err := filepath.Glob("/sys/fs/cgroup/*/hodei-testdead-*"); err != nil || len(kept) > 0 {
			return
		}
	}
}

// An agent that was killed cannot remove the groups that it kept; the next one on the machine does, and leaves those alone whose
// agent lives.
func TestGroupsOfADeadAgentAreRemoved(t *testing.T) {
	living := procrunner.New(procrunner.Options{Instance: "testliving"})
	defer living.Close()
	if living.Mode() != "cgroup2" {
		t.Log("this machine has no control groups of version 2, so none are kept")
		return
	}
	groups := func(instance string) []string {
		all, err := filepath.Glob("/sys/fs/cgroup/*/hodei-" + instance + "-*")
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for len(groups("testliving")) == 0 { // as there
		groupOf(t, living, "true")
	}
	kept := groups("testliving")
	dead := exec.Command(os.Args[0])
	dead.Env = append(os.Environ(), deadAgent+"=1")
	if out, err := dead.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if len(groups("testdead")) == 0 {
		t.Fatal("the dead agent has left no group, so nothing is tested")
	}
	if err := procrunner.New(procrunner.Options{Instance: "testnext"}).Recover(); err != nil {
		t.Fatal(err)
	}
	if left := groups("testdead"); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	if now := groups("testliving"); len(now) != len(kept) {
		t.Errorf("the living agent had the groups %v and has %v", kept, now)
	}
	groupOf(t, living, "true") // in one of them
}

// An agent that starts while another makes its groups must not take one for abandoned that is not locked yet.
func TestGroupsAreMadeWhileAnotherAgentStarts(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan error, 1)
	defer func() {
		close(stop)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}()
	other := procrunner.New(procrunner.Options{Instance: "teststarts"})
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := other.Recover(); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 100 {
		r := procrunner.New(procrunner.Options{Instance: "testmakes"})
		groupOf(t, r, "true") // makes one
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryLimitIsNamedAsTheCause(t *testing.T) {
	r := procrunner.New(procrunner.Options{Instance: "testmemory"})
	if r.Mode() == "subreaper" || os.Geteuid() != 0 {
		t.Log("this machine cannot limit memory; the limit is not in force and not tested")
		return
	}
	var stderr bytes.Buffer
	p, err := r.Start(&runner.Command{
		ID: "oom", Argv: []string{"sh", "-c", "x=a; while :; do x=$x$x; done"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: t.TempDir(),
		Stdout: &stderr, Stderr: &stderr, Grace: time.Second, MemoryLimitBytes: 32 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Wait(); !got.OOMKilled || got.Signal != "SIGKILL" {
		t.Errorf("a step over its memory limit ended with %+v: %s", got, &stderr)
	}
}

func TestRecoverEndsOnlyTheOwnLeftOvers(t *testing.T) {
	for _, noCgroups := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoCgroups=%v", noCgroups), func(t *testing.T) {
			options := procrunner.Options{Instance: "testmine", NoCgroups: noCgroups}
			mine, err := procrunner.New(options).Start(&runner.Command{
				ID: "x", Argv: []string{"sleep", "1000"}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: t.TempDir(),
				Stdout: new(bytes.Buffer), Stderr: new(bytes.Buffer),
			})
			if err != nil {
				t.Fatal(err)
			}
			other := exec.Command("sleep", "1000")
			other.Env = []string{"HODEI_RUNNER=testother"}
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
			if err := procrunner.New(options).Recover(); err != nil {
				t.Fatal(err)
			}
			if err := other.Process.Kill(); err != nil {
				t.Errorf("another agent's process is gone: %v", err)
			}
			_ = other.Wait() // killed
			if got := mine.Wait(); got.Signal != "SIGKILL" {
				t.Errorf("the left-over ended with %+v", got)
			}
		})
	}
}

// Whoever ends a step by force may still be looking for its processes when the next step starts.
func TestStepThatIsStoppedLeavesTheNextOneAlone(t *testing.T) { //nolint:paralleltest // as above
	r := procrunner.New(procrunner.Options{NoCgroups: true})
	defer r.Close()
	run := func(script string) runner.Process {
		p, err := r.Start(&runner.Command{
			ID: "job-1-0", Argv: []string{"sh", "-c", script}, Env: os.Environ(), Dir: t.TempDir(), Stdout: io.Discard, Stderr: io.Discard,
		})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for range 200 {
		stopped := run("sleep 1000")
		stopped.Stop(true)
		stopped.Wait()
		if got := run("exit 7").Wait(); got.ExitCode != 7 {
			t.Fatalf("the step after one that was stopped ended with %+v", got)
		}
	}
}

// The test runs itself in sessions with a terminal and without one. It is alone, because a step without groups may take its
// processes for orphans of its own.
func TestStepsHaveNoTerminal(t *testing.T) { //nolint:paralleltest // see above
	if os.Getenv("LOOK_FOR_TERMINAL") != "" {
		var out bytes.Buffer
		r := procrunner.New(procrunner.Options{Instance: "terminal" + os.Getenv("LOOK_FOR_TERMINAL")})
		defer r.Close()
		p, err := r.Start(&runner.Command{
			ID: "job-1-0", Argv: []string{"sh", "-c", "if (: < /dev/tty); then echo it has one; else echo it has none; fi"},
			Env: os.Environ(), Dir: t.TempDir(), Stdout: &out, Stderr: io.Discard,
		})
		if err != nil {
			t.Fatal(err)
		}
		p.Wait()
		t.Log("terminal: " + out.String())
		return
	}
	terminal := newTerminal(t)
	for name, session := range map[string]*syscall.SysProcAttr{
		"with":    {Setsid: true, Setctty: true, Ctty: 0},
		"without": {Setsid: true},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "LOOK_FOR_TERMINAL="+name)
		cmd.Stdin, cmd.SysProcAttr = terminal, session
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "terminal: it has none") {
			t.Errorf("an agent %s a terminal: %s %v", name, out, err)
		}
	}
}

// newTerminal returns a terminal that nobody looks at.
func newTerminal(t *testing.T) *os.File {
	t.Helper()
	controller, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = controller.Close() })
	if err := unix.IoctlSetPointerInt(int(controller.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(controller.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return terminal
}
