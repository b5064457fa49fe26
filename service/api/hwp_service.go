package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/proto"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// protocolVersion is the version of the worker protocol that this server speaks.
const protocolVersion = 1

// frameLimit is how many messages one frame to an agent carries at most.
const frameLimit = 256

// maxRegister bounds what an agent says of its machine, in bytes.
const maxRegister = 64 << 10

// hwpService serves hwp.v1.WorkerService.
type hwpService struct {
	gate      *gate
	fleet     *fleet.Fleet
	enrolment *identity.Enrolment
	logger    *slog.Logger
}

func (s *hwpService) Enroll(ctx context.Context, req *hwpv1.EnrollRequest) (*hwpv1.EnrollResponse, error) {
	var id job.WorkerID
	var issued identity.Issued
	err := s.gate.tryLogin(callOf(ctx), "", func() (err error) {
		id, issued, err = s.enrolment.Enroll(ctx, identity.EnrollRequest{Token: req.GetToken(), CSR: req.GetCsrDer(), Name: req.GetName()})
		return err
	})
	if err != nil {
		return nil, err
	}
	return &hwpv1.EnrollResponse{WorkerId: string(id), ChainDer: issued.Chain, RootsDer: issued.Roots}, nil
}

// Authenticate gives an agent that has proved its key the token that Connect asks for.
func (s *hwpService) Authenticate(ctx context.Context, _ *hwpv1.AuthenticateRequest) (*hwpv1.AuthenticateResponse, error) {
	if _, err := s.enrolment.Worker(ctx, principal(ctx).Worker); err != nil {
		return nil, err
	}
	token, expires, err := s.gate.agentToken(ctx)
	if err != nil {
		return nil, err
	}
	return &hwpv1.AuthenticateResponse{Token: &hwpv1.AccessToken{Token: token, ExpireTime: timestamp(expires)}}, nil
}

// agentToken issues an access token to the agent that calls. It does not outlast the certificate of the connection.
func (g *gate) agentToken(ctx context.Context) (token string, expires time.Time, err error) {
	c := callOf(ctx)
	if !g.now().Before(c.certificateEnds) {
		return "", time.Time{}, job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"the certificate of the connection has expired; connect again with the one that followed it")
	}
	return g.accessTokens.Issue(c.caller, c.certificate, c.certificateEnds)
}

// Connect runs a session: this goroutine reads and hands on, another one writes.
func (s *hwpService) Connect(ctx context.Context, stream hwpv1connect.WorkerServiceConnectServerStream) error {
	session, first, err := s.open(ctx, stream)
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	written := make(chan error, 1)
	go func() {
		err := write(ctx, session, stream)
		cancel(err)
		written <- err
	}()
	frames := make(chan readResult)
	go read(ctx, stream, frames)
	c := &connection{gate: s.gate, session: session, renewals: renewals{
		enrolment: s.enrolment, worker: principal(ctx).Worker, session: session, entry: callOf(ctx).entry, logger: s.logger,
	}}
	err = c.receive(ctx, first, frames)
	session.Close()
	if writeErr := <-written; writeErr != nil && !errors.Is(writeErr, context.Canceled) && !errors.Is(writeErr, io.EOF) {
		return writeErr
	}
	return err
}

// open reads the first frame, which must begin with Register, and begins the session. What else is in the frame is returned.
func (s *hwpService) open(
	ctx context.Context, stream hwpv1connect.WorkerServiceConnectServerStream,
) (*fleet.Session, *hwpv1.ConnectRequest, error) {
	frame, err := stream.Receive()
	if err != nil {
		return nil, nil, err
	}
	messages := frame.GetMessages()
	if len(messages) == 0 || messages[0].GetRegister() == nil {
		return nil, nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "the first message of a stream must be Register")
	}
	register := messages[0].GetRegister()
	if v := register.GetProtocolVersion(); v != protocolVersion {
		return nil, nil, job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"the agent speaks version %d of the worker protocol and this server version %d; install an agent of the server's version",
			v, protocolVersion)
	}
	refs, err := refsFromProto(register.GetAttempts())
	if err != nil {
		return nil, nil, err
	}
	register.Attempts = nil // the rest stays in memory, and is shown to everybody who lists workers
	if size := proto.Size(register); size > maxRegister {
		return nil, nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"the agent describes its machine in %d bytes, and at most %d are allowed; give it fewer labels", size, maxRegister)
	}
	sighting, err := sightingOf(ctx, register)
	if err != nil {
		return nil, nil, err
	}
	record, err := s.enrolment.Seen(ctx, sighting)
	if err != nil {
		return nil, nil, err
	}
	session, err := s.fleet.Open(ctx, workerFromRegister(sighting.Worker, record, register), refs, register.GetForgetful())
	if err != nil {
		return nil, nil, err
	}
	// After Open, so that a rotation either finds the session or has come before this.
	if s.enrolment.Opened(sighting) {
		session.Push(fleet.RenewCertificate{})
	}
	frame.Messages = messages[1:]
	return session, frame, nil
}

