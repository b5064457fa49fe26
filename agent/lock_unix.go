//go:build unix

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockTime is how long a state folder may be locked before it counts as taken. An agent that is killed while it starts a
// process leaves its lock to that process for a moment, until it has become another program.
const lockTime = 3 * time.Second

// lockState makes sure that a state folder has one agent.
func lockState(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the agent's state folder: %w", err)
	}
	for deadline := time.Now().Add(lockTime); ; time.Sleep(lockTime / 100) {
		if syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			return func() { _ = file.Close() }, nil
		}
		if time.Now().After(deadline) {
			_ = file.Close()
			return nil, fmt.Errorf("the state folder %s is in use by another agent; stop it, or choose another folder with --state-dir", dir)
		}
	}
}
