package api

import (
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// admit refuses a call of somebody who makes too many. Who has proved nothing counts by the address.
func (g *gate) admit(c *call) error {
	key := c.caller.String()
	if c.caller.Kind == identity.Anonymous {
		key = "address/" + ratelimit.OriginOf(c.address)
	}
	return g.limited(g.requests, key, "requests")
}

// admitLogin refuses an attempt to log in after too many from the same address.
func (g *gate) admitLogin(c *call) error {
	return g.limited(g.logins, ratelimit.OriginOf(c.address), "attempts to log in")
}

func (g *gate) limited(rates *ratelimit.Rates, key, what string) error {
	wait, ok := rates.Allow(key, g.now())
	if ok {
		return nil
	}
	return &job.Error{
		Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: wait,
		Message: "too many " + what + "; make fewer at a time, or ask the operator for a higher limit",
	}
}