// sightingOf gathers what shows whether two agents have the same identity.
func sightingOf(ctx context.Context, register *hwpv1.Register) (identity.Sighting, error) {
	info, _ := connecthttp.ServerInfoForContext(ctx)
	state := info.TLS()
	if state == nil || len(state.VerifiedChains) == 0 { // the access rule does not let it come so far
		return identity.Sighting{}, job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated, "a session needs an agent's certificate")
	}
	return identity.SightingOf(principal(ctx).Worker, state.VerifiedChains[0], register.GetBootId(), register.GetDial()), nil
}

// connection is an agent's stream after it was opened.
type connection struct {
	gate     *gate
	session  *fleet.Session
	renewals renewals
	issued   time.Time // when the last access token was
}

// write sends what the session has to say, as much as is ready in one frame.
func write(ctx context.Context, session *fleet.Session, stream hwpv1connect.WorkerServiceConnectServerStream) error {
	for {
		out, err := session.Next(ctx, frameLimit)
		if err != nil {
			return err
		}
		frame := &hwpv1.ConnectResponse{ReportsAcknowledged: int32(out.Acknowledged)}
		for _, m := range out.Messages {
			frame.Messages = append(frame.Messages, messageToProto(m))
		}
		frame.Assignments = assignmentsToProto(out.Assignments)
		if err := stream.Send(frame); err != nil {
			return err
		}
	}
}

type readResult struct {
	frame *hwpv1.ConnectRequest
	err   error
}

// read hands frames over until the stream ends. It runs beside receive so that a session that was closed, by a newer one of
// the same worker say, ends at once although its agent is silent.
func read(ctx context.Context, stream hwpv1connect.WorkerServiceConnectServerStream, frames chan<- readResult) {
	for {
		frame, err := stream.Receive()
		select {
		case frames <- readResult{frame, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (c *connection) receive(ctx context.Context, first *hwpv1.ConnectRequest, frames <-chan readResult) error {
	if err := c.take(ctx, first); err != nil {
		return err
	}
	for {
		select {
		case r := <-frames:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return connect.NewError(connect.CodeUnavailable, "the agent's stream broke").WithCause(r.err)
			}
			if err := c.take(ctx, r.frame); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take hands the content of a frame on, gathered by what it is about.
func (c *connection) take(ctx context.Context, frame *hwpv1.ConnectRequest) error {
	var f frameContent
	if err := f.addReports(frame.GetReports()); err != nil {
		return err
	}
	for _, m := range frame.GetMessages() {
		if err := f.add(m); err != nil {
			return err
		}
	}
	if len(f.csr) > 0 {
		c.renewals.want(ctx, f.csr)
	}
	if now := c.gate.now(); f.token && now.Sub(c.issued) >= renewalPause { // an agent needs none sooner, and each costs a signature
		c.issued = now
		token, expires, err := c.gate.agentToken(ctx)
		if err != nil {
			return err
		}
		extend(ctx, expires)
		c.session.Push(fleet.AccessToken{Token: token, Expires: expires})
	}
	if len(f.chunks)+len(f.ends) > 0 {
		if err := c.session.Append(f.chunks, f.ends); err != nil {
			return err
		}
	}
	if len(f.reports) > 0 {
		if err := c.session.Report(ctx, f.reports); err != nil {
			return err
		}
	}
	if f.heartbeat {
		if err := c.session.Heartbeat(ctx, f.used); err != nil {
			return err
		}
	}
	if f.drain != nil {
		return c.session.AgentDrains(ctx, !f.drain.GetResume())
	}
	return nil
}
