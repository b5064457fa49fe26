package api

import (
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// CallLimits bound how often calls are made. The zero value allows everything.
type CallLimits struct {
	Identity *ratelimit.Rates // by who calls
	Address  *ratelimit.Rates // by where from, for calls of nobody that is known
	Logins   *ratelimit.Rates // attempts to log in that have failed, by where from and by account
	// Refused, which may be nil, is told of every call that was refused: "identity", "address" or "login".
	Refused func(reason string)
}

// admit refuses a call of somebody who makes too many. Who has proved nothing counts by the address.
func (g *gate) admit(c *call) error {
	rates, key, reason := g.calls.Identity, c.caller.String(), "identity"
	if c.caller.Kind == identity.Anonymous {
		rates, key, reason = g.calls.Address, c.origin(), "address"
	}
	if wait, ok := rates.Allow(key, g.now()); !ok {
		return g.tooMany(reason, "calls; make fewer with more in each", wait)
	}
	return nil
}

// origin is the address, or the network, that a call counts for.
func (c *call) origin() string { return "address/" + ratelimit.OriginOf(c.address) }

// tryLogin lets somebody try to prove who they are, unless too many attempts from the same address, or for the same account (empty: none is
// named), have failed.
func (g *gate) tryLogin(c *call, account string, attempt func() error) error {
	keys := []string{c.origin()}
	if account != "" {
		keys = append(keys, "account/"+account)
	}
	for _, key := range keys {
		if wait, ok := g.calls.Logins.Left(key, g.now()); !ok {
			return g.tooMany("login", "failed attempts to log in", wait)
		}
	}
	err := attempt()
	if code := job.CodeOf(err); err != nil && (code == job.CodeUnauthenticated || code == job.CodeNotFound) {
		for _, key := range keys {
			g.calls.Logins.Allow(key, g.now())
		}
	}
	return err
}

func (g *gate) tooMany(reason, what string, wait time.Duration) error {
	if g.calls.Refused != nil {
		g.calls.Refused(reason)
	}
	return &job.Error{
		Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: wait,
		Message: fmt.Sprintf("too many %s; wait %v, or have the operator raise the limit", what, wait.Round(time.Millisecond)),
	}
}
