package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Machines that start at the same moment, and are more than the server takes in at once from their address, join one after the other.
func TestManyAgentsJoinAtOnceFromOneAddress(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string][]string{"calls": {"--max-stranger-calls", "1"}, "connections": {"--max-strangers-per-address", "1"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, limit...)
			secret, pin := w.token("--uses", "6")
			for i := range 6 {
				worker := fmt.Sprintf("w%d", i)
				startDaemon(t, nil, "hodei-agent", "--server", w.url, "--state-dir", filepath.Join(w.dir, "agent-"+worker),
					"--name", worker, "--token", secret, "--ca-pin", pin)
			}
			for i := range 6 {
				w.awaitWorker(fmt.Sprintf("w%d", i), "WORKER_STATE_READY")
			}
		})
	}
}
