package api

import (
	"context"
	"errors"
	"log/slog"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/hodei-jobs/hodei/service/job"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "hodei"

// codes is the one switch from the domain's codes to Connect's.
var codes = map[job.Code]connect.Code{
	job.CodeInvalid:         connect.CodeInvalidArgument,
	job.CodeNotFound:        connect.CodeNotFound,
	job.CodePrecondition:    connect.CodeFailedPrecondition,
	job.CodeExhausted:       connect.CodeResourceExhausted,
	job.CodeUnavailable:     connect.CodeUnavailable,
	job.CodeUnauthenticated: connect.CodeUnauthenticated,
	job.CodeDenied:          connect.CodePermissionDenied,
	job.CodeOutOfRange:      connect.CodeOutOfRange,
}

// translateErrors is the interceptor that turns what handlers return into what clients may see. Errors of the domain keep
// their text, Connect's own keep theirs and get a reason, all others become INTERNAL: they are logged and not sent.
func translateErrors(logger *slog.Logger) connect.ServerInterceptor {
	return func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			err := next(ctx, spec, stream)
			if err == nil {
				return nil
			}
			wire := toConnect(err)
			if wire.Code() == connect.CodeInternal && !saidByConnect(err) {
				logger.ErrorContext(ctx, "a call failed", "procedure", spec.Procedure, "error", err)
			}
			return wire
		}
	}
}

// saidByConnect says that Connect itself has found an error, such as a client that breaks the protocol. Those must not fill the log.
func saidByConnect(err error) bool {
	var wire *connect.Error
	return errors.As(err, &wire) && !wire.IsRemote()
}

func toConnect(err error) *connect.Error {
	var own *job.Error
	if errors.As(err, &own) {
		return fromDomain(own).WithCause(err)
	}
	var wire *connect.Error
	if errors.As(err, &wire) && !wire.IsRemote() {
		return withReason(wire)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, "the caller left").WithCause(err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, "the call took longer than its deadline").WithCause(err)
	}
	return withInfo(connect.NewError(connect.CodeInternal, "the server failed; its log says why").WithCause(err), "UNSPECIFIED")
}

func fromDomain(e *job.Error) *connect.Error {
	code, ok := codes[e.Code]
	if !ok {
		code = connect.CodeInternal
	}
	wire := withInfo(connect.NewError(code, e.Message), string(e.Reason))
	if e.RetryAfter > 0 {
		wire = withDetail(wire, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	return wire
}

// withReason gives an error of Connect itself (a message that is too large, a field that is invalid) its ErrorInfo.
func withReason(e *connect.Error) *connect.Error {
	for _, d := range e.Details() {
		if d.Type == string((*errdetails.ErrorInfo)(nil).ProtoReflect().Descriptor().FullName()) {
			return e
		}
	}
	switch e.Code() {
	case connect.CodeInvalidArgument:
		return withInfo(e, string(job.ReasonInvalidArgument))
	case connect.CodeResourceExhausted:
		return withInfo(e, string(job.ReasonLimitReached))
	case connect.CodeUnauthenticated:
		return withInfo(e, string(job.ReasonUnauthenticated))
	case connect.CodePermissionDenied:
		return withInfo(e, string(job.ReasonPermissionDenied))
	default:
		return e
	}
}

func withInfo(e *connect.Error, reason string) *connect.Error {
	return withDetail(e, &errdetails.ErrorInfo{Reason: reason, Domain: errorDomain})
}

func withDetail(e *connect.Error, detail proto.Message) *connect.Error {
	packed, err := connectproto.NewErrorDetail(detail)
	if err != nil {
		return e // a detail that cannot be packed is no reason to hide the error
	}
	return e.WithDetail(packed)
}
