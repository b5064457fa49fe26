package orchestrator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
)

// afterTurn compares the server's memory with the books when a turn has ended well.
func (a *auditor) afterTurn(s *simServer) {
	for ref := range a.granted {
		a.w.fail("%s was granted and not handed out", refText(ref))
	}
	for ref := range a.canceling {
		if aj := a.jobs[ref.Job]; aj.job.State == job.Canceling {
			a.w.fail("the cancel of %s was committed and not ordered", refText(ref))
		}
	}
	if a.submitted != a.accepted || a.scheduled != a.grants || a.endings != 0 {
		a.w.fail("counted %d submitted of %d, %d scheduled of %d, and %d endings too few",
			a.submitted, a.accepted, a.scheduled, a.grants, a.endings)
	}
	a.checkCounts(s.o.state)
	a.checkCapacity(s.o.state)
	if len(a.w.disk.poison) == 0 {
		a.checkNobodyWaitsInVain(s.o.state)
	}
}

// checkCounts checks that nothing is forgotten in memory or remembered too long.
func (a *auditor) checkCounts(s *state) {
	var counts [job.Skipped + 1]int
	for _, aj := range a.jobs {
		if !aj.aside && !aj.job.State.Terminal() {
			counts[aj.job.State]++
		}
		if e := s.jobs[aj.job.ID]; e == nil && aj.job.State.OnWorker() && !aj.aside {
			a.w.fail("%s is %s and not in memory", aj.job.ID, aj.job.State)
		} else if e != nil && e.job.Revision != aj.job.Revision {
			a.w.fail("%s is in memory with revision %d, in the store with %d", aj.job.ID, e.job.Revision, aj.job.Revision)
		} else if e != nil && aj.job.State.Terminal() {
			a.w.fail("%s has ended and is still in memory", aj.job.ID)
		}
	}
	for st := job.Blocked; !st.Terminal(); st++ {
		if s.counts[st] != counts[st] {
			a.w.fail("the server counts %d jobs as %s, the store has %d", s.counts[st], st, counts[st])
		}
	}
	if n := s.sched.Len(); n != counts[job.Queued] && len(a.w.disk.poison) == 0 {
		a.w.fail("%d jobs are in the backlog, %d are queued", n, counts[job.Queued])
	}
	if limit := a.w.maxUnfinished; s.unfinished() > limit {
		a.w.fail("%d jobs are unfinished, %d are allowed", s.unfinished(), limit)
	}
}

// checkCapacity checks that what workers have taken is what their jobs need, and no more than they have.
func (a *auditor) checkCapacity(s *state) {
	need, taken := a.needs()
	for id, w := range s.workers {
		agent := a.workers[id]
		held, places := s.sched.Held(id)
		switch r := need[id]; {
		case places != taken[id] || len(w.entries) != int(taken[id]):
			a.w.fail("%s has %d places taken and %d jobs in memory, in the store %d", id, places, len(w.entries), taken[id])
		case held.MilliCPU != r.MilliCPU || held.MemoryMiB != r.MemoryMiB || held.Extras["gpu"] != r.Extras["gpu"]:
			a.w.fail("%s has %+v reserved, its jobs need %+v", id, held, r)
		}
		delete(need, id)
		if taken[id] > agent.worker.Slots || !agent.worker.Capacity.Covers(held) {
			a.w.fail("%s has %+v and %d slots, its jobs need %+v and %d", id, agent.worker.Capacity, agent.worker.Slots, held, taken[id])
		}
	}
	for id := range need {
		a.w.fail("%s has jobs and the server does not know it", id)
	}
}

func (a *auditor) needs() (need map[job.WorkerID]job.Resources, taken map[job.WorkerID]int32) {
	need, taken = make(map[job.WorkerID]job.Resources), make(map[job.WorkerID]int32)
	for _, aj := range a.jobs {
		if j := &aj.job; j.State.OnWorker() && !aj.aside {
			need[j.Worker] = need[j.Worker].Add(j.Spec.Resources)
			taken[j.Worker]++
		}
	}
	return need, taken
}

// checkNobodyWaitsInVain checks that no job waits while a worker could take it.
func (a *auditor) checkNobodyWaitsInVain(s *state) {
	var free []*worker
	for _, w := range s.workers {
		_, taken := s.sched.Held(w.ID)
		_, _, reserved := s.sched.ReservedFor(w.ID)
		distrusted, _ := s.sched.Distrusted(w.ID)
		if w.Connected && !w.Lost && !w.Draining && w.Slots > taken && !reserved && distrusted == "" {
			free = append(free, w)
		}
	}
	if len(free) == 0 || s.counts[job.Queued] == 0 {
		return
	}
	for _, aj := range a.jobs {
		if aj.job.State != job.Queued || aj.aside {
			continue
		}
		for _, w := range free {
			held, _ := s.sched.Held(w.ID)
			if w.Capacity.Sub(held).Covers(aj.job.Spec.Resources) && allowed(aj.job.Spec, &w.Worker) {
				a.w.fail("%s waits though %s could take it: %+v", aj.job.ID, w.ID, s.sched.Explain(aj.job.ID, aj.job.Spec, aj.job.Attempt > 0, a.w.now))
			}
		}
	}
}

// patience is how long things may take that should happen soon.
const patience = time.Minute

