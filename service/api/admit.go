package api

import (
	"time"

	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// admit refuses a call of somebody who makes too many. Who has proved nothing counts by the address.
func (g *gate) admit(c *call) error {
	key := c.caller.String()
	if c.caller.Kind == identity.Anonymous {
		key = c.origin()
	}
	if wait, ok := g.requests.Allow(key, g.now()); !ok {
		return tooMany("requests", wait)
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
		if wait, ok := g.logins.Left(key, g.now()); !ok {
			return tooMany("failed attempts to log in", wait)
		}
	}
	err := attempt()
	if code := job.CodeOf(err); err != nil && (code == job.CodeUnauthenticated || code == job.CodeNotFound) {
		for _, key := range keys {
			g.logins.Allow(key, g.now())
		}
	}
	return err
}

func tooMany(what string, wait time.Duration) error {
	return &job.Error{
		Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: wait,
		Message: "too many " + what + "; wait as long as the answer says, or ask the operator for a higher limit",
	}
}
