package orchestrator

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
)

// simServer is one life of the server: an Orchestrator, the sessions of a fleet, and a reader of its events.
type simServer struct {
	w        *simWorld
	store    *simStore
	o        *Orchestrator
	reader   *simReader
	sessions map[job.WorkerID]*simSession
	last     uint64 // number of the newest session

	asleep      time.Time // until then nothing of it moves
	waiting     []func()  // what arrives meanwhile
	alarm       uint64    // number of the planned turn; older ones do not count
	dead        bool      // effects no longer come out
	effectsLeft int       // after so many effects the power fails; 0: it does not
}

// simSession is the server's side of a stream.
type simSession struct {
	link   *simLink
	worker job.WorkerID
	number uint64
	out    simDown
	begun  bool
	ended  bool
	opened bool // its Connect has been answered
}

// startServer opens the store and begins a life. What was left from an earlier life is recovered.
func (w *simWorld) startServer() {
	s := &simServer{w: w, sessions: make(map[job.WorkerID]*simSession), store: &simStore{Store: w.disk.Store, disk: w.disk}}
	s.store.server = s
	w.audit.recovering()
	events := bus.New(64)
	o, err := Open(context.Background(), Config{
		Store: s.store, Bus: events, Dispatcher: s, Metrics: w.audit, Logger: slog.New(slog.DiscardHandler),
		Clock: w.clock, NewJobID: w.newJobID, MaxUnfinished: w.maxUnfinished, Lease: simLease,
	})
	if err != nil {
		w.note("the server cannot start: %v", err)
		w.after(time.Second, w.startServer)
		return
	}
	s.o = o
	w.server = s
	s.reader = newSimReader(s, events)
	w.note("server starts, term %d", o.term)
	w.audit.afterTurn(s)
	s.wake(0)
	if old := w.paused; old != nil {
		w.paused = nil
		old.goesOn()
	}
}

// die ends the life; w.server is nil until the next.
func (s *simServer) die(why string) {
	if s.w.server != s {
		return
	}
	s.w.note("server ends: %s", why)
	s.dead = true
	s.w.server = nil
	for _, session := range s.ordered() {
		session.link.cut()
	}
	s.w.after(s.w.between(100*time.Millisecond, 10*time.Second), s.w.startServer)
}

// ordered returns the sessions in the order of their opening, because a map has none.
func (s *simServer) ordered() []*simSession {
	var out []*simSession
	for _, session := range s.sessions {
		out = append(out, session)
	}
	slices.SortFunc(out, func(a, b *simSession) int { return int(a.number) - int(b.number) })
	return out
}

// whenAwake lets something arrive, now or when the server wakes up.
func (s *simServer) whenAwake(f func()) {
	switch {
	case s.dead:
	case s.asleep.After(s.w.now):
		s.waiting = append(s.waiting, f)
	default:
		f()
	}
}

// sleep stops the server for a while, as a machine that is paused or a disk that hangs does.
func (s *simServer) sleep(d time.Duration) {
	s.w.note("server sleeps for %v", d)
	s.asleep = s.w.now.Add(d)
	s.w.after(d, func() {
		// Timers that have run out go off before what waits at the door, or after it.
		if s.w.chance(0.5) {
			s.turn()
		}
		waiting := s.waiting
		s.waiting = nil
		for _, f := range waiting {
			s.whenAwake(f)
		}
	})
}

// put hands a command over and sees to it that a turn follows.
func (s *simServer) put(c command, then func(error)) {
	if err := s.o.inbox.put(context.Background(), &simCommand{command: c, server: s, then: then}); err != nil {
		then(err)
		return
	}
	s.wake(s.w.between(0, 20*time.Millisecond))
}

// simCommand tells when the reactor lets the answer to a command out.
type simCommand struct {
	command

	server *simServer
	then   func(error)
}

func (c *simCommand) done(err error) {
	c.command.done(err)
	if c.server.effect() {
		c.then(err)
	}
}

// effect asks whether an effect still comes out of the server, which may lose its power between any two.
func (s *simServer) effect() bool {
	if s.effectsLeft > 0 {
		if s.effectsLeft--; s.effectsLeft == 0 {
			s.dead = true
		}
	}
	return !s.dead
}

// wake plans a turn, unless one is planned that is not later.
func (s *simServer) wake(d time.Duration) {
	s.alarm++
	mine := s.alarm
	s.w.after(d, func() {
		if mine == s.alarm {
			s.turn()
		}
	})
}

// turn is what Run does when it wakes up.
func (s *simServer) turn() {
	if s.dead || s.w.server != s {
		return
	}
	if rest := s.asleep.Sub(s.w.now); rest > 0 {
		s.wake(rest + time.Millisecond)
		return
	}
	limit := maxBatch
	if s.w.chance(0.2) {
		limit = 1 + s.w.rng.IntN(8)
	}
	batch := s.o.inbox.take(nil, limit)
	if s.w.fault(s.w.faults.commit / 2) {
		s.effectsLeft = 1 + s.w.rng.IntN(6)
	}
	s.w.audit.beforeTurn()
	err := s.o.turn(context.Background(), batch)
	s.effectsLeft = 0
	s.pumpAll()
	switch {
	case s.dead:
		s.die("power failed")
	case err != nil:
		s.w.note("turn failed: %v", err)
		s.o.stop(batch)
		s.die("a turn failed")
	default:
		s.w.audit.afterTurn(s)
		s.reader.read()
		s.nextTurn()
	}
}

// nextTurn plans the next turn: soon when commands are left, else when the reactor wants to look at the time.
func (s *simServer) nextTurn() {
	select {
	case <-s.o.inbox.ready:
		s.wake(s.w.between(0, 5*time.Millisecond))
	default:
		s.wake(s.o.state.nextTimer(s.w.now))
	}
}

