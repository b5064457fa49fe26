package api

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect/v2"

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

// hwpService serves hwp.v1.WorkerService.
type hwpService struct {
	hwpv1connect.UnimplementedWorkerServiceHandler // for Authenticate

	fleet     *fleet.Fleet
	enrolment *identity.Enrolment
}

func (s *hwpService) Enroll(ctx context.Context, req *hwpv1.EnrollRequest) (*hwpv1.EnrollResponse, error) {
	id, certificate, err := s.enrolment.Enroll(ctx, identity.EnrollRequest{Token: req.GetToken(), CSR: req.GetCsrDer(), Name: req.GetName()})
	if err != nil {
		return nil, err
	}
	return &hwpv1.EnrollResponse{WorkerId: string(id), ChainDer: [][]byte{certificate}, RootsDer: [][]byte{s.enrolment.CADER()}}, nil
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
	err = receive(ctx, session, first, frames)
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
	record, err := s.enrolment.Worker(ctx, principal(ctx).Worker)
	if err != nil {
		return nil, nil, err
	}
	refs, err := refsFromProto(register.GetAttempts())
	if err != nil {
		return nil, nil, err
	}
	session, err := s.fleet.Open(ctx, workerFromRegister(principal(ctx).Worker, record, register), refs, register.GetForgetful())
	frame.Messages = messages[1:]
	return session, frame, err
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

func receive(ctx context.Context, session *fleet.Session, first *hwpv1.ConnectRequest, frames <-chan readResult) error {
	if err := take(ctx, session, first); err != nil {
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
			if err := take(ctx, session, r.frame); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take hands the content of a frame on, gathered by what it is about.
func take(ctx context.Context, session *fleet.Session, frame *hwpv1.ConnectRequest) error {
	var f frameContent
	if err := f.addReports(frame.GetReports()); err != nil {
		return err
	}
	for _, m := range frame.GetMessages() {
		if err := f.add(m); err != nil {
			return err
		}
	}
	if len(f.chunks)+len(f.ends) > 0 {
		if err := session.Append(f.chunks, f.ends); err != nil {
			return err
		}
	}
	if len(f.reports) > 0 {
		if err := session.Report(ctx, f.reports); err != nil {
			return err
		}
	}
	if f.heartbeat {
		if err := session.Heartbeat(ctx, f.used); err != nil {
			return err
		}
	}
	if f.drain != nil {
		return session.AgentDrains(ctx, !f.drain.GetResume())
	}
	return nil
}
