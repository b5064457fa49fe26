package api

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"connectrpc.com/connect/v2"

	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

// gate lets a call pass only if the method's rule allows its caller.
type gate struct {
	access       *access.Access
	credentials  *identity.Credentials
	accessTokens *identity.AccessTokens
	jobs         *orchestrator.Orchestrator
	logger       *slog.Logger
	now          func() time.Time
	limits       Limits

	rules   ruleBook
	denials denials
	live    live
}

// interceptor decides before anything of the request's body is read; where a permission is needed in the namespaces of what the body
// names, the handler asks (see within and visible), and an answer for which nobody has asked is withheld.
func (g *gate) interceptor(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		r, err := g.rules.rule(spec)
		if err != nil {
			return err
		}
		c := &call{gate: g, rule: r}
		err = c.authenticate(ctx)
		if err != nil && r.open() { // whoever logs in may hold what is good no more
			c.caller, err = identity.Principal{}, nil
		}
		c.describe()
		if busy := g.admit(c); busy != nil {
			return busy
		}
		if err == nil {
			c.who = g.accessCaller(&c.caller)
			err = c.authorize(spec.Procedure)
		}
		if err != nil {
			return g.note(ctx, c, err)
		}
		g.credentials.Seen(&c.caller)
		return g.serve(ctx, next, c, spec, stream)
	}
}

func (g *gate) serve(ctx context.Context, next connect.ServerFunc, c *call, spec connect.Spec, stream connect.ServerStream) error {
	ctx = context.WithValue(ctx, callKey{}, c)
	if !c.rule.reads {
		ctx = chain.NewContext(ctx, &c.entry)
	}
	if c.rule.scope == policyv1.Scope_SCOPE_NAMESPACE {
		stream = &askedStream{stream, c}
	}
	if spec.StreamType == connect.StreamTypeUnary {
		return g.note(ctx, c, next(ctx, spec, stream))
	}
	ctx, leave := g.live.join(ctx, c)
	defer leave()
	err := next(ctx, spec, stream)
	if cause := cutOff(ctx); cause != nil {
		err = cause
	}
	return g.note(ctx, c, err)
}

// authorize decides by the rule alone.
func (c *call) authorize(procedure string) error {
	r := c.rule
	switch {
	case r.open():
		return nil
	case c.caller.Kind == identity.Anonymous:
		return job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"%s needs a client certificate of this server's CA or an access token, and there is none; log in with `hodei login`, or use a "+
				"context that has one", procedure)
	case !r.proofs[c.proof]:
		return job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "%s may not call %s with this proof of identity", &c.caller, procedure)
	case c.caller.Kind == identity.Agent:
		if r.permission == agentPermission {
			return nil
		}
		return c.lacks("")
	case r.scope == policyv1.Scope_SCOPE_SELF:
		return nil
	case r.scope == policyv1.Scope_SCOPE_CLUSTER:
		if !c.gate.access.Policy().Allows(&c.who, r.permission, access.Everywhere) {
			return c.lacks(access.Everywhere)
		}
		return nil
	}
	if reach := c.gate.access.Policy().Reach(&c.who, r.permission); reach.Nowhere() {
		return c.lacks("")
	}
	return nil
}

// lacks is what a caller is told who may not.
func (c *call) lacks(namespace string) error {
	where := ""
	switch namespace {
	case "":
	case access.Everywhere:
		where = " in all namespaces"
	default:
		where = " in namespace " + namespace
	}
	return job.Errorf(job.CodeDenied, job.ReasonPermissionDenied,
		"%s may not call %s, which needs the permission %q%s; ask an administrator for a role that has it",
		&c.caller, c.rule.action, c.rule.permission, where)
}

// askedStream withholds the answers of a handler that has not asked whether its caller may have them: that is a defect.
type askedStream struct {
	connect.ServerStream
	call *call
}

// Send sends an answer.
func (s *askedStream) Send(msg any) error {
	if !s.call.asked {
		return fmt.Errorf("%s answered without asking whether its caller may know", s.call.rule.action)
	}
	return s.ServerStream.Send(msg)
}

// recoverPanics is the outermost interceptor: a defect in one handler ends one call.
func recoverPanics(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic in %s: %v\n%s", spec.Procedure, r, debug.Stack())
			}
		}()
		return next(ctx, spec, stream)
	}
}
