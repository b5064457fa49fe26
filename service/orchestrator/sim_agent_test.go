package orchestrator

import (
	"slices"
	"strconv"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// simAgent follows the rules of the real agent: it keeps a journal, reports until it is acknowledged, starts nothing twice,
// and ends what may be handed out again before its lease runs out. What happens to it, it does not choose.
type simAgent struct {
	w            *simWorld
	worker       job.Worker
	stalledUntil time.Time // its network delivers nothing before
	pausedUntil  time.Time // it does nothing before, but its processes go on
	deferred     []func()  // what it will do then
	up           bool
	life         int       // grows with every start
	gone         bool      // it never comes back
	troubled     time.Time // when it was last in trouble that can cost it its lease
	wasPaused    time.Time // when it was last paused
	since        time.Time // when its session began

	journal simJournal

	// Of the present life.
	attempts  map[uint64]*simAttempt
	order     []*simAttempt // as they were taken
	news      []*simAttempt // that have something to report
	reports   []simReport
	sent      int // how many of reports this session has sent
	forgetful bool
	draining  bool
	link      *simLink
	welcomed  bool
	met       bool          // some life of the server has welcomed it
	dials     uint64        // sessions that it has tried to open
	wait      time.Duration // between two tries to connect
	heard     time.Time     // when the last frame came
	renewed   time.Time     // when the last heartbeat was sent that was answered; its lease counts from then
	asked     []time.Time   // when those of this session were sent that have no answer; the first is the registration
}

type simReport struct {
	attempt *simAttempt
	report  Report
}

// simJournal is what an agent has on its disk.
type simJournal struct{ entries []simJournalEntry }

type simJournalEntry struct {
	ref     job.AttemptRef
	ended   *Report
	settled bool
}

func (w *simWorld) newAgent(n int) *simAgent {
	a := &simAgent{w: w, worker: job.Worker{
		ID: job.WorkerID("wkr_" + string(rune('a'+n))), Name: "agent-" + string(rune('a'+n)), Labels: map[string]string{"os": "linux"},
		Capacity: job.Resources{MilliCPU: 1000 + 500*int32(w.rng.IntN(7)), MemoryMiB: 1024 + 512*int32(w.rng.IntN(5))},
		Slots:    1 + int32(w.rng.IntN(6)),
	}}
	if w.chance(0.5) {
		a.worker.Labels["disk"] = "ssd"
	}
	if w.chance(0.5) {
		a.worker.Labels["zone"] = "north"
	}
	if w.chance(0.5) {
		a.worker.Capacity.Extras = map[string]int32{"gpu": 1 + int32(w.rng.IntN(2))}
	}
	w.agents = append(w.agents, a)
	return a
}

func (a *simAgent) note(format string, args ...any) {
	a.w.note(string(a.worker.ID)+" "+format, args...)
}

func (a *simAgent) trouble() { a.troubled = a.w.now }

// later does something in this life, if the agent lives then, and when it is not paused.
func (a *simAgent) later(d time.Duration, f func()) {
	life := a.life
	a.w.after(d, func() {
		switch {
		case a.life != life || !a.up:
		case a.pausedUntil.After(a.w.now):
			a.deferred = append(a.deferred, func() {
				if a.life == life && a.up {
					f()
				}
			})
		default:
			f()
		}
	})
}

// start begins a life with what the journal says.
func (a *simAgent) start() {
	if a.up || a.gone {
		return
	}
	a.life++
	a.up = true
	a.attempts, a.order, a.news, a.reports, a.sent = make(map[uint64]*simAttempt), nil, nil, nil, 0
	a.link, a.welcomed, a.draining, a.wait = nil, false, false, 100*time.Millisecond
	a.dials = uint64(a.w.now.UnixMilli())
	a.deferred, a.pausedUntil, a.heard, a.renewed = nil, time.Time{}, a.w.now, a.w.now
	for _, former := range a.journal.replay() {
		t := &simAttempt{agent: a, assignment: Assignment{Ref: former.ref}, over: true, final: former.ended}
		if t.final == nil {
			t.final = &Report{Ref: former.ref, Ended: a.w.now, Cause: job.Cause{Kind: job.CauseWorkerLost, Message: "the agent was restarted"}, Step: -1}
		}
		a.add(t)
		t.hasNews(0)
	}
	a.note("starts, %d attempts from before, forgetful %v", len(a.order), a.forgetful)
	a.guard()
	a.later(a.w.between(0, 300*time.Millisecond), a.dial)
}

// crash ends the life with everything that runs. With the machine the end of the journal is lost too.
func (a *simAgent) crash(machine bool) {
	if !a.up {
		return
	}
	a.note("crashes, the machine too: %v", machine)
	a.up = false
	a.trouble()
	for _, t := range a.order {
		t.kill()
	}
	if machine {
		a.journal.entries = a.journal.entries[:a.w.rng.IntN(len(a.journal.entries)+1)]
		a.forgetful = true
	}
	if a.link != nil {
		a.link.cut()
	}
}

// crashAndReturn ends the life, and begins the next some time later.
func (a *simAgent) crashAndReturn(within time.Duration) {
	a.crash(a.w.fault(a.w.faults.forget * 0.4))
	a.w.after(a.w.between(100*time.Millisecond, within), a.start)
}

// pause stops the agent, but neither its processes nor time.
func (a *simAgent) pause(d time.Duration) {
	if !a.up || a.pausedUntil.After(a.w.now) {
		return
	}
	a.note("is paused for %v", d)
	a.pausedUntil = a.w.now.Add(d)
	a.trouble()
	a.wasPaused = a.w.now
	life := a.life
	a.w.after(d, func() {
		if a.life != life {
			return
		}
		a.note("goes on")
		a.trouble()
		a.wasPaused = a.w.now
		deferred := a.deferred
		a.deferred = nil
		for _, f := range deferred {
			f()
		}
	})
}

// stall makes the network deliver nothing for a while.
func (a *simAgent) stall(d time.Duration) {
	if a.stalledUntil.After(a.w.now) {
		return
	}
	a.note("is cut off for %v", d)
	a.stalledUntil = a.w.now.Add(d)
	a.trouble()
	a.w.after(d, a.trouble)
}

// dial opens a session, or tries again later.
func (a *simAgent) dial() {
	if a.link != nil {
		return
	}
	server := a.w.server
	if server == nil || a.stalledUntil.After(a.w.now) {
		a.wait = min(2*a.wait, 3*time.Second)
		a.later(a.w.between(0, a.wait), a.dial)
		return
	}
	a.wait = 100 * time.Millisecond
	l := &simLink{w: a.w, agent: a, server: server}
	a.link, a.welcomed = l, false
	a.dials++
	a.worker.BootID, a.worker.Dial = strconv.Itoa(a.life), a.dials
	refs := make([]job.AttemptRef, len(a.order))
	for i, t := range a.order {
		refs[i] = t.assignment.Ref
	}
	a.asked = []time.Time{a.w.now}
	l.sendUp(simUp{register: &simRegister{worker: a.worker, attempts: refs, forgetful: a.forgetful}})
	if a.w.fault(a.w.faults.cut / 2) { // a connection that breaks at once: what it said may come when there is another one
		a.later(a.w.between(0, 30*time.Millisecond), l.cut)
	}
	a.later(simLease, func() {
		if a.link == l && !a.welcomed {
			a.hangUp()
		}
	})
}

func (a *simAgent) hangUp() {
	l := a.link
	l.cut()
	a.lostLink(l)
}

// lostLink notes that a session is over.
func (a *simAgent) lostLink(l *simLink) {
	if a.link == l {
		a.link, a.welcomed = nil, false
		a.later(a.w.between(0, a.wait), a.dial)
	}
}

// receive does what a frame says: attempts are taken first, but for the welcome.
func (a *simAgent) receive(f simDown) {
	a.heard = a.w.now
	if f.welcome != nil {
		a.answered()
		a.welcome(f.welcome)
	}
	if !a.welcomed {
		return
	}
	if f.heard {
		a.answered()
	}
	for _, as := range f.assignments {
		a.take(as)
	}
	a.acknowledge(f.acknowledged)
	for _, c := range f.cancels {
		if t := a.attempts[c.ref.Epoch]; t != nil && t.assignment.Ref == c.ref {
			if c.step >= 0 {
				t.stopStep(c.step, c.force)
			} else {
				t.stop(c.force, job.Cause{Kind: job.CauseCanceled, Message: "canceled on request"})
			}
		}
	}
}

// answered renews the lease.
func (a *simAgent) answered() {
	if len(a.asked) > 0 {
		a.renewed, a.asked = a.asked[0], a.asked[1:]
	}
}

func (a *simAgent) welcome(verdicts map[job.AttemptRef]Verdict) {
	a.welcomed, a.forgetful, a.since = true, false, a.w.now
	a.note("is welcome, %d attempts", len(verdicts))
	a.met = true
	for _, t := range slices.Clone(a.order) {
		switch verdicts[t.assignment.Ref] {
		case Keep:
		case Stop:
			t.stop(false, job.Cause{Kind: job.CauseCanceled, Message: "the server has moved on without this attempt"})
		default:
			t.forget()
		}
	}
	a.sent = 0
	a.reports = slices.DeleteFunc(a.reports, func(r simReport) bool { return r.attempt.unknown })
	a.beat(a.link)
	a.watchSilence(a.link)
	if a.draining {
		a.link.sendUp(simUp{drain: true})
	}
	a.pump()
}

func (a *simAgent) beat(l *simLink) {
	if a.link != l {
		return
	}
	a.asked = append(a.asked, a.w.now)
	l.sendUp(simUp{heartbeat: true})
	a.later(simLease/beatsPerLease, func() { a.beat(l) })
}

// watchSilence ends a session in which nothing comes for a lease.
func (a *simAgent) watchSilence(l *simLink) {
	a.later(a.heard.Add(simLease).Sub(a.w.now), func() {
		switch {
		case a.link != l:
		case a.w.now.Sub(a.heard) >= simLease:
			a.note("hears nothing")
			a.hangUp()
		default:
			a.watchSilence(l)
		}
	})
}

// guard ends what may be handed out again when the lease is about to run out.
func (a *simAgent) guard() {
	const margin = simLease / 5
	left := simLease - margin - a.w.now.Sub(a.renewed)
	if left <= 0 {
		for _, t := range a.order {
			if t.assignment.Retryable && !t.over {
				a.note("fences %s", refText(t.assignment.Ref))
				t.run.doomed = true
				t.stop(true, job.Cause{Kind: job.CauseWorkerLost, Message: "the agent lost the server for longer than its lease"})
			}
		}
		left = margin
	}
	a.later(left, a.guard)
}

// take begins an attempt, unless it is known.
func (a *simAgent) take(as Assignment) {
	if a.attempts[as.Ref.Epoch] != nil {
		return
	}
	t := &simAttempt{agent: a, assignment: as, script: a.w.scripts[as.Spec.Name]}
	t.run = a.w.audit.taken(a, as)
	a.add(t)
	a.journal.entries = append(a.journal.entries, simJournalEntry{ref: as.Ref})
	a.later(as.Spec.Timeout, func() { t.stop(false, job.Cause{Kind: job.CauseTimeout, Message: "the time limit was reached"}) })
	a.later(a.w.between(0, 5*time.Millisecond), func() { t.begin(0) })
}

func (a *simAgent) add(t *simAttempt) {
	a.attempts[t.assignment.Ref.Epoch] = t
	a.order = append(a.order, t)
}

func (a *simAgent) remove(t *simAttempt) {
	if a.attempts[t.assignment.Ref.Epoch] != t {
		return
	}
	delete(a.attempts, t.assignment.Ref.Epoch)
	a.order = slices.DeleteFunc(a.order, func(other *simAttempt) bool { return other == t })
	a.journal.entries = append(a.journal.entries, simJournalEntry{ref: t.assignment.Ref, settled: true})
	if len(a.order) == 0 {
		a.journal.entries = nil
	}
}

// collect makes reports of the news, each of how its attempt stands now. Ends are in the journal before they are sent.
func (a *simAgent) collect() {
	for _, t := range a.news {
		t.inLine = false
		r := t.report()
		if !r.Ended.IsZero() {
			a.journal.entries = append(a.journal.entries, simJournalEntry{ref: r.Ref, ended: &r})
		}
		a.reports = append(a.reports, simReport{t, r})
	}
	a.news = nil
	a.pump()
}

func (a *simAgent) pump() {
	if !a.welcomed || a.sent == len(a.reports) {
		return
	}
	reports := make([]Report, 0, len(a.reports)-a.sent)
	for _, r := range a.reports[a.sent:] {
		reports = append(reports, r.report)
	}
	a.sent = len(a.reports)
	a.link.sendUp(simUp{reports: reports})
}

// lie reports the end of an attempt that another agent has, as no agent should.
func (a *simAgent) lie() {
	other := a.w.agents[a.w.rng.IntN(len(a.w.agents))]
	if other == a || !a.welcomed || len(other.order) == 0 {
		return
	}
	ref := other.order[a.w.rng.IntN(len(other.order))].assignment.Ref
	a.note("lies about %s", refText(ref))
	// It is not among the reports that are kept, so its acknowledgement must not be counted as one of theirs.
	a.link.sendUp(simUp{lie: true, reports: []Report{{Ref: ref, Ended: a.w.now, Cause: job.Cause{Kind: job.CauseExitCode}, Step: -1}}})
}

// acknowledge forgets the oldest n reports of those that were sent.
func (a *simAgent) acknowledge(n int) {
	n = min(n, a.sent)
	for _, r := range a.reports[:n] {
		if !r.report.Ended.IsZero() {
			t := r.attempt
			a.later(a.w.between(0, 2*time.Second), func() { a.remove(t) }) // when its log has arrived, too
		}
	}
	a.reports = a.reports[n:]
	a.sent -= n
}

// replay returns the attempts that are not settled, as they were taken.
func (j *simJournal) replay() []simJournalEntry {
	var live []simJournalEntry
	for _, e := range j.entries {
		at := slices.IndexFunc(live, func(l simJournalEntry) bool { return l.ref == e.ref })
		switch {
		case e.settled && at >= 0:
			live = slices.Delete(live, at, at+1)
		case e.ended != nil && at >= 0:
			live[at].ended = e.ended
		case !e.settled && e.ended == nil && at < 0:
			live = append(live, e)
		}
	}
	return live
}
