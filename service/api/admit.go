package api

import (
	"context"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// CallLimits bound how often calls are made. The zero value allows everything.
type CallLimits struct {
	Identity *ratelimit.Rates // by who calls
	Address  *ratelimit.Rates // by where from, for calls of nobody that is known
	// Refused, which may be nil, is told of every call that was refused: "identity" or "address".
	Refused func(reason string)
}

// admit says whether a call may be made now, by whom, from "host:port". The error tells when it may be tried again.
func (l *CallLimits) admit(caller identity.Principal, peer string, now time.Time) error {
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
		key, retryAfter.Round(time.Millisecond))
	refusal.RetryAfter = retryAfter
	return refusal
}

// intercept comes before the calls are logged: who calls too often must not fill the log.
func (l *CallLimits) intercept(next connect.ServerFunc) connect.ServerFunc {
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
