package orchestrator

import (
	"container/heap"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// timers is a heap of jobs by the time at which they may start. An entry whose job has moved on is skipped when it is due.
type timers struct{ entries timerHeap }

type timerEntry struct {
	at time.Time
	id job.ID
}

func (t *timers) push(at time.Time, id job.ID) { heap.Push(&t.entries, timerEntry{at, id}) }

// next returns the earliest time.
func (t *timers) next() (time.Time, bool) {
	if len(t.entries) == 0 {
		return time.Time{}, false
	}
	return t.entries[0].at, true
}

// due takes out and returns the jobs whose time has come.
func (t *timers) due(now time.Time) []job.ID {
	var ids []job.ID
	for len(t.entries) > 0 && !t.entries[0].at.After(now) {
		entry, ok := heap.Pop(&t.entries).(timerEntry)
		if ok {
			ids = append(ids, entry.id)
		}
	}
	return ids
}

type timerHeap []timerEntry

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any) {
	if entry, ok := x.(timerEntry); ok {
		*h = append(*h, entry)
	}
}

func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	entry := (*h)[last]
	*h = (*h)[:last]
	return entry
}
