//go:build linux

package procrunner

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// processInfo is what /proc says of a process.
type processInfo struct {
	pid, parent, session int
	zombie               bool
}

// processes returns all processes of the machine that can be seen.
func processes() []processInfo {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close() //nolint:errcheck // only read
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var all []processInfo
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, ok := readProcess(pid); ok {
			all = append(all, p)
		}
	}
	return all
}

// killMarked ends all processes that have a variable in their environment, and looks again until none is left.
func killMarked(mark string) {
	for {
		found := false
		for _, p := range processes() {
			environment, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "environ"))
			if err != nil || p.zombie || p.pid == os.Getpid() || !hasVariable(environment, mark) {
				continue
			}
			found = unix.Kill(p.pid, unix.SIGKILL) == nil || found
		}
		if !found {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func hasVariable(environment []byte, variable string) bool {
	for entry := range bytes.SplitSeq(environment, []byte{0}) {
		if string(entry) == variable {
			return true
		}
	}
	return false
}

// readProcess parses /proc/PID/stat: pid (command) state ppid pgrp session. The command may contain anything, so the fields
// are counted from its closing parenthesis.
func readProcess(pid int) (processInfo, bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return processInfo{}, false
	}
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return processInfo{}, false
	}
	fields := bytes.Fields(data[end+1:])
	if len(fields) < 4 {
		return processInfo{}, false
	}
	parent, errParent := strconv.Atoi(string(fields[1]))
	session, errSession := strconv.Atoi(string(fields[3]))
	state := fields[0][0]
	return processInfo{pid: pid, parent: parent, session: session, zombie: state == 'Z' || state == 'X'},
		errParent == nil && errSession == nil
}

// readUID returns the real user of a process. Who owns its folder in /proc does not tell: that is root for whoever does not want to
// be looked at.
func readUID(pid int) (uint32, bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, false
	}
	_, rest, _ := bytes.Cut(data, []byte("\nUid:\t")) // a name has no line ends of its own
	uid, _, _ := bytes.Cut(rest, []byte("\t"))
	n, err := strconv.ParseUint(string(uid), 10, 32)
	return uint32(n), err == nil
}
