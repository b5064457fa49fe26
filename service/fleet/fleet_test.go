package fleet_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// fakeJobs stands for the orchestrator.
type fakeJobs struct {
	fleet        *fleet.Fleet
	mu           sync.Mutex
	disconnected []uint64
	acknowledge  func()
	onConnect    func()
}

func (f *fakeJobs) Connect(_ context.Context, _ job.Worker, attempts []job.AttemptRef, _ bool) ([]orchestrator.Verdict, error) {
	if f.onConnect != nil {
		f.onConnect()
	}
	return slices.Repeat([]orchestrator.Verdict{orchestrator.Keep}, len(attempts)), nil
}

func (f *fakeJobs) Disconnect(_ context.Context, _ job.WorkerID, session uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disconnected = append(f.disconnected, session)
	return nil
}

func (f *fakeJobs) Heartbeat(context.Context, job.WorkerID, uint64, job.Resources) error { return nil }

func (f *fakeJobs) AgentDrains(context.Context, job.WorkerID, uint64, bool) error { return nil }

func (f *fakeJobs) Lease() time.Duration { return 15 * time.Second }

func (f *fakeJobs) Report(_ context.Context, _ job.WorkerID, _ []orchestrator.Report, acknowledge func()) error {
	f.acknowledge = acknowledge
	return nil
}

// fakeLogs stands for the log keeper.
type fakeLogs struct {
	appended []*logs.Append
	settled  []store.LogRef
	refused  int
}

func (f *fakeLogs) OutputRefused(n int) { f.refused += n }

func (f *fakeLogs) Settled(ref store.LogRef) { f.settled = append(f.settled, ref) }

func (f *fakeLogs) Append(a *logs.Append) error {
	f.appended = append(f.appended, a)
	return nil
}

func (f *fakeLogs) State(context.Context, store.LogRef) (store.LogState, error) {
	return store.LogState{Bytes: 42}, nil
}

// fakeSecrets stands for the keeper of secrets: it has those whose name is not "none".
type fakeSecrets struct{}

func (fakeSecrets) Values(_ context.Context, spec *job.Spec) (map[string][]byte, error) {
	values := make(map[string][]byte)
	for _, name := range spec.SecretNames() {
		switch name {
		case "none":
			return nil, job.Errorf(job.CodeNotFound, job.ReasonSecretNotFound, "there is no secret none")
		case "broken":
			return nil, errors.New("the disk is gone")
		}
		values[name] = []byte("value of " + name)
	}
	return values, nil
}

func newFleet() (*fleet.Fleet, *fakeJobs, *fakeLogs) {
	l := &fakeLogs{}
	f := fleet.New(l, fakeSecrets{}, l, slog.New(slog.DiscardHandler))
	j := &fakeJobs{fleet: f}
	f.Attach(j)
	return f, j, l
}

