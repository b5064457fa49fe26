package api

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
)

// Of denied requests so many are recorded each by itself; beyond, the next record says how many were not. Else whoever is denied everything
// could still fill the disk.
const (
	denialsPerSecond = 100
	denialsAtOnce    = 2000
)

// denials records what was denied.
type denials struct {
	mu         sync.Mutex
	limit      *rate.Limiter
	unrecorded int
}

// admit reports whether a denial may be recorded by itself, and how many were not since the last one that was.
func (d *denials) admit(now time.Time) (ok bool, unrecorded int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limit == nil {
		d.limit = rate.NewLimiter(denialsPerSecond, denialsAtOnce)
	}
	if !d.limit.AllowN(now, 1) {
		d.unrecorded++
		return false, 0
	}
	unrecorded, d.unrecorded = d.unrecorded, 0
	return true, unrecorded
}

// note records that something was denied, if that is how a call has ended.
func (g *gate) note(ctx context.Context, c *call, err error) error {
	var own *job.Error
	if c.denied == "" && errors.As(err, &own) && (own.Code == job.CodeDenied || own.Code == job.CodeUnauthenticated) {
		c.denied = own.Message
	}
	if c.denied == "" {
		return err
	}
	ok, unrecorded := g.denials.admit(g.now())
	if !ok {
		return err
	}
	e := c.entry
	e.Outcome, e.Reason = chain.Denied, c.denied
	if unrecorded > 0 {
		e.Details = map[string]string{"unrecorded denials before": strconv.Itoa(unrecorded)}
	}
	if problem := g.jobs.Record(context.WithoutCancel(ctx), e); problem != nil {
		g.logger.Error("a denied request was not recorded in the audit trail", "action", e.Action, "actor", e.Actor, "error", problem)
	}
	return err
}
