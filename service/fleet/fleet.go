// Package fleet is the worker manager: the sessions of connected agents, what is sent to them and what they say.
package fleet

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// beatsPerLease is how often both sides of a session say that they live while a lease runs: one lost beat is no loss.
const beatsPerLease = 3

// Jobs is what a fleet needs of the orchestrator.
type Jobs interface {
	Connect(ctx context.Context, w job.Worker, attempts []job.AttemptRef, forgetful bool) ([]orchestrator.Verdict, error)
	Disconnect(ctx context.Context, id job.WorkerID, session uint64) error
	Heartbeat(ctx context.Context, id job.WorkerID, session uint64, used job.Resources) error
	Report(ctx context.Context, id job.WorkerID, reports []orchestrator.Report, acknowledge func()) error
	AgentDrains(ctx context.Context, id job.WorkerID, session uint64, draining bool) error
	Lease() time.Duration
}

// Logs is what a fleet needs of the log keeper.
type Logs interface {
	Append(a *logs.Append) error
	State(ctx context.Context, ref store.LogRef) (store.LogState, error)
	Settled(ref store.LogRef)
}

// Secrets is what a fleet needs of the keeper of secrets.
type Secrets interface {
	// Values returns the values of the secrets that a spec names, by name. A *job.Error says why they cannot be had.
	Values(ctx context.Context, spec *job.Spec) (map[string][]byte, error)
}

// Metrics counts what agents may not do. Its method must be quick.
type Metrics interface{ OutputRefused(n int) }

// Fleet knows the connected agents. It is the orchestrator's Dispatcher. All methods may be called at once.
type Fleet struct {
	jobs    Jobs
	logs    Logs
	secrets Secrets
	metrics Metrics
	logger  *slog.Logger

	mu       sync.Mutex
	sessions map[job.WorkerID]*Session
	last     uint64 // number of the newest session
	closed   bool
}

// New makes a fleet without the orchestrator, which needs the fleet first; call Attach before Open.
func New(keeper Logs, secrets Secrets, metrics Metrics, logger *slog.Logger) *Fleet {
	return &Fleet{logs: keeper, secrets: secrets, metrics: metrics, logger: logger, sessions: make(map[job.WorkerID]*Session)}
}

// Attach gives the fleet its orchestrator.
func (f *Fleet) Attach(jobs Jobs) { f.jobs = jobs }

// Welcome tells an agent how things stand when its session begins.
type Welcome struct {
	Lease     time.Duration
	Heartbeat time.Duration // how often the agent says that it lives
	Verdicts  []AttemptVerdict
}

// AttemptVerdict says what to do with an attempt that an agent has, and how far its log has come.
type AttemptVerdict struct {
	Ref       job.AttemptRef
	Verdict   orchestrator.Verdict
	LogOffset uint64
	LogEnded  bool
}

// Open begins the session of an agent that has these attempts, and is forgetful if it may have had others. An older session
// of the same worker is closed. The caller sends what Next returns, Welcome first, and calls Close at the end.
func (f *Fleet) Open(ctx context.Context, w job.Worker, attempts []job.AttemptRef, forgetful bool) (*Session, error) {
	s, err := f.register(&w)
	if err != nil {
		return nil, err
	}
	verdicts, err := f.jobs.Connect(ctx, w, attempts, forgetful)
	if err != nil {
		s.Close()
		return nil, err
	}
	welcome := Welcome{Lease: f.jobs.Lease(), Heartbeat: f.heartbeat()}
	for i, ref := range attempts {
		v := AttemptVerdict{Ref: ref, Verdict: verdicts[i]}
		if v.Verdict != orchestrator.Forget {
			s.own(ref)
			state, err := f.logs.State(ctx, logRef(ref))
			if err != nil {
				s.Close()
				return nil, err
			}
			v.LogOffset, v.LogEnded = state.Bytes, state.End != nil
		}
		welcome.Verdicts = append(welcome.Verdicts, v)
	}
	s.begin(welcome)
	f.logger.Info("worker connected", "worker", w.ID, "name", w.Name, "attempts", len(attempts))
	return s, nil
}

func (f *Fleet) register(w *job.Worker) (*Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, job.Errorf(job.CodeUnavailable, job.ReasonUnavailable, "the server is stopping")
	}
	f.last++
	w.Session = f.last
	s := newSession(f, w.ID, w.Session)
	if old := f.sessions[w.ID]; old != nil {
		old.Kick(job.Errorf(job.CodePrecondition, job.ReasonUnavailable, "worker %s has connected again", w.ID))
	}
	f.sessions[w.ID] = s
	return s, nil
}

// heartbeat is how often both sides of a session say that they live.
func (f *Fleet) heartbeat() time.Duration { return f.jobs.Lease() / beatsPerLease }

// remove forgets a session, unless a newer one of its worker is there.
func (f *Fleet) remove(s *Session) {
	f.mu.Lock()
	if f.sessions[s.worker] == s {
		delete(f.sessions, s.worker)
	}
	f.mu.Unlock()
	// Whoever closes the session may have no context left; the command only needs room in the inbox.
	ctx, cancel := context.WithTimeout(context.Background(), f.heartbeat())
	defer cancel()
	if err := f.jobs.Disconnect(ctx, s.worker, s.number); err != nil {
		f.logger.Debug("the end of a session was not noted; its lease will run out", "worker", s.worker, "error", err)
	}
}

func (f *Fleet) session(id job.WorkerID) *Session {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[id]
}

// Assign implements orchestrator.Dispatcher.
func (f *Fleet) Assign(worker job.WorkerID, attempts []orchestrator.Assignment) {
	if s := f.session(worker); s != nil {
		s.assign(attempts)
	}
}

// Cancel implements orchestrator.Dispatcher.
func (f *Fleet) Cancel(worker job.WorkerID, ref job.AttemptRef, step int, force bool) {
	if s := f.session(worker); s != nil {
		s.Push(Cancel{Ref: ref, Step: step, Force: force})
	}
}

// Drain asks every agent to connect again later, and refuses new sessions: the server is about to stop.
func (f *Fleet) Drain(reconnectAfter time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for _, s := range f.sessions {
		s.Push(Drain{ReconnectAfter: reconnectAfter})
	}
}

// RenewCertificates asks every connected agent to renew its certificate.
func (f *Fleet) RenewCertificates() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sessions {
		s.Push(RenewCertificate{})
	}
}

func logRef(ref job.AttemptRef) store.LogRef { return store.LogRef{Job: ref.Job, Attempt: ref.Attempt} }
