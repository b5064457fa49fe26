//go:build linux

package procrunner_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

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
		left, err := filepath.Glob("/sys/fs/cgroup/*/hodei-test-*")
		if err != nil || len(left) > 0 {
			t.Errorf("control groups are left: %v %v", left, err)
		}
	})
	t.Run("Subreaper", func(t *testing.T) {
		runnertest.Run(t, procrunner.New(procrunner.Options{NoCgroups: true}))
	})
}

func TestMemoryLimitIsNamedAsTheCause(t *testing.T) {
	r := procrunner.New(procrunner.Options{Instance: "testmemory"})
	if r.Mode() == "subreaper" || os.Geteuid() != 0 {
		t.Log("this machine cannot limit memory; the limit is not in force and not tested")
		return
	}
	var stderr bytes.Buffer
	p, err := r.Start(runner.Command{
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
			mine, err := procrunner.New(options).Start(runner.Command{
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
