package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// machine is a /proc of a machine with four CPUs, for an agent that measures there.
type machine struct {
	t    *testing.T
	dir  string
	busy chan float64 // how many CPUs are in use from now on
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir(), busy: make(chan float64)}
	m.write("meminfo", "MemTotal: 8388608 kB\nMemFree: 8000000 kB\nMemAvailable: 8000000 kB\n")
	m.write("stat", "cpu 0 0 0 0 0 0 0 0 0 0\n")
	done := make(chan struct{})
	t.Cleanup(func() { close(m.busy); <-done })
	go func() {
		defer close(done)
		m.run()
	}()
	return m
}

// run counts the time of the CPUs as a kernel does, in hundredths of a second.
func (m *machine) run() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	busy, used, last := 0.0, 0.0, time.Now()
	for {
		select {
		case cpus, ok := <-m.busy:
			if !ok {
				return
			}
			busy = cpus
		case now := <-tick.C:
			used += busy * now.Sub(last).Seconds() * 100
			last = now
			m.write("stat", fmt.Sprintf("cpu %d 0 0 0 0 0 0 0 0 0\n", int64(used)))
		}
	}
}

func (m *machine) write(name, text string) {
	path := filepath.Join(m.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		m.t.Error(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		m.t.Error(err)
	}
}

// A worker whose machine is busy with what Hodei has not started gets no jobs while another one is free, although it is packed better.
func TestForeignLoadTurnsJobsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	machines := map[string]*machine{}
	for _, name := range []string{"quiet", "loaded"} {
		machines[name] = newMachine(t)
		w.agentWith([]string{"HOST_PROC=" + machines[name].dir}, name, "--cpus", "4", "--label", "machine="+name)
	}
	gate := filepath.Join(t.TempDir(), "gate")
	defer func() { _ = os.WriteFile(gate, nil, 0o600) }() // the jobs end, whatever becomes of the test
	hold := w.submit("--cpu", "1", "--constraint", "machine=loaded", "--", "sh", "-c", "while [ ! -e "+gate+" ]; do sleep 0.05; done")
	w.awaitJob(hold, "RUNNING")
	next := func() string {
		id := w.submit("--cpu", "0.5", "--", "true")
		w.awaitJob(id, "SUCCEEDED")
		return w.onWorker(id)
	}
	if got := next(); got != "loaded" {
		t.Fatalf("before anything is busy the job went to %s, and not to where it is packed best", got)
	}
	machines["loaded"].busy <- 4
	await(t, "jobs to go elsewhere", func() bool { return next() == "quiet" })
	machines["loaded"].busy <- 0
	await(t, "jobs to come back", func() bool { return next() == "loaded" })
}
