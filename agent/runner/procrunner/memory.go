//go:build linux

package procrunner

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// strays reports whether a thread that starts the command may end up in a group that is not the agent's.
func (r *Runner) strays(c *runner.Command) bool {
	return r.cgroups != nil && r.cgroups.memory != "" && c.MemoryLimitBytes > 0
}

// enterMemory puts this thread into version 1's group for memory, so that a process that it starts is born there, and
// returns how to leave it again. Without such a group it does nothing.
func (g *group) enterMemory() (leave func(), err error) {
	if g.memory == "" {
		return func() {}, nil
	}
	runtime.LockOSThread()
	thread := []byte(strconv.Itoa(unix.Gettid()))
	if err := os.WriteFile(filepath.Join(g.memory, "tasks"), thread, 0); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		if os.WriteFile(filepath.Join(filepath.Dir(g.memory), "tasks"), thread, 0) == nil {
			runtime.UnlockOSThread()
		}
		// A thread that could not go back stays locked, and ends with its goroutine.
	}, nil
}
