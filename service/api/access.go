package api

import (
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/grpcreflect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

type principalKey struct{}

// principal returns who makes the call; the access interceptor has put it there.
func principal(ctx context.Context) identity.Principal {
	p, _ := ctx.Value(principalKey{}).(identity.Principal)
	return p
}

// access is the interceptor that lets a call pass only if the method's rule allows its caller. It runs before anything of
// the request's body is read. A method without a rule is refused.
func access(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		rule, err := accessRule(spec)
		if err != nil {
			return err
		}
		caller, err := authenticate(ctx)
		if err != nil {
			return err
		}
		if err := authorize(spec, rule, caller); err != nil {
			return err
		}
		return next(context.WithValue(ctx, principalKey{}, caller), spec, stream)
	}
}

// reflectionRule is for the reflection services, whose protos are not ours.
var reflectionRule = &policyv1.AccessRule{
	Permission:     "reflection.read",
	Authentication: []policyv1.Authentication{policyv1.Authentication_AUTHENTICATION_USER_CERTIFICATE},
}

func accessRule(spec connect.Spec) (*policyv1.AccessRule, error) {
	method, ok := spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "%s has no descriptor and is refused", spec.Procedure)
	}
	switch method.Parent().FullName() {
	case grpcreflect.ReflectV1ServiceName, grpcreflect.ReflectV1AlphaServiceName:
		return reflectionRule, nil
	}
	rule, ok := proto.GetExtension(method.Options(), policyv1.E_Access).(*policyv1.AccessRule)
	if !ok || rule == nil || len(rule.GetAuthentication()) == 0 {
		return nil, job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "%s has no access rule and is refused", spec.Procedure)
	}
	return rule, nil
}

// authenticate says who calls, from the client certificate that TLS has verified.
func authenticate(ctx context.Context) (identity.Principal, error) {
	info, _ := connecthttp.ServerInfoForContext(ctx)
	state := info.TLS()
	if state == nil || len(state.VerifiedChains) == 0 {
		return identity.Principal{}, nil
	}
	caller, err := identity.PrincipalOf(state.PeerCertificates[0])
	if err != nil {
		return identity.Principal{}, job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"the client certificate names no identity that this server knows: %v", err)
	}
	return caller, nil
}

func authorize(spec connect.Spec, rule *policyv1.AccessRule, caller identity.Principal) error {
	accepted := rule.GetAuthentication()
	if slices.Contains(accepted, policyv1.Authentication_AUTHENTICATION_NONE) {
		return nil
	}
	var proof policyv1.Authentication
	switch caller.Kind {
	case identity.User:
		proof = policyv1.Authentication_AUTHENTICATION_USER_CERTIFICATE
	case identity.Agent:
		proof = policyv1.Authentication_AUTHENTICATION_AGENT_CERTIFICATE
	default:
		return job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"%s needs a client certificate of this server's CA, and the connection has none; give --cert and --key, or use a context that has them",
			spec.Procedure)
	}
	if slices.Contains(accepted, policyv1.Authentication_AUTHENTICATION_AGENT_TOKEN) { // TEMPORARY: until agents have access tokens
		accepted = append(slices.Clone(accepted), policyv1.Authentication_AUTHENTICATION_AGENT_CERTIFICATE)
	}
	if !slices.Contains(accepted, proof) || !identity.Allows(caller, rule.GetPermission()) {
		return job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "%s may not call %s, which needs the permission %q",
			caller, spec.Procedure, rule.GetPermission())
	}
	return nil
}

// recoverPanics is the outermost interceptor: a defect in one handler ends one call.
func recoverPanics(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic in %s: %v", spec.Procedure, r)
			}
		}()
		return next(ctx, spec, stream)
	}
}
