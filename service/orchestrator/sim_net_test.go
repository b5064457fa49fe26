package orchestrator

import (
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// simLink is the stream of one session: two ordered pipes. It stalls, and then everything comes late but in order, or it
// is cut, and then what is under way is lost but for a part that the other side had received already.
type simLink struct {
	w       *simWorld
	agent   *simAgent
	server  *simServer
	session *simSession // on the server, once it has registered
	up      simPipe[simUp]
	down    simPipe[simDown]
	isCut   bool
}

// simUp is a frame from an agent.
type simUp struct {
	register  *simRegister
	reports   []Report
	lie       bool // the reports are not to be acknowledged
	heartbeat bool
	drain     bool
}

// simRegister opens a session.
type simRegister struct {
	worker    job.Worker
	attempts  []job.AttemptRef
	forgetful bool
}

// simDown is a frame to an agent.
type simDown struct {
	welcome      map[job.AttemptRef]Verdict // nil in all frames but the first
	assignments  []Assignment
	acknowledged int
	cancels      []cancelOrder
	heard        bool // the answer to a heartbeat
}

// simPipe is one direction.
type simPipe[F any] struct {
	frames []simInFlight[F]
	moving bool
}

type simInFlight[F any] struct {
	at    time.Time
	frame F
}

func (l *simLink) sendUp(f simUp)     { l.up.send(l, f, l.arriveUp) }
func (l *simLink) sendDown(f simDown) { l.down.send(l, f, l.arriveDown) }

func (p *simPipe[F]) send(l *simLink, frame F, arrive func(F)) {
	if l.isCut {
		return
	}
	p.frames = append(p.frames, simInFlight[F]{l.w.now.Add(l.w.between(time.Millisecond, 60*time.Millisecond)), frame})
	if !p.moving {
		p.moving = true
		p.move(l, arrive)
	}
}

// move waits for the first frame's time, delivers it and goes on with the next.
func (p *simPipe[F]) move(l *simLink, arrive func(F)) {
	if len(p.frames) == 0 {
		p.moving = false
		return
	}
	at := p.frames[0].at
	if at.Before(l.agent.stalledUntil) {
		at = l.agent.stalledUntil
	}
	if wait := at.Sub(l.w.now); wait > 0 {
		l.w.after(min(wait, 100*time.Millisecond), func() { p.move(l, arrive) }) // a stall may end early, for both directions
		return
	}
	frame := p.frames[0].frame
	p.frames = p.frames[1:]
	arrive(frame)
	p.move(l, arrive)
}

// keep loses what is under way but for a first part.
func (p *simPipe[F]) keep(n int) { p.frames = p.frames[:min(n, len(p.frames))] }

func (l *simLink) arriveUp(f simUp) { l.server.whenAwake(func() { l.server.receive(l, f) }) }

func (l *simLink) arriveDown(f simDown) {
	l.agent.later(0, func() {
		if l.agent.link == l {
			l.agent.receive(f)
		}
	})
}

// cut breaks the stream. Each side notices in its own time.
func (l *simLink) cut() {
	if l.isCut {
		return
	}
	l.isCut = true
	l.up.keep(l.w.rng.IntN(len(l.up.frames) + 1))
	l.down.keep(l.w.rng.IntN(len(l.down.frames) + 1))
	if late := l.w.between(0, 30*time.Second); l.w.fault(l.w.faults.cut / 2) { // the network says them again, after a while
		for i := range l.up.frames {
			l.up.frames[i].at = l.up.frames[i].at.Add(late)
		}
	}
	l.agent.later(l.w.between(0, 4*time.Second), func() { l.agent.lostLink(l) })
	if l.session != nil {
		l.server.closeSession(l.session, l.w.between(0, 8*time.Second))
	}
}