func openSession(t *testing.T, f *fleet.Fleet, attempts ...job.AttemptRef) *fleet.Session {
	t.Helper()
	s, err := f.Open(t.Context(), job.Worker{ID: "wkr_1"}, attempts, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func next(t *testing.T, s *fleet.Session) []fleet.Message {
	t.Helper()
	return outgoing(t, s).Messages
}

func outgoing(t *testing.T, s *fleet.Session) fleet.Outgoing {
	t.Helper()
	out, err := s.Next(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

var ref = job.AttemptRef{Job: job.ID{1}, Attempt: 1, Epoch: 5}

func TestWelcomeComesBeforeOrdersThatWereGivenMeanwhile(t *testing.T) {
	t.Parallel()
	f, jobs, _ := newFleet()
	other := job.AttemptRef{Job: job.ID{2}, Attempt: 1, Epoch: 6}
	jobs.onConnect = func() { f.Assign("wkr_1", []orchestrator.Assignment{{Ref: other, Spec: new(job.Spec)}}) }
	s := openSession(t, f, ref)
	out := outgoing(t, s)
	welcome, ok := out.Messages[0].(fleet.Welcome)
	if !ok || len(out.Messages) != 1 || welcome.Verdicts[0].LogOffset != 42 || welcome.Verdicts[0].Verdict != orchestrator.Keep {
		t.Fatalf("the messages are %+v", out.Messages)
	}
	if len(out.Assignments) != 1 || out.Assignments[0].Ref != other || !s.Owns(store.LogRef{Job: other.Job, Attempt: 1}) {
		t.Errorf("with the welcome comes %+v", out.Assignments)
	}
}

func TestNewSessionEndsTheOldOneOfItsWorker(t *testing.T) {
	t.Parallel()
	f, jobs, _ := newFleet()
	old := openSession(t, f)
	next(t, old)
	fresh := openSession(t, f)
	if _, err := old.Next(t.Context(), 1); err == nil {
		t.Error("the old session goes on")
	}
	old.Close()
	old.Close()
	f.Cancel("wkr_1", ref, -1, false)
	if messages := next(t, fresh); len(messages) != 2 {
		t.Errorf("the new session has %+v", messages)
	}
	fresh.Close()
	if _, err := fresh.Next(t.Context(), 1); !errors.Is(err, io.EOF) {
		t.Errorf("a closed session gave %v", err)
	}
	if !slices.Equal(jobs.disconnected, []uint64{1, 2}) {
		t.Errorf("the ends of sessions %v were noted", jobs.disconnected)
	}
	f.Assign("wkr_1", make([]orchestrator.Assignment, 1)) // to nobody: dropped
}

// Each heartbeat is answered once, because the agent's lease counts from the one that was answered.
func TestHeartbeatsAreAnswered(t *testing.T) {
	t.Parallel()
	f, _, _ := newFleet()
	s := openSession(t, f)
	next(t, s)
	for range 3 {
		if err := s.Heartbeat(t.Context(), job.Resources{}); err != nil {
			t.Fatal(err)
		}
	}
	if messages := next(t, s); len(messages) != 3 || messages[0] != (fleet.Heartbeat{}) {
		t.Errorf("three heartbeats were answered by %+v", messages)
	}
}

func TestReportsAreAcknowledgedWhenTheyAreDurable(t *testing.T) {
	t.Parallel()
	f, jobs, keeper := newFleet()
	s := openSession(t, f, ref)
	next(t, s)
	if err := s.Report(t.Context(), []orchestrator.Report{{}, {Ref: ref, Silent: true}}); err != nil {
		t.Fatal(err)
	}
	jobs.acknowledge()
	if out := outgoing(t, s); out.Acknowledged != 2 {
		t.Errorf("the acknowledgement is %+v", out)
	}
	if s.Owns(store.LogRef{Job: ref.Job, Attempt: 1}) || len(keeper.settled) != 1 {
		t.Errorf("the log of an attempt that wrote nothing may be written, or its readers wait: %v", keeper.settled)
	}
}

func TestAgentMayWriteOnlyTheLogsOfItsAttempts(t *testing.T) {
	t.Parallel()
	f, _, keeper := newFleet()
	s := openSession(t, f, ref)
	next(t, s)
	mine, foreign := store.LogRef{Job: ref.Job, Attempt: 1}, store.LogRef{Job: job.ID{9}, Attempt: 1}
	err := s.Append([]logs.Chunk{{Ref: mine}, {Ref: foreign}}, []store.LogEnd{{Ref: foreign}, {Ref: mine}})
	if err != nil || keeper.refused != 2 || len(keeper.appended) != 1 || len(keeper.appended[0].Chunks) != 1 || len(keeper.appended[0].Ends) != 1 {
		t.Fatalf("appended %+v, %v", keeper.appended, err)
	}
	keeper.appended[0].Done([]logs.Ack{{Ref: mine, Offset: 7, Ended: true}})
	if ack, ok := next(t, s)[0].(fleet.LogAck); !ok || ack.Ref != ref || ack.Offset != 7 || !ack.Ended {
		t.Errorf("the acknowledgement is %+v", ack)
	}
	if s.Owns(mine) {
		t.Error("a log that has ended may still be written")
	}
	keeper.appended[0].Done([]logs.Ack{{Ref: mine, Offset: 7, Ended: true}}) // of what was under way already
	if err := s.Heartbeat(t.Context(), job.Resources{}); err != nil {
		t.Fatal(err)
	}
	if messages := next(t, s); len(messages) != 1 || messages[0] != (fleet.Heartbeat{}) {
		t.Errorf("beside the heartbeat the agent was told %v", messages)
	}
}

// What a rogue agent says of others' attempts is neither kept nor told to anybody, and output that is never written does not fill the memory.
func TestAgentNeitherTouchesOthersNorFillsTheMemory(t *testing.T) {
	t.Parallel()
	f, jobs, keeper := newFleet()
	s := openSession(t, f, ref)
	mine, foreign := store.LogRef{Job: ref.Job, Attempt: 1}, store.LogRef{Job: job.ID{9}, Attempt: 1}
	if err := s.Append([]logs.Chunk{{Ref: foreign}}, nil); err != nil || len(keeper.appended) != 0 {
		t.Errorf("the output of others became %d appends, %v", len(keeper.appended), err)
	}
	older := ref
	older.Epoch--
	if err := s.Report(t.Context(), []orchestrator.Report{{Ref: job.AttemptRef{Job: job.ID{9}, Attempt: 1}, Silent: true}, {Ref: older, Silent: true}}); err != nil {
		t.Fatal(err)
	}
	if jobs.acknowledge(); len(keeper.settled) != 0 || !s.Owns(mine) {
		t.Errorf("readers of %v were woken by one who does not have them", keeper.settled)
	}
	piece := []logs.Chunk{{Ref: mine, Data: make([]byte, logs.WindowBytes)}}
	send := func() error { return s.Append(slices.Clone(piece), nil) }
	for range 7 {
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range keeper.appended {
		a.Done(nil) // written, so that there is room again
	}
	n := 0
	for ; send() == nil; n++ {
		if n > 8 {
			t.Fatal("an agent may send without end")
		}
	}
	if n != 7 {
		t.Errorf("after what was written %d pieces found room, not 7", n)
	}
	if err := send(); job.CodeOf(err) != job.CodeExhausted {
		t.Errorf("too much output gave %v", err)
	}
}

// Attempts get the secrets that their specs name on their way out, or the reason why they cannot have them; when the store
// cannot be read the session ends, and the attempts are handed out again in the next one.
func TestAttemptsGetTheSecretsThatTheirSpecsName(t *testing.T) {
	t.Parallel()
	f, _, _ := newFleet()
	s := openSession(t, f)
	next(t, s)
	assign := func(names ...string) {
		var refs []job.SecretRef
		for _, name := range names {
			refs = append(refs, job.SecretRef{Name: name})
		}
		f.Assign("wkr_1", []orchestrator.Assignment{{Ref: ref, Spec: &job.Spec{Steps: []job.Step{{}, {Secrets: refs}}}}})
	}
	assign()
	assign("a", "b")
	assign("a", "none")
	out := outgoing(t, s).Assignments
	if len(out) != 3 || out[0].Secrets != nil || len(out[1].Secrets) != 2 || string(out[1].Secrets["b"]) != "value of b" || out[1].Problem != "" {
		t.Fatalf("the attempts go out as %+v", out)
	}
	if out[2].Problem != "there is no secret none" || len(out[2].Secrets) > 0 {
		t.Errorf("an attempt whose secret is missing goes out as %+v", out[2])
	}
	assign("broken")
	if _, err := s.Next(t.Context(), 100); err == nil {
		t.Error("the session goes on without the store")
	}
}

func TestAgentThatTakesNothingIsCutOff(t *testing.T) {
	t.Parallel()
	f, _, _ := newFleet()
	s := openSession(t, f)
	for range 100_001 {
		f.Cancel("wkr_1", ref, -1, false)
	}
	if _, err := s.Next(t.Context(), 1); job.CodeOf(err) != job.CodeExhausted {
		t.Errorf("an agent that took nothing got %v", err)
	}
}

func TestStoppingServerAsksAgentsToComeBackAndTakesNoNewOnes(t *testing.T) {
	t.Parallel()
	f, _, _ := newFleet()
	s := openSession(t, f)
	f.Drain(time.Second)
	messages := next(t, s)
	if drain, ok := messages[len(messages)-1].(fleet.Drain); !ok || drain.ReconnectAfter != time.Second {
		t.Errorf("the messages are %+v", messages)
	}
	if _, err := f.Open(t.Context(), job.Worker{ID: "wkr_2"}, nil, false); job.CodeOf(err) != job.CodeUnavailable {
		t.Errorf("a new session gave %v", err)
	}
}

func TestEveryAgentIsAskedToRenewItsCertificate(t *testing.T) {
	t.Parallel()
	f, _, _ := newFleet()
	s := openSession(t, f)
	next(t, s) // the welcome
	f.RenewCertificates()
	s.Push(fleet.Certificate{Chain: [][]byte{{1}}, Roots: [][]byte{{2}}})
	messages := next(t, s)
	if len(messages) != 2 || messages[0] != (fleet.RenewCertificate{}) {
		t.Fatalf("the agent is sent %v", messages)
	}
	if c, ok := messages[1].(fleet.Certificate); !ok || len(c.Chain) != 1 || len(c.Roots) != 1 {
		t.Errorf("the certificate is %v", messages[1])
	}
}
