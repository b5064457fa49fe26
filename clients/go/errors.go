package hodei

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
)

// Error is what the server, or the way to it, answered.
type Error struct {
	Code       connect.Code
	Reason     string        // the server's reason, for example "JOB_NOT_FOUND"; empty when it did not answer
	Message    string        // what is wrong and what to do
	RetryAfter time.Duration // when set, the same call may succeed after this time
	cause      error
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns what caused the error.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is(err, ErrNotFound) and the like work: errors of one code are alike. A deadline that the server has seen pass
// before this side did is a context.DeadlineExceeded too.
func (e *Error) Is(target error) bool {
	if target == context.DeadlineExceeded {
		return e.Code == connect.CodeDeadlineExceeded
	}
	if target == ErrVersionSkew {
		return e.Code == connect.CodeUnimplemented || e.Reason == "VERSION_SKEW"
	}
	var other *Error
	return errors.As(target, &other) && other.Message == "" && other.Code == e.Code
}

// Errors to compare with by errors.Is.
var (
	ErrNotFound           = &Error{Code: connect.CodeNotFound}
	ErrFailedPrecondition = &Error{Code: connect.CodeFailedPrecondition}
	ErrInvalidArgument    = &Error{Code: connect.CodeInvalidArgument}
	ErrUnauthenticated    = &Error{Code: connect.CodeUnauthenticated}
	ErrPermissionDenied   = &Error{Code: connect.CodePermissionDenied}
	ErrQuotaExceeded      = &Error{Code: connect.CodeResourceExhausted}
	ErrUnavailable        = &Error{Code: connect.CodeUnavailable}
	// ErrVersionSkew says that the server is of another major version than this client, or too old to know a method.
	ErrVersionSkew = errors.New("the server is of another version")
	// ErrConfiguration says that what the caller or the environment says makes no sense. Nothing was sent.
	ErrConfiguration = errors.New("the settings make no sense")
)

// configurationError has the message of its cause.
type configurationError struct{ cause error }

func (e *configurationError) Error() string        { return e.cause.Error() }
func (e *configurationError) Unwrap() error        { return e.cause }
func (e *configurationError) Is(target error) bool { return target == ErrConfiguration }

// translate makes an Error of what a call returned.
func (c *Client) translate(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e := &Error{Code: connect.CodeOf(err), Message: err.Error(), cause: err}
	if refused(err) {
		e.Code = connect.CodeUnauthenticated
	}
	var wire *connect.Error
	if errors.As(err, &wire) {
		e.readDetails(wire)
		if wire.IsRemote() && wire.Message() != "" {
			e.Message = wire.Message()
			return e
		}
	}
	e.Message = c.explainConnection(err)
	return e
}

func (e *Error) readDetails(wire *connect.Error) {
	for _, d := range wire.Details() {
		var info errdetails.ErrorInfo
		var retry errdetails.RetryInfo
		switch d.Type {
		case string(info.ProtoReflect().Descriptor().FullName()):
			if proto.Unmarshal(d.Value, &info) == nil {
				e.Reason = info.GetReason()
			}
		case string(retry.ProtoReflect().Descriptor().FullName()):
			if proto.Unmarshal(d.Value, &retry) == nil {
				e.RetryAfter = retry.GetRetryDelay().AsDuration()
			}
		}
	}
}

const howToCertify = " (log in with `hodei login`, or set --cert and --key, or HODEI_CERT and HODEI_KEY)"

// explainConnection says why the server was not reached, and what to do.
func (c *Client) explainConnection(err error) string {
	var unknown x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var pin *pinError
	var dial *net.OpError
	switch {
	case errors.As(err, &pin):
		return fmt.Sprintf("the server at %s is another one than %s names: %v; it is the wrong server, somebody is in between, or the pin is old",
			c.config.URL, c.config.CAPin, pin)
	case errors.As(err, &unknown):
		return fmt.Sprintf("the server at %s has a certificate of another CA than %s; set --ca (HODEI_CA) to ca.pem of that server, or --ca-pin",
			c.config.URL, cmp.Or(c.config.CA, "those that this machine trusts"))
	case errors.As(err, &hostname):
		return fmt.Sprintf("the server's certificate is not for the name in %s: %v; start it with --host for that name", c.config.URL, hostname)
	case errors.As(err, &invalid):
		return fmt.Sprintf("the server's certificate is not valid: %v", invalid)
	case alerted(err) && c.config.Cert == "":
		return fmt.Sprintf("the server at %s refused the connection: %v; it may want a client certificate%s",
			c.config.URL, err, howToCertify)
	case alerted(err) && c.config.Login != "":
		return fmt.Sprintf("the server at %s refused the certificate of the login %s: %v; log in again with `hodei login`",
			c.config.URL, c.config.Login, err)
	case alerted(err):
		return fmt.Sprintf("the server at %s refused the client certificate %s: %v; it may have expired or belong to another server",
			c.config.URL, c.config.Cert, err)
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Sprintf("no server answers at %s: %v; is it running? `hodei dev` starts one", c.config.URL, dial.Err)
	case cut(err) && c.config.Cert == "":
		return fmt.Sprintf("the server at %s closed the connection, or something in between did: %v; it may want a client certificate%s",
			c.config.URL, err, howToCertify)
	case cut(err):
		return fmt.Sprintf("the server at %s closed the connection: it may have refused the client certificate %s, or something in between did: %v",
			c.config.URL, c.config.Cert, err)
	}
	return fmt.Sprintf("the call to %s failed: %v", c.config.URL, err)
}

// Waits between tries grow from shortest to longest, with full jitter.
const (
	shortestWait = 50 * time.Millisecond
	longestWait  = 2 * time.Second
)

// transient reports whether the same call may succeed later: the server stops, or the connection to it broke. A wrong
// certificate, or an answer that is too large, stays as it is.
func transient(err error) bool {
	var unverified *tls.CertificateVerificationError
	var wire *connect.Error
	switch {
	case errors.As(err, &unverified), alerted(err):
		return false
	case errors.Is(err, errCut), cut(err), dialing(err), connect.CodeOf(err) == connect.CodeUnavailable:
		return true
	case errors.As(err, &wire) && !wire.IsRemote():
		// The server did not say this: the connection ended in the middle of a message, say.
		return wire.Code() == connect.CodeInternal || wire.Code() == connect.CodeUnknown
	}
	return false
}

// errCut says that a stream ended without the server's word that it is over.
var errCut = errors.New("the stream was cut off")

// retry calls once until it succeeds, fails for good, or the context ends. A server that this client has never reached and
// cannot reach is an error at once: it is more likely a wrong address than a restart.
func (c *Client) retry(ctx context.Context, once func() error) error {
	wait := shortestWait
	for try := 0; ; try++ {
		err := once()
		if err == nil || ctx.Err() != nil || c.hopeless(err, try) {
			return c.translate(err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, longestWait)
	}
}

// resume is retry for a stream: once goes on where it stopped the time before, and reports whether anything was received.
func (c *Client) resume(ctx context.Context, once func() (received bool, err error)) error {
	wait := shortestWait
	for try := 0; ; try++ {
		received, err := once()
		if received {
			try, wait = 1, shortestWait
		}
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case c.hopeless(err, try):
			return c.translate(err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, longestWait)
	}
}

// cutTries is how often a connection may be cut before anything was received: a server that refuses a certificate does it
// too, and must not be called for ever.
const cutTries = 5

// hopeless reports whether trying again makes no sense. try counts the failures since something was received.
func (c *Client) hopeless(err error, try int) bool {
	if try == 1 && connect.CodeOf(err) == connect.CodeUnauthenticated && (c.token != nil || c.login != nil) {
		return false // a stream that went well until what proved the caller ran out: there is a fresh proof for the next one
	}
	if c.transport.reached.Load() {
		return !transient(err)
	}
	return !transient(err) || (try == 0 && dialing(err)) || (try >= cutTries && cut(err))
}

// dialing reports whether there was no connection yet.
func dialing(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// alerted reports whether the other end has ended TLS with a reason, which crypto/tls tells by this word only.
func alerted(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// refused reports whether the other end has ended TLS because of the client's certificate: the alerts for that all name it.
func refused(err error) bool {
	var op *net.OpError
	return alerted(err) && errors.As(err, &op) && strings.Contains(op.Err.Error(), "certificate")
}

// cut reports whether the connection was closed in the middle.
func cut(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

func pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait/2 + rand.N(wait/2)) //nolint:gosec // spreads load, hides nothing
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