// patrol looks now and then for what goes on and should not, and the other way around.
func (a *auditor) patrol() {
	now := a.w.now
	for _, id := range a.ids {
		for _, run := range a.jobs[id].runs {
			since := run.stale
			if since.Before(run.agent.troubled) {
				since = run.agent.troubled
			}
			if run.active && !run.stale.IsZero() && now.Sub(since) > patience {
				a.w.fail("%s runs on %s long after the server has moved on", refText(run.ref), run.agent.worker.ID)
			}
		}
	}
	if s := a.w.server; s != nil {
		a.patrolWorkers(s)
	}
	a.w.after(5*time.Second, a.patrol)
}

// patrolWorkers checks that the server takes agents that are well for well.
func (a *auditor) patrolWorkers(s *simServer) {
	for _, agent := range a.w.agents {
		l := agent.link
		if l == nil || l.isCut || l.server != s || !agent.welcomed || a.w.now.Sub(agent.troubled) < patience ||
			a.w.now.Sub(agent.stalledUntil) < patience || a.w.now.Sub(s.asleep) < patience || a.w.now.Sub(agent.since) < patience {
			continue
		}
		if w := s.o.state.workers[agent.worker.ID]; w == nil || !w.Connected || w.Lost {
			a.w.fail("%s is well, and the server says that it is lost or not connected", agent.worker.ID)
		}
	}
}

// atTheEnd checks the books when everything is quiet.
func (a *auditor) atTheEnd() {
	names := make(map[string]job.ID)
	for _, id := range a.ids {
		aj := a.jobs[id]
		if other, ok := names[aj.job.Spec.Name]; ok {
			a.w.fail("%s was submitted once and accepted twice, as %s and %s", aj.job.Spec.Name, other, id)
		}
		names[aj.job.Spec.Name] = id
		stored, err := a.w.disk.Store.Job(context.Background(), id)
		if err != nil {
			a.w.fail("%s is no longer in the store: %v", id, err)
			return
		}
		if stored.State != aj.job.State || stored.Revision != aj.job.Revision || !slices.Equal(stored.Steps, aj.job.Steps) {
			a.w.fail("%s was %s when it was written last, and now is %s", id, aj.job.State, stored.State)
		}
		if a.w.faults == (simFaults{}) {
			a.checkCalm(aj)
		}
	}
}

// checkCalm checks that, where nothing fails, every job ends as its script says, after as many attempts as it takes.
func (a *auditor) checkCalm(aj *auditJob) {
	j := &aj.job
	script := a.w.scripts[j.Spec.Name]
	timedOut := slices.ContainsFunc(aj.runs, func(r *simRun) bool { return r.cause.Kind == job.CauseTimeout })
	if aj.canceled || aj.stepCancel || timedOut {
		return
	}
	want, attempts := job.Failed, j.Spec.MaxAttempts
	for i := range j.Spec.MaxAttempts {
		if !slices.ContainsFunc(script.codes[i], func(code int32) bool { return code != 0 }) {
			want, attempts = job.Succeeded, i+1
			break
		}
	}
	if j.State != want || j.Attempt != attempts || aj.starts != int(attempts) {
		a.w.fail("%s ended as %s in attempt %d after %d starts; without faults it is %s in attempt %d",
			j.ID, j.State, j.Attempt, aj.starts, want, attempts)
	}
}

// simReader follows the events of one life of the server. It must see every change, in order, or be told that it missed
// some; then it starts over from the store.
type simReader struct {
	s     *simServer
	bus   *bus.Bus
	seq   uint64
	view  map[job.ID]int32 // revisions
	leave func()
	rest  int // for so many turns it does not read
}

func newSimReader(s *simServer, b *bus.Bus) *simReader {
	r := &simReader{s: s, bus: b}
	if s.w.chance(0.8) {
		r.leave = b.Join()
	}
	r.startOver()
	return r
}

func (r *simReader) startOver() {
	r.seq = r.bus.Last()
	r.view = make(map[job.ID]int32)
	for _, id := range r.s.w.audit.ids {
		r.view[id] = r.s.w.audit.jobs[id].job.Revision
	}
}

var canceledContext = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// read takes what is new. Now and then the reader is slow for a while, or goes away and comes back.
func (r *simReader) read() {
	if r.rest > 0 {
		r.rest--
		return
	}
	w := r.s.w
	if r.leave == nil {
		r.leave = r.bus.Join()
	}
	events, err := r.bus.Next(canceledContext, r.seq, nil)
	if errors.Is(err, bus.ErrLagged) {
		r.startOver()
		events = nil
	}
	for _, e := range events {
		aj := w.audit.jobs[e.Job.ID]
		switch {
		case e.Seq != r.seq+1:
			w.fail("event %d came after event %d", e.Seq, r.seq)
		case aj == nil || e.Job.Revision > aj.job.Revision:
			w.fail("event %d is about a change of %s that the store does not have", e.Seq, e.Job.ID)
		case e.Job.Revision <= r.view[e.Job.ID]:
			w.fail("event %d has revision %d of %s after revision %d", e.Seq, e.Job.Revision, e.Job.ID, r.view[e.Job.ID])
		case e.Job.Revision == aj.job.Revision && e.Job.State != aj.job.State:
			w.fail("event %d says that %s is %s, the store %s", e.Seq, e.Job.ID, e.Job.State, aj.job.State)
		}
		r.seq, r.view[e.Job.ID] = e.Seq, e.Job.Revision
	}
	for id, aj := range w.audit.jobs {
		if r.view[id] != aj.job.Revision {
			w.fail("a reader of events has %s at revision %d, the store at %d", id, r.view[id], aj.job.Revision)
		}
	}
	if w.chance(0.05) {
		r.rest = w.rng.IntN(40)
		if w.chance(0.5) {
			r.leave()
			r.leave = nil
		}
	}
}
