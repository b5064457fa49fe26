//go:build linux

package procrunner

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// resolve checks a command and finds its program, by the command's own PATH and folder. Whether one that is named by its path
// can be started is seen when it is.
func resolve(c *runner.Command) (string, error) {
	if err := check(c); err != nil {
		return "", err
	}
	name := c.Argv[0]
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(c.Dir, path)
		}
		return path, nil
	}
	var blocked error
	for _, dir := range filepath.SplitList(lookup(c.Env, "PATH")) {
		if dir == "" {
			dir = "."
		}
		path := filepath.Join(dir, name)
		if !filepath.IsAbs(path) {
			path = filepath.Join(c.Dir, path)
		}
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrPermission) {
			continue // who may not enter a folder has nothing there
		}
		if err = runnable(name, path, info, err); err == nil {
			return path, nil
		}
		var start *runner.StartError
		if errors.As(err, &start) && start.ExitCode == runner.ExitNotExecutable {
			blocked = err
		}
	}
	if blocked != nil {
		return "", blocked
	}
	return "", runner.Invalid(runner.ExitNotFound, "command not found: %s; install it on the worker, or give its full path", name)
}

func check(c *runner.Command) error {
	switch {
	case len(c.Argv) == 0 || c.Argv[0] == "":
		return runner.Invalid(runner.ExitFailure, "the step has no command")
	case strings.ContainsRune(c.Dir, 0):
		return runner.Invalid(runner.ExitFailure, "the working directory's name contains a NUL byte")
	case c.Terminal != nil && (!fits(c.Terminal.Columns) || !fits(c.Terminal.Rows)):
		return runner.Invalid(runner.ExitFailure, "a terminal of %d columns and %d rows cannot be had; both must be from 1 to %d",
			c.Terminal.Columns, c.Terminal.Rows, math.MaxUint16)
	}
	for i, arg := range c.Argv {
		if strings.ContainsRune(arg, 0) {
			return runner.Invalid(runner.ExitFailure, "argument %d contains a NUL byte", i)
		}
	}
	for _, entry := range c.Env {
		if strings.ContainsRune(entry, 0) || strings.Index(entry, "=") < 1 {
			return runner.Invalid(runner.ExitFailure, "the environment entry %q is not NAME=VALUE", entry)
		}
	}
	return nil
}

// fits reports whether a terminal can have that many columns or rows.
func fits(n int) bool { return n >= 1 && n <= math.MaxUint16 }

// usable says what is wrong with the folder in which a step is to start.
func usable(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return runner.Invalid(runner.ExitFailure, "the working directory %s does not exist on the worker; create it or choose another one", dir)
	case err != nil:
		return runner.Invalid(runner.ExitFailure, "the working directory %s cannot be used: %v", dir, err)
	case !info.IsDir():
		return runner.Invalid(runner.ExitFailure, "the working directory %s is not a directory", dir)
	}
	if _, err := os.Stat(dir + "/."); err != nil {
		return runner.Invalid(runner.ExitFailure,
			"the working directory %s may not be entered by the user that the step runs as; change its mode on the worker or choose another one", dir)
	}
	return nil
}

func lookup(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- { // the last one wins
		if value, ok := strings.CutPrefix(env[i], name+"="); ok {
			return value
		}
	}
	return ""
}

func executable(name, path string) error {
	info, err := os.Stat(path)
	return runnable(name, path, info, err)
}

// runnable says what is wrong with a file as a program, by what was found out about it.
func runnable(name, path string, info os.FileInfo, err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return runner.Invalid(runner.ExitNotFound, "command not found: %s; install it on the worker, or give its full path", name)
	case err != nil:
		return runner.Invalid(runner.ExitNotExecutable, "cannot look at %s: %v", path, err)
	case info.IsDir():
		return runner.Invalid(runner.ExitNotExecutable, "%s is a directory, not a program", path)
	case info.Mode()&0o111 == 0:
		return runner.Invalid(runner.ExitNotExecutable, "%s is not executable; run `chmod +x` on it, or start it with its interpreter", path)
	}
	return nil
}

// explainStart looks for the reason why a program was not started, and turns what the kernel said into what to do.
func explainStart(c *runner.Command, path string, err error) error {
	name := c.Argv[0]
	if err := usable(c.Dir); err != nil {
		return err
	}
	if err := executable(name, path); err != nil {
		return err
	}
	switch {
	case errors.Is(err, syscall.EACCES):
		return runner.Invalid(runner.ExitNotExecutable, "permission denied to execute %s", name)
	case errors.Is(err, syscall.ENOEXEC):
		return runner.Invalid(runner.ExitNotExecutable, "%s is no program of this machine: a script needs a first line like #!/bin/sh", name)
	case errors.Is(err, syscall.ENOENT):
		return runner.Invalid(runner.ExitNotFound, "%s cannot be started: the interpreter that it names does not exist", name)
	case errors.Is(err, syscall.E2BIG):
		return runner.Invalid(runner.ExitNotExecutable,
			"the arguments and the environment of %s are larger than the system allows; pass them in a file", name)
	}
	return failed("starting "+name, err)
}

func failed(what string, err error) error {
	return &runner.StartError{ExitCode: runner.ExitFailure, Message: fmt.Sprintf("%s: %v", what, err)}
}
