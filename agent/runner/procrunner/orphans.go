//go:build linux

package procrunner

import (
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// orphans knows the children that the agent has started itself, so that it can tell from them the processes that it has
// adopted because their parents ended.
type orphans struct {
	starting sync.RWMutex // held for reading while a child is started, so that nobody takes it for an orphan

	mu       sync.Mutex
	children map[int]*tree // by the first process of each running step; nil for steps in control groups
	reaping  bool          // reap will be called
}

func newOrphans() *orphans { return &orphans{children: make(map[int]*tree)} }

// track starts a child.
func (o *orphans) track(start func() (*child, error)) (*child, error) {
	o.starting.RLock()
	defer o.starting.RUnlock()
	c, err := start()
	if err == nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.children[c.pid] = nil
	}
	return c, err
}

// start starts a step that is found by its family instead of a control group.
func (o *orphans) start(p *program, t *tree) (scope, *child, error) {
	first, err := o.track(p.start)
	if err != nil {
		return nil, nil, err
	}
	t.leader = first.pid
	o.mu.Lock()
	defer o.mu.Unlock()
	o.children[t.leader] = t
	return t, first, nil
}

func (o *orphans) forget(pid int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.children, pid)
}

// reapDelay is how long adopted processes that have ended may stay: looking for them means looking at all processes.
const reapDelay = 100 * time.Millisecond

// reapSoon has reap called before long.
func (o *orphans) reapSoon() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.reaping {
		o.reaping = true
		time.AfterFunc(reapDelay, o.reap)
	}
}

// reap collects adopted processes that have ended. The children that somebody waits for are left alone.
func (o *orphans) reap() {
	o.starting.Lock()
	defer o.starting.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reaping = false
	for _, p := range processes() {
		if _, own := o.children[p.pid]; p.parent == os.Getpid() && p.zombie && !own {
			_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
		}
	}
}

// family returns the processes of a step: its leader, all that descend from it or share its session, and adopted ones whose
// descent is lost. Those may be another step's, so they count only for the last step that runs.
func (o *orphans) family(leader int) []int {
	o.starting.Lock()
	defer o.starting.Unlock()
	o.mu.Lock()
	others := make(map[int]bool)
	for pid := range o.children {
		others[pid] = pid != leader
	}
	o.mu.Unlock()
	self := os.Getpid()
	all := processes()
	member := map[int]bool{leader: true}
	last := !slices.Contains(mapValues(others), true)
	for changed := true; changed; {
		changed = false
		for _, p := range all {
			if member[p.pid] || p.zombie || p.pid == self || others[p.pid] || others[p.session] {
				continue
			}
			adopted := p.parent == self && p.pid != leader
			if member[p.parent] || p.session == leader || (adopted && last) {
				member[p.pid], changed = true, true
			}
		}
	}
	var pids []int
	for _, p := range all {
		if member[p.pid] && !p.zombie {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

func mapValues(m map[int]bool) []bool {
	out := make([]bool, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// tree is the scope of a step that is found by its family.
type tree struct {
	orphans *orphans
	leader  int
	owns    func(uid uint32) bool // not nil: the step's processes are those of these UIDs, whatever their descent
}

func (t *tree) pids() []int {
	if t.owns == nil {
		return t.orphans.family(t.leader)
	}
	var pids []int
	for _, p := range processes() {
		if uid, ok := readUID(p.pid); ok && !p.zombie && t.owns(uid) {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// kill stops every process that it finds before it kills any, so that none can have children in between, and looks again
// until none is left.
func (t *tree) kill() {
	for {
		pids := t.pids()
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGSTOP)
		}
		again := t.pids()
		for _, pid := range again {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if len(again) == 0 {
			return
		}
		t.orphans.reap()
		time.Sleep(time.Millisecond)
	}
}

func (t *tree) oomKilled() bool { return false }
func (t *tree) close()          {}
