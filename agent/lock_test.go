//go:build unix

package agent

import (
	"strings"
	"testing"
	"time"
)

func TestStateFolderHasOneAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := lockState(dir); err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("a second agent got %v", err)
	}
}

// A process that a killed agent was about to start may hold the lock a little longer than the agent.
func TestLockThatIsAboutToBeReleasedIsWaitedFor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(lockTime/10, unlock)
	again, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
