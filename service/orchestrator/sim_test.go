package orchestrator

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Whatever fails, and in whatever order: what was acknowledged is not lost, terminal states absorb, what may start once
// starts once, at most one attempt of a job runs, workers get no more than they have, events have no gaps, and every job
// that was accepted ends. SEED=n runs one history again, SIM_SEEDS=n runs more of them.
func TestSimulation(t *testing.T) {
	t.Parallel()
	if text := os.Getenv("SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		simulate(t, seed, 10_000)
		return
	}
	seeds := 120
	if text := os.Getenv("SIM_SEEDS"); text != "" {
		var err error
		if seeds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(seeds) {
		simulate(t, seed, 150)
		if t.Failed() {
			return // the first failure is enough to look at
		}
	}
}

// A seed tells the whole history: else SEED= would not show again what has failed.
func TestSimulationIsDeterministic(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{0, 1, 2, 3, 4, 5} {
		first, second := newSimWorld(seed), newSimWorld(seed)
		first.live()
		second.live()
		if first.trace.hash != second.trace.hash {
			t.Errorf("seed %d gave two histories; the last part of the second:\n%s", seed, &second.trace)
		}
	}
}

// simulate lives through a history and shows the last lines of it when something was wrong.
func simulate(t *testing.T, seed uint64, lines int) {
	t.Helper()
	w := newSimWorld(seed)
	w.trace.limit = lines
	whole := false
	defer func() {
		if !whole {
			t.Errorf("SEED=%d shows it again: a panic", seed)
		}
	}()
	w.live()
	whole = true
	if w.failure != "" {
		t.Errorf("%s\n\nthe last part of what happened:\n%s\n\nSEED=%d shows it again: %s", w.failure, &w.trace, seed, w.failure)
	}
}

// live is a whole history: a time in which things fail, and a time in which everything comes to its end.
func (w *simWorld) live() {
	w.chooseFaults()
	for n := range 1 + w.rng.IntN(5) {
		a := w.newAgent(n)
		w.audit.workers[a.worker.ID] = a
		w.after(w.between(0, 20*time.Second), a.start)
	}
	w.startServer()
	w.after(0, w.audit.patrol)
	active := w.between(time.Minute, 5*time.Minute)
	w.planRequests(active)
	w.after(time.Second, w.nemesis)
	w.run(active)
	if w.failure != "" {
		return
	}
	w.heal()
	for range 20 * 60 {
		if w.failure != "" || w.quiet() {
			break
		}
		w.run(time.Second)
	}
	w.run(90 * time.Second)
	if w.failure == "" {
		w.checkEnd()
	}
}

// planRequests spreads what clients want over the active time.
func (w *simWorld) planRequests(active time.Duration) {
	jobs := 5 + w.rng.IntN(60)
	for jobs > 0 {
		n := 1
		if w.chance(0.2) {
			n = 1 + w.rng.IntN(min(jobs, 10))
		}
		jobs -= n
		w.after(w.between(0, active), func() { w.clients.submit(n) })
	}
	if w.chance(0.15) {
		w.after(w.between(0, active/2), func() { w.clients.submit(100 + w.rng.IntN(150)) })
	}
	for range w.rng.IntN(25) {
		w.after(w.between(0, active), w.clients.cancel)
	}
	for range w.rng.IntN(4) {
		a := w.agents[w.rng.IntN(len(w.agents))]
		w.after(w.between(0, active), func() { w.clients.drain(a.worker.ID, true) })
		w.after(w.between(0, active), func() { w.clients.drain(a.worker.ID, false) })
	}
}

// nemesis lets things fail.
func (w *simWorld) nemesis() {
	if w.healed {
		return
	}
	for _, a := range w.agents {
		w.harm(a)
	}
	if s := w.server; s != nil {
		switch f := &w.faults; {
		case w.fault(f.serverCrash):
			if w.fault(f.serverDouble * 0.5) {
				w.paused = s
			}
			s.die("it crashed")
		case w.fault(f.serverStop):
			s.stop()
		case w.fault(f.serverFreeze):
			s.sleep(w.between(100*time.Millisecond, 40*time.Second))
		}
	}
	if ids := w.audit.ids; len(ids) > 0 && w.fault(w.faults.poison) {
		if aj := w.audit.jobs[ids[w.rng.IntN(len(ids))]]; !aj.job.State.Terminal() {
			w.note("the record of %s rots", aj.job.ID)
			w.disk.poison[aj.job.ID] = true
		}
	}
	w.after(time.Second, w.nemesis)
}

func (w *simWorld) harm(a *simAgent) {
	f := &w.faults
	switch {
	case !a.up:
	case w.fault(f.lie):
		a.lie()
	case a.link != nil && w.fault(f.cut/3):
		a.note("its link is cut")
		a.link.cut()
	case w.fault(f.stall / 10):
		a.stall(w.between(100*time.Millisecond, 40*time.Second))
	case w.fault(f.pause / 10):
		a.pause(w.between(100*time.Millisecond, 50*time.Second))
	case w.fault(f.crash / 10):
		a.crashAndReturn(40 * time.Second)
		a.gone = w.fault(f.leave)
	case w.fault(f.crash / 50):
		a.note("wants no more jobs")
		a.draining = true
		if a.welcomed {
			a.link.sendUp(simUp{drain: true})
		}
		a.later(w.between(time.Second, 30*time.Second), func() { a.crash(false); w.after(time.Second, a.start) })
	}
}

// heal ends all faults, and adds an agent that can run everything, so that every job can end.
func (w *simWorld) heal() {
	w.note("everything heals")
	w.healed = true
	for _, a := range w.agents {
		a.stalledUntil = w.now
	}
	w.undrain()
	if w.server != nil && len(w.disk.poison) > 0 {
		w.server.stop() // the next life sets aside what cannot be decoded
	}
	a := w.newAgent(20)
	a.worker.Labels = map[string]string{"disk": "ssd", "zone": "south"}
	a.worker.Capacity = job.Resources{MilliCPU: 16_000, MemoryMiB: 16_384, Extras: map[string]int32{"gpu": 8}}
	a.worker.Slots = 20
	w.audit.workers[a.worker.ID] = a
	a.start()
}

func (w *simWorld) undrain() {
	for _, a := range w.agents {
		w.clients.drain(a.worker.ID, false)
	}
	w.after(10*time.Second, w.undrain)
}

// quiet reports whether everybody has an answer and every job has ended.
func (w *simWorld) quiet() bool {
	if w.clients.open > 0 || w.server == nil {
		return false
	}
	for _, aj := range w.audit.jobs {
		if !aj.job.State.Terminal() && !aj.aside {
			return false
		}
	}
	return true
}

// checkEnd checks that everything has come to its end.
func (w *simWorld) checkEnd() {
	for _, id := range w.audit.ids {
		if aj := w.audit.jobs[id]; !aj.job.State.Terminal() && !aj.aside {
			w.fail("%s was accepted and never ended: it is %s in attempt %d on %s", id, aj.job.State, aj.job.Attempt, aj.job.Worker)
		}
	}
	if w.clients.open > 0 {
		w.fail("%d submissions were never answered", w.clients.open)
	}
	for _, a := range w.agents {
		if a.up && len(a.order)+len(a.reports) > 0 {
			w.fail("%s still keeps %d attempts and %d reports", a.worker.ID, len(a.order), len(a.reports))
		}
	}
	w.audit.atTheEnd()
	w.note("the end: %d jobs, %s", len(w.audit.ids), fmt.Sprint(w.summary()))
}

// summary counts the jobs by their ends.
func (w *simWorld) summary() map[string]int {
	ends := make(map[string]int)
	for _, aj := range w.audit.jobs {
		ends[aj.job.State.String()]++
	}
	return ends
}
