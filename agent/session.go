package agent

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
)

// protocolVersion is the version of the worker protocol that this agent speaks.
const protocolVersion = 1

const (
	// frameMessages and frameBytes bound a frame; a frame is sent as soon as there is anything to send.
	frameMessages = 256
	frameBytes    = 128 << 10
	// defaultWindow counts until the server has granted one.
	defaultWindow = 1 << 20
	// defaultHeartbeat counts until the server has said how often.
	defaultHeartbeat = 5 * time.Second
	// Waits between tries to connect grow to firstWaits for a while and then to longest, each with full jitter, so that
	// many agents do not come back at the same moment.
	shortestWait = 100 * time.Millisecond
	longestWait  = 3 * time.Second
)

// errServerDrains says that the server asked the agent to connect again.
var errServerDrains = errors.New("the server is stopping")

// keepConnected opens one session after the other until the context ends.
func (a *agent) keepConnected(ctx context.Context) {
	wait := shortestWait
	for {
		client := newConnectClient(a.config.ServerURL, a.identity.tlsConfig())
		s := &session{agent: a, shipper: shipper{slots: a.slots, window: defaultWindow}, pace: pace{every: frameTime}}
		err := s.run(ctx, hwpv1connect.NewWorkerServiceClient(client.client))
		client.close()
		if ctx.Err() != nil {
			return
		}
		if s.welcomed {
			wait = shortestWait
		}
		reason := cmp.Or(a.identity.expired(), explainRemote(err))
		a.config.Logger.Info("the connection to the server ended; connecting again", "server", a.config.ServerURL, "reason", reason)
		if sleep(ctx, s.reconnectAfter+rand.N(wait)) != nil { //nolint:gosec // spreads load, hides nothing
			return
		}
		wait = min(2*wait, longestWait)
	}
}

// session is one stream. run's goroutine writes, another one reads.
type session struct {
	agent          *agent
	stream         hwpv1connect.WorkerServiceConnectClientStream
	shipper        shipper
	load           load
	heartbeat      time.Duration
	welcomed       bool
	reconnectAfter time.Duration
	cancel         context.CancelCauseFunc
	pace           pace
	pass           pass

	mu   sync.Mutex // held while a frame is taken in
	over bool
}

// run returns why the session ended.
func (s *session) run(ctx context.Context, client hwpv1connect.WorkerServiceClient) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	streamCtx, err := s.pass.open(ctx, client)
	if err != nil {
		return err
	}
	stream, err := client.Connect(streamCtx)
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // the session is over, whatever it says
	s.stream, s.cancel = stream, cancel
	s.agent.dials++
	s.agent.lease.begin()
	s.agent.lease.ask()
	if err := s.send(&hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{s.register()}}); err != nil {
		return s.why(err)
	}
	// The server's answer is the first thing to come; until it is there, nothing else is said.
	frame, err := s.receive(ctx)
	if err != nil {
		return err
	}
	messages := frame.GetMessages()
	if len(messages) == 0 || messages[0].GetWelcome() == nil {
		return errors.New("the server did not begin with Welcome; it may be of another version")
	}
	s.welcome(messages[0].GetWelcome())
	frame.Messages = messages[1:]
	if err := s.handleAll(frame); err != nil {
		return err
	}
	go func() { cancel(s.read()) }()
	defer s.end()
	return s.write(ctx)
}

// end makes sure that the reader takes nothing in any more: the next session tells the server of all attempts that there are.
func (s *session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
}

