package api

import (
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// Limits bound what calls may cost. The zero value lets everybody call as often as they want, and has the usual times.
type Limits struct {
	Identity *ratelimit.Rates // by who calls
	Address  *ratelimit.Rates // by where from, for calls of nobody that is known
	Logins   *ratelimit.Rates // attempts to log in that have failed, by where from and by account
	// Refused, which may be nil, is told of every call that was refused: "identity", "address" or "login".
	Refused func(reason string)
	// BodyTime is how long the body of a call may take, and a second more for every 16 KiB of it. Default 10 s.
	BodyTime time.Duration
	// BodyMemory is how many bytes the bodies may take that are taken in at the same time; small ones do not count. Default 512 MiB.
	BodyMemory int64
	// WriteTime is how long a peer that speaks HTTP/1 may take for 16 KiB of an answer; HTTP/2 looks after itself. Default 30 s.
	WriteTime time.Duration
}

// admit refuses a call of somebody who makes too many. Who has proved nothing counts by the address.
func (g *gate) admit(c *call) error {
	rates, key, reason := g.limits.Identity, c.caller.String(), "identity"
	if c.caller.Kind == identity.Anonymous {
		rates, key, reason = g.limits.Address, c.origin(), "address"
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
		if wait, ok := g.limits.Logins.Left(key, g.now()); !ok {
			return g.tooMany("login", "failed attempts to log in", wait)
		}
	}
	err := attempt()
	if code := job.CodeOf(err); err != nil && (code == job.CodeUnauthenticated || code == job.CodeNotFound) {
		for _, key := range keys {
			g.limits.Logins.Allow(key, g.now())
		}
	}
	return err
}

func (g *gate) tooMany(reason, what string, wait time.Duration) error {
	if g.limits.Refused != nil {
		g.limits.Refused(reason)
	}
	return &job.Error{
		Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: wait,
		Message: fmt.Sprintf("too many %s; wait %v, or have the operator raise the limit", what, max(wait, time.Millisecond).Round(time.Millisecond)),
	}
}
