package api

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// Limits bound what calls may cost. The zero value lets everybody call as often as they want, and has the usual times.
type Limits struct {
	Identity *ratelimit.Rates // by who calls
	Address  *ratelimit.Rates // by where from, for calls of nobody that is known
	// Refused, which may be nil, is told of every call that was refused because of these: "identity" or "address".
	Refused func(reason string)
	// BodyTime is how long the body of a call may take, and a second more for every 16 KiB of it. Default 10 s.
	BodyTime time.Duration
	// BodyMemory is how many bytes the bodies may take that are taken in at the same time; small ones do not count. Default 512 MiB.
	BodyMemory int64
	// WriteTime is how long a peer that speaks HTTP/1 may take for 16 KiB of an answer; HTTP/2 looks after itself. Default 30 s.
	WriteTime time.Duration
}

// admit says whether a call may be made now, by whom, from "host:port". The error tells when it may be tried again.
func (l *Limits) admit(caller identity.Principal, peer string, now time.Time) error {
	rates, key, reason := l.Identity, caller.String(), "identity"
	if caller.Kind == identity.Anonymous {
		rates, key, reason = l.Address, ratelimit.OriginOf(peer), "address"
	}
	retryAfter, ok := rates.Allow(key, now)
	if ok {
		return nil
	}
	if l.Refused != nil {
		l.Refused(reason)
	}
	refusal := job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
		"%s makes more calls than this server allows; wait %v, make fewer calls with more in each, or have the operator raise the limit",
		key, max(retryAfter, time.Millisecond).Round(time.Millisecond))
	refusal.RetryAfter = retryAfter
	return refusal
}

// intercept comes before the calls are logged: who calls too often must not fill the log.
func (l *Limits) intercept(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		caller, err := authenticate(ctx)
		if err != nil {
			return err
		}
		peer := ""
		if info, ok := connect.CallInfoForServerContext(ctx); ok {
			peer = info.PeerAddr
		}
		if err := l.admit(caller, peer, time.Now()); err != nil {
			return err
		}
		return next(ctx, spec, stream)
	}
}
