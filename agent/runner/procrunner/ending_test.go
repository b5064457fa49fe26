//go:build linux

package procrunner

import (
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// slowScope is a step whose processes take long to be found when somebody ends it by force.
type slowScope struct {
	kills            atomic.Int32
	entered, release chan struct{}
}

func (s *slowScope) pids() []int     { return nil }
func (s *slowScope) oomKilled() bool { return false }
func (s *slowScope) close()          {}

func (s *slowScope) kill() {
	if s.kills.Add(1) == 1 {
		close(s.entered)
		<-s.release
	}
}

// Whoever ends a step by force has ended looking for its processes when the step counts as ended: its control group, and the numbers of
// its processes, are the next step's then.
func TestNothingIsKilledAfterTheEndOfAStep(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	out, err := openPipes(int(null.Fd()), io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	program := &program{path: "/bin/true", argv: []string{"true"}, attr: syscall.ProcAttr{Files: out.step[:], Sys: &syscall.SysProcAttr{}}}
	first, err := program.start()
	if err != nil {
		t.Fatal(err)
	}
	out.begin()
	s := &slowScope{entered: make(chan struct{}), release: make(chan struct{})}
	p := &process{first: first, scope: s, output: out, orphans: newOrphans(), done: make(chan struct{})}
	p.Stop(true)
	<-s.entered
	returned := make(chan struct{})
	go func() {
		p.Wait()
		close(returned)
	}()
	select {
	case <-returned:
		t.Error("the step has ended while its processes were still being killed")
	case <-time.After(100 * time.Millisecond): // long enough to see it, if it is so
	}
	close(s.release)
	<-returned
	kills := s.kills.Load()
	p.Stop(true)
	p.terminate()
	if p.Has(os.Getpid()) || s.kills.Load() != kills {
		t.Error("the processes of a step were looked for that has ended")
	}
}