// stop ends the life in good order: everybody who waits is answered.
func (s *simServer) stop() {
	s.o.stop(nil)
	s.die("it was stopped")
}

// Assign implements Dispatcher.
func (s *simServer) Assign(worker job.WorkerID, attempts []Assignment) {
	s.w.audit.assigned(worker, attempts)
	if !s.effect() {
		return
	}
	if session := s.sessions[worker]; session != nil && !session.ended {
		session.out.assignments = append(session.out.assignments, attempts...)
	}
}

// Cancel implements Dispatcher.
func (s *simServer) Cancel(worker job.WorkerID, ref job.AttemptRef, step int, force bool) {
	s.w.audit.cancelOrdered(worker, ref, step)
	if !s.effect() {
		return
	}
	if session := s.sessions[worker]; session != nil && !session.ended {
		session.out.cancels = append(session.out.cancels, cancelOrder{worker, ref, step, force})
	}
}

// pumpAll sends what a turn left to be sent. It is not done in Assign because the reactor names workers in any order.
func (s *simServer) pumpAll() {
	for _, session := range s.ordered() {
		session.pump()
	}
}

func (q *simSession) pump() {
	if !q.begun || q.ended {
		return
	}
	f := q.out
	if len(f.assignments)+len(f.cancels)+f.acknowledged == 0 && f.welcome == nil {
		return
	}
	q.out = simDown{}
	q.link.sendDown(f)
}

// receive takes a frame in.
func (s *simServer) receive(l *simLink, f simUp) {
	if f.register != nil {
		s.openSession(l, f.register)
		return
	}
	session := l.session
	if session == nil || !session.begun || session.ended && s.w.chance(0.9) { // seldom one is on its way within the server
		return
	}
	if len(f.reports) > 0 {
		s.report(session, f.reports, !f.lie)
	}
	if f.heartbeat {
		s.put(&heartbeat{id: session.worker, session: session.number}, func(error) {})
		session.link.sendDown(simDown{heard: true})
	}
	if f.drain && !session.ended {
		s.put(&agentDrain{id: session.worker, session: session.number, draining: true}, func(error) {})
	}
}

func (s *simServer) report(session *simSession, reports []Report, acknowledge bool) {
	w := s.w
	own := slices.Clone(reports) // the reactor writes into them
	for i := range own {
		own[i].Steps = slices.Clone(own[i].Steps)
	}
	s.put(&report{worker: session.worker, reports: own, acknowledge: func() {}}, func(err error) {
		if err != nil {
			return
		}
		w.audit.reportAcknowledged(session.worker, reports)
		if acknowledge {
			session.out.acknowledged += len(reports)
		}
	})
}

// openSession does what fleet.Open does: an older session of the worker ends, and the reactor hears of the new one, which
// takes its time.
func (s *simServer) openSession(l *simLink, r *simRegister) {
	s.last++
	session := &simSession{link: l, worker: r.worker.ID, number: s.last}
	l.session = session
	if old := s.sessions[r.worker.ID]; old != nil {
		s.w.after(0, old.link.cut)
		s.closeSession(old, s.w.between(0, 20*time.Millisecond))
	}
	s.sessions[r.worker.ID] = session
	r.worker.Session = session.number
	s.w.after(s.w.between(0, 30*time.Millisecond), func() { s.whenAwake(func() { s.connect(session, r) }) })
}

func (s *simServer) connect(session *simSession, r *simRegister) {
	c := &connect{
		waiter: newWaiter(), worker: r.worker, attempts: r.attempts, forgetful: r.forgetful, verdicts: make([]Verdict, len(r.attempts)),
	}
	s.put(c, func(err error) {
		session.opened = true
		if err == nil {
			err = c.err
		}
		if session.ended {
			s.put(&disconnect{id: session.worker, session: session.number}, func(error) {})
			return
		}
		if err != nil {
			session.link.cut()
			return
		}
		s.w.audit.connected(session.worker, r, c.verdicts)
		session.begin(r, c.verdicts)
		if session.link.isCut {
			s.closeSession(session, s.w.between(0, 8*time.Second))
		}
	})
}

func (q *simSession) begin(r *simRegister, verdicts []Verdict) {
	q.out.welcome = make(map[job.AttemptRef]Verdict, len(verdicts))
	for i, ref := range r.attempts {
		q.out.welcome[ref] = verdicts[i]
	}
	q.begun = true
}

// closeSession ends a session after a while, and tells the reactor.
func (s *simServer) closeSession(session *simSession, d time.Duration) {
	s.w.after(d, func() {
		s.whenAwake(func() {
			if session.ended {
				return
			}
			session.ended = true
			if s.sessions[session.worker] == session {
				delete(s.sessions, session.worker)
			}
			if session.opened { // else the end is told after the beginning
				s.put(&disconnect{id: session.worker, session: session.number}, func(error) {})
			}
			session.link.cut()
		})
	})
}

// goesOn lets the server do one more turn after another one has taken the lead, as one does that was paused.
func (s *simServer) goesOn() {
	s.w.note("server of term %d wakes up deposed", s.o.term)
	c := newSubmit([]Submission{{Specs: []job.Spec{s.w.clients.spec(fmt.Sprintf("double-%d", s.o.term))}}}, s.w.now)
	deposed := &simCommand{command: c, server: s, then: func(err error) {
		if err == nil && c.results[0].Err == nil {
			s.w.fail("a server that was deposed has acknowledged a job")
		}
	}}
	s.dead = false
	batch := append(s.o.inbox.take(nil, maxBatch), deposed)
	if err := s.o.turn(context.Background(), batch); err == nil && c.results[0].Err == nil {
		s.w.fail("a server that was deposed went on as if it were not")
	}
	s.dead = true
}