// receive waits for a frame, for no longer than a lease.
func (s *session) receive(ctx context.Context) (*hwpv1.ConnectResponse, error) {
	type result struct {
		frame *hwpv1.ConnectResponse
		err   error
	}
	results := make(chan result, 1)
	go func() {
		frame, err := s.stream.Receive()
		results <- result{frame, err}
	}()
	timer := time.NewTimer(s.agent.lease.duration())
	defer timer.Stop()
	select {
	case r := <-results:
		return r.frame, r.err
	case <-timer.C:
		return nil, errors.New("the server does not answer")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *session) register() *hwpv1.AgentMessage {
	config := s.agent.config
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_Register{Register: &hwpv1.Register{
		ProtocolVersion: protocolVersion, Name: config.Name, Labels: config.Labels, Capacity: config.Capacity.toProto(),
		AgentVersion: config.Version, BootId: s.agent.bootID, Attempts: s.agent.slots.refs(), Forgetful: s.agent.forgetful,
		Dial: s.agent.dials, Taints: config.Taints, Features: capabilities(config.Runner),
	}}}
}

// welcome takes in how things stand and makes everything be sent again that the server does not have.
func (s *session) welcome(w *hwpv1.Welcome) {
	a := s.agent
	s.welcomed = true
	s.heartbeat = w.GetHeartbeatInterval().AsDuration()
	if s.heartbeat <= 0 {
		s.heartbeat = defaultHeartbeat
	}
	if w.GetLogWindowBytes() > 0 {
		s.shipper.window = int64(w.GetLogWindowBytes())
	}
	a.lease.set(w.GetLease().AsDuration())
	a.lease.answered()
	a.forgetful = false // the server has heard of it
	verdicts := make(map[uint64]*hwpv1.AttemptVerdict, len(w.GetVerdicts()))
	for _, v := range w.GetVerdicts() {
		verdicts[v.GetAttempt().GetEpoch()] = v
	}
	for _, t := range a.slots.all() {
		a.obey(t, verdicts[t.ref.GetEpoch()])
	}
	a.outbox.begin()
	a.config.Logger.Info("connected", "server", a.config.ServerURL, "attempts", len(verdicts))
	a.signal()
}

// obey does what the server says about an attempt that it was told of; about one that it says nothing of it knows nothing.
func (a *agent) obey(t *attempt, v *hwpv1.AttemptVerdict) {
	switch v.GetVerdict() {
	case hwpv1.Verdict_VERDICT_KEEP:
	case hwpv1.Verdict_VERDICT_CANCEL:
		t.stop(false, hwpv1.OutcomeKind_OUTCOME_KIND_CANCELED, "the server has moved on without this attempt")
	default:
		a.slots.forget(t)
		return
	}
	if out := t.output(); out != nil {
		out.resume(v.GetLogOffset())
	}
	if v.GetLogEnded() {
		t.logAcked.Store(true)
		a.settle(t)
	}
}

// settle forgets attempts of which the server has everything.
func (a *agent) settle(attempts ...*attempt) {
	if err := a.slots.settle(attempts...); err != nil {
		a.journalFailed(err)
	}
}

