//go:build linux

package procrunner

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// program is what a step starts first.
type program struct {
	path string
	argv []string
	attr syscall.ProcAttr
}

// start starts the program.
func (p *program) start() (*child, error) {
	handle := -1
	p.attr.Sys.PidFD = &handle
	pid, err := syscall.ForkExec(p.path, p.argv, &p.attr)
	if err != nil {
		return nil, err
	}
	c := &child{pid: pid}
	if handle >= 0 {
		c.end = pollable(handle, "process")
	}
	return c, nil
}

// child is a process that the agent has started.
type child struct {
	pid int
	end *os.File // can be read from when the process has ended; nil where the kernel has no such files
}

// wait returns how the process ended. Where it can it does so without a thread that waits: many steps may run.
func (c *child) wait() (status syscall.WaitStatus, usage syscall.Rusage, err error) {
	collect := func(options int) (ended bool) {
		var pid int
		for {
			if pid, err = syscall.Wait4(c.pid, &status, options, &usage); err != syscall.EINTR {
				return pid != 0 || err != nil
			}
		}
	}
	var ended bool
	if c.end != nil {
		if conn, problem := c.end.SyscallConn(); problem == nil {
			_ = conn.Read(func(uintptr) bool {
				ended = collect(syscall.WNOHANG)
				return ended
			})
		}
		_ = c.end.Close()
	}
	if !ended {
		collect(0)
	}
	return status, usage, err
}

// pollable makes a file of a descriptor, for reading without a thread that waits.
func pollable(fd int, name string) *os.File {
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NONBLOCK) // without it a thread waits
	return os.NewFile(uintptr(fd), name)
}

// lastOfEach leaves the last entry of each variable: programs take the first one.
func lastOfEach(env []string) []string {
	seen := make(map[string]bool, len(env))
	kept := make([]string, len(env))
	at := len(kept)
	for i := len(env) - 1; i >= 0; i-- {
		if name, _, _ := strings.Cut(env[i], "="); !seen[name] {
			seen[name] = true
			at--
			kept[at] = env[i]
		}
	}
	return kept[at:]
}
