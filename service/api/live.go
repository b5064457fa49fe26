package api

import (
	"context"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// live are the streams that are open. They last no longer than what lets their callers in: each is cut when its proof of identity ends, or
// when it is revoked or a permission taken away.
type live struct {
	mu    sync.Mutex
	calls map[*openCall]struct{}
}

// openCall is a stream that is open.
type openCall struct {
	*call
	cancel context.CancelCauseFunc
	expiry *time.Timer
}

type openKey struct{}

// cutError is why a stream was cut.
type cutError struct{ error }

func (l *live) join(ctx context.Context, c *call) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	o := &openCall{call: c, cancel: cancel}
	l.mu.Lock()
	if l.calls == nil {
		l.calls = make(map[*openCall]struct{})
	}
	l.calls[o] = struct{}{}
	o.expiry = time.AfterFunc(o.lasts(c.expires), o.expire)
	l.mu.Unlock()
	if err := o.recheck(); err != nil { // what was revoked just now
		o.cut(err)
	}
	return context.WithValue(ctx, openKey{}, o), func() {
		l.mu.Lock()
		delete(l.calls, o)
		o.expiry.Stop()
		l.mu.Unlock()
		cancel(nil)
	}
}

// lasts is how long a stream may go on whose caller's proof ends then.
func (o *openCall) lasts(expires time.Time) time.Duration {
	return expires.Add(identity.ClockSkew).Sub(o.gate.now())
}

func (o *openCall) expire() {
	o.cut(job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
		"the proof of identity with which the stream was opened has ended; open it again with a fresh one"))
}

func (o *openCall) cut(err error) { o.cancel(cutError{err}) }

// extend lets the stream of a call that is served go on until a later time.
func extend(ctx context.Context, expires time.Time) {
	o, ok := ctx.Value(openKey{}).(*openCall)
	if !ok {
		return
	}
	l := &o.gate.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, open := l.calls[o]; open && o.expiry.Stop() { // else it is being cut
		o.expiry.Reset(o.lasts(expires))
	}
}

// cutOff returns why the stream was cut; nil: it was not.
func cutOff(ctx context.Context) error {
	if cause, ok := context.Cause(ctx).(cutError); ok { //nolint:errorlint // set by cut alone
		return cause.error
	}
	return nil
}

// recheck cuts the streams whose callers may go on no more.
func (l *live) recheck() {
	l.mu.Lock()
	all := make([]*openCall, 0, len(l.calls))
	for o := range l.calls {
		all = append(all, o)
	}
	l.mu.Unlock()
	for _, o := range all {
		if err := o.recheck(); err != nil {
			o.cut(err)
		}
	}
}

func (o *openCall) recheck() error {
	if err := o.gate.credentials.Check(&o.caller, o.certificate); err != nil {
		return err
	}
	if o.caller.Kind == identity.Agent || o.rule.permission == "" {
		return nil
	}
	who, policy := o.gate.accessCaller(&o.caller), o.gate.access.Policy()
	for _, namespace := range o.seen() {
		if !policy.Allows(&who, o.rule.permission, namespace) {
			return o.lacks(namespace)
		}
	}
	if r := policy.Reach(&who, o.rule.permission); r.Nowhere() {
		return o.lacks("")
	}
	return nil
}