// write sends what there is to send until the session ends.
func (s *session) write(ctx context.Context) error {
	ticker := time.NewTicker(s.heartbeat)
	defer ticker.Stop()
	renewal := time.NewTimer(s.untilRenewal())
	defer renewal.Stop()
	beat := true
	for {
		frame := &hwpv1.ConnectRequest{}
		if beat {
			beat = false
			s.agent.lease.ask()
			frame.Messages = append(frame.Messages, &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_Heartbeat{Heartbeat: s.load.heartbeat()}})
		}
		if wish, err := s.agent.identity.renewal(); err != nil {
			return err
		} else if wish != nil {
			frame.Messages = append(frame.Messages, wish)
		}
		if wish := s.pass.renewal(); wish != nil {
			frame.Messages = append(frame.Messages, wish)
		}
		reports, messages := s.agent.outbox.next(frameMessages)
		frame.Reports = reports
		frame.Messages = s.shipper.collect(append(frame.Messages, messages...), frameBytes)
		if len(frame.GetMessages())+len(reports) > 0 {
			if err := s.send(frame); err != nil {
				return s.why(err)
			}
			if len(reports) == 0 { // reports have gathered already
				s.pace.gather(ctx)
			}
			if ctx.Err() == nil {
				continue
			}
		}
		renewal.Reset(s.untilRenewal())
		select {
		case <-s.agent.wake:
		case <-renewal.C:
		case <-ticker.C:
			beat = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// untilRenewal is how long until a certificate or an access token is to be asked for.
func (s *session) untilRenewal() time.Duration {
	return min(s.agent.identity.untilDue(), s.pass.untilDue())
}

func (s *session) send(frame *hwpv1.ConnectRequest) error {
	frame.SendTime = timestamppb.Now()
	return s.stream.Send(frame)
}

// why asks the stream for the reason of a failed send: io.EOF only says that the other side has ended the stream.
func (s *session) why(err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if _, received := s.stream.Receive(); received != nil {
		return received
	}
	return err
}

// read takes in what the server says until the stream ends, or the server is silent for longer than a lease: a connection
// can be dead without an end.
func (s *session) read() error {
	silence := time.AfterFunc(s.agent.lease.duration(), func() { s.cancel(errors.New("the server is silent")) })
	defer silence.Stop()
	for {
		frame, err := s.stream.Receive()
		if err != nil {
			return err
		}
		silence.Reset(s.agent.lease.duration())
		if err := s.takeIn(frame); err != nil {
			return err
		}
		s.agent.signal()
	}
}

// takeIn does what a frame says, unless the session is over.
func (s *session) takeIn(frame *hwpv1.ConnectResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return io.EOF
	}
	return s.handleAll(frame)
}

// handleAll does what a frame says: attempts are taken first.
func (s *session) handleAll(frame *hwpv1.ConnectResponse) error {
	if err := s.agent.slots.assign(frame.GetAssignments()); err != nil {
		return err
	}
	if n := int(frame.GetReportsAcknowledged()); n > 0 {
		ended := s.agent.outbox.acknowledge(n)
		for _, t := range ended {
			t.endAcked.Store(true)
		}
		s.agent.settle(ended...)
	}
	for _, m := range frame.GetMessages() {
		if err := s.handle(m); err != nil {
			return err
		}
	}
	return nil
}

// handle does what one message says. It must not wait for anything slow.
func (s *session) handle(m *hwpv1.ServerMessage) error {
	a := s.agent
	switch p := m.GetPayload().(type) {
	case *hwpv1.ServerMessage_Cancel:
		if t := a.slots.get(p.Cancel.GetAttempt()); t != nil {
			if step := p.Cancel.GetStep(); step >= 0 {
				t.stopStep(int(step), p.Cancel.GetForce(), hwpv1.OutcomeKind_OUTCOME_KIND_CANCELED, "canceled on request")
			} else {
				t.stop(p.Cancel.GetForce(), hwpv1.OutcomeKind_OUTCOME_KIND_CANCELED, "canceled on request")
			}
		}
	case *hwpv1.ServerMessage_LogAck:
		s.acknowledgeLog(p.LogAck)
	case *hwpv1.ServerMessage_Heartbeat:
		a.lease.answered()
	case *hwpv1.ServerMessage_Certificate:
		go a.renewed(p.Certificate) // it waits for the disk
	case *hwpv1.ServerMessage_Token:
		s.pass.take(p.Token)
		a.signal() // the session's timer is for the former one
	case *hwpv1.ServerMessage_RenewCertificate:
		a.identity.hasten()
	case *hwpv1.ServerMessage_Drain:
		s.reconnectAfter = p.Drain.GetReconnectAfter().AsDuration()
		return errServerDrains
	}
	return nil
}

func (s *session) acknowledgeLog(ack *hwpv1.LogAck) {
	t := s.agent.slots.get(ack.GetAttempt())
	if t == nil {
		return
	}
	if out := t.output(); out != nil {
		out.acknowledge(ack.GetOffset())
	}
	if ack.GetEnded() {
		t.logAcked.Store(true)
		s.agent.settle(t)
	}
}
