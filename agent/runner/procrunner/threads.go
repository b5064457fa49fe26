//go:build linux

package procrunner

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/hodei-jobs/hodei/agent/runner"
)

// threads are threads of the agent from which nothing can be started that has a privilege or can gain one. A thread hands that
// down to what it starts, and could not give it up for a moment only. They are kept, because making one costs a third of
// starting a program.
//
// A thread is never a step's user, which would be simpler: a signal that is meant for a thread ends the whole agent, and
// whoever is the same user may send it.
type threads struct {
	work chan func(error)
	idle atomic.Int32
}

// idleThreads is how many threads wait for work at most.
const idleThreads = 8

func newThreads() *threads { return &threads{work: make(chan func(error))} }

// do calls f on one of the threads and returns when it is done. With once the thread ends with it.
func (t *threads) do(once bool, f func()) (err error) {
	done := make(chan struct{})
	task := func(problem error) {
		defer close(done)
		if err = problem; err == nil {
			f()
		}
	}
	if once {
		go t.serve(task, true)
	} else {
		select {
		case t.work <- task: // to a thread that is idle
		default:
			go t.serve(task, false)
		}
	}
	<-done
	return err
}

func (t *threads) serve(task func(error), once bool) {
	runtime.LockOSThread()            // for ever: the thread ends with this function
	if unix.Gettid() == os.Getpid() { // but for the first one, which cannot end; what it may do is told as what the agent may do
		other := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(other)
			t.serve(task, once)
		}()
		<-other
		runtime.UnlockOSThread()
		return
	}
	problem := disarm()
	task(problem)
	for !once && problem == nil {
		if t.idle.Add(1) > idleThreads {
			t.idle.Add(-1)
			return
		}
		task, open := <-t.work
		t.idle.Add(-1)
		if !open {
			return
		}
		task(nil)
	}
}

func (t *threads) close() { close(t.work) }

// disarm takes from all that this thread starts what it could be or become: no program gives it another user or a capability, and none
// is inherited. The thread itself keeps what it has.
func disarm() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keeping steps from gaining privileges: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("looking at capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0 // and with them the ambient ones
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("giving up capabilities: %w", err)
	}
	for c := uintptr(0); unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0) == nil; c++ { // until there are no more, or nobody may
	}
	return nil
}

// lookAs calls f with the rights that a user has on files, and nothing else of the user's; nil: with the agent's. With a user it must
// be called on one of the threads.
func lookAs(u *runner.User, f func()) {
	if u == nil {
		f()
		return
	}
	groups := make([]int, len(u.Groups))
	for i, g := range u.Groups {
		groups[i] = int(g)
	}
	_ = unix.Setgroups(groups) // of this thread; where it may not be done, nothing can be started as the user
	group, _ := unix.SetfsgidRetGid(int(u.GID))
	user, _ := unix.SetfsuidRetUid(int(u.UID))
	defer func() {
		_ = unix.Setfsuid(user)
		_ = unix.Setfsgid(group)
	}()
	f()
}

// credential is what a process has of its user; nil: as the agent.
func credential(u *runner.User) *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}
