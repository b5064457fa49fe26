package h2

import (
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/hodei-jobs/hodei/proto/framing"
)

const (
	// idleWorkers is how many goroutines are kept for later; a larger burst makes its own and lets them go.
	idleWorkers = 1024
	// idleTime is after how long, at most twice, a goroutine goes that was not needed.
	idleTime = 10 * time.Second
)

// task is what a worker does.
type task interface{ run(s *scratch) }

// scratch is memory of a worker, which what it runs may use until it returns.
type scratch struct {
	fields []hpack.HeaderField // of the answer, as the handler had set them when it wrote the header
	body   []byte              // what was written and not yet sent
	lower  framing.Names       // names of headers as they are sent
}

// workers run handlers on goroutines that are used again, because their stacks have grown already. The one that became
// idle last goes first: what it needs is still in the processor's cache.
type workers struct {
	mu      sync.Mutex
	idle    []*worker
	reaper  *time.Timer // nil: nobody is idle
	resting int         // the fewest that were idle since the reaper came last
}

type worker struct {
	tasks chan task // one waits at most: only an idle worker is given something
}

// run runs t on a goroutine of its own, and does not wait.
func (w *workers) run(t task) {
	w.mu.Lock()
	n := len(w.idle) - 1
	if n < 0 {
		w.mu.Unlock()
		go w.work(t)
		return
	}
	next := w.idle[n]
	w.idle[n] = nil
	w.idle = w.idle[:n]
	w.resting = min(w.resting, n)
	w.mu.Unlock()
	next.tasks <- t
}

func (w *workers) work(t task) {
	self := &worker{tasks: make(chan task, 1)}
	s := &scratch{lower: framing.LowerNames()}
	for ok := true; ok; {
		t.run(s)
		t = nil //nolint:wastedassign // so that an idle worker keeps no request in memory
		if !w.park(self) {
			return
		}
		t, ok = <-self.tasks
	}
}

// park says whether the worker shall wait for more.
func (w *workers) park(self *worker) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.idle) >= idleWorkers {
		return false
	}
	w.idle = append(w.idle, self)
	if w.reaper == nil {
		w.resting = 0
		w.reaper = time.AfterFunc(idleTime, w.reap)
	}
	return true
}

// reap lets those go that were not needed since it came last: the ones at the bottom.
func (w *workers) reap() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, unneeded := range w.idle[:w.resting] {
		close(unneeded.tasks)
	}
	n := copy(w.idle, w.idle[w.resting:])
	clear(w.idle[n:])
	w.idle = w.idle[:n]
	w.resting = n
	if n == 0 {
		w.reaper = nil
		return
	}
	w.reaper.Reset(idleTime)
}

// sending is a worker that writes what a connection has to send.
type sending func()

func (s sending) run(*scratch) { s() }

// leaver is a worker that begins to leave.
type leaver conn

func (l *leaver) run(*scratch) { (*conn)(l).leave() }
