package job

import (
	"errors"
	"fmt"
	"time"
)

// Code is the class of an error, and what a caller may do about it.
type Code uint8

// The codes. CodeInternal is what every error that is not an *Error counts as.
const (
	CodeInternal Code = iota
	CodeInvalid
	CodeNotFound
	CodePrecondition
	CodeExhausted
	CodeUnavailable
	CodeUnauthenticated
	CodeDenied
	CodeOutOfRange
)

// Reason names what went wrong for programs; the API publishes these names.
type Reason string

// The reasons.
const (
	ReasonInvalidArgument    Reason = "INVALID_ARGUMENT"
	ReasonJobNotFound        Reason = "JOB_NOT_FOUND"
	ReasonWorkerNotFound     Reason = "WORKER_NOT_FOUND"
	ReasonStepNotFound       Reason = "STEP_NOT_FOUND"
	ReasonJobEnded           Reason = "JOB_ENDED"
	ReasonRequestIDReused    Reason = "REQUEST_ID_REUSED"
	ReasonUnauthenticated    Reason = "UNAUTHENTICATED"
	ReasonPermissionDenied   Reason = "PERMISSION_DENIED"
	ReasonTokenRefused       Reason = "TOKEN_REFUSED"
	ReasonLimitReached       Reason = "LIMIT_REACHED"
	ReasonUnavailable        Reason = "UNAVAILABLE"
	ReasonResumeTokenExpired Reason = "RESUME_TOKEN_EXPIRED"
	ReasonStepNotRunning     Reason = "STEP_NOT_RUNNING"
	ReasonSecretNotFound     Reason = "SECRET_NOT_FOUND"
	ReasonTooLarge           Reason = "TOO_LARGE"
	ReasonNotFound           Reason = "NOT_FOUND"
	ReasonVersionSkew        Reason = "VERSION_SKEW"
)

// Error is an error whose text is written for the person who made the request.
type Error struct {
	Code       Code
	Reason     Reason
	Message    string        // what is wrong, where, and what to do
	RetryAfter time.Duration // when set, the same request may succeed after this time
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error; the message is formatted as by fmt.Sprintf.
func Errorf(code Code, reason Reason, format string, args ...any) *Error {
	return &Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of the first *Error in err's chain, CodeInternal when there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

func invalid(format string, args ...any) error {
	return Errorf(CodeInvalid, ReasonInvalidArgument, format, args...)
}
