package api

import (
	"maps"
	"slices"
	"sync"

	"connectrpc.com/connect/v2"
	"connectrpc.com/grpcreflect/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
	"github.com/hodei-jobs/hodei/service/job"
)

// rule is who may call a method.
type rule struct {
	permission string
	scope      policyv1.Scope
	proofs     map[policyv1.Authentication]bool
	reads      bool
	action     string // the method's name in the audit trail
}

// open reports whether anybody may call the method.
func (r *rule) open() bool { return r.proofs[policyv1.Authentication_AUTHENTICATION_NONE] }

// reflectionRule is for the reflection services, whose protos are not ours.
var reflectionRule = &policyv1.AccessRule{
	Scope: policyv1.Scope_SCOPE_SELF, Reads: true, Authentication: []policyv1.Authentication{
		policyv1.Authentication_AUTHENTICATION_USER_CERTIFICATE, policyv1.Authentication_AUTHENTICATION_USER_TOKEN,
	},
}

// ruleBook remembers the rules of methods by procedure: to read an option of a descriptor takes longer than all the rest.
type ruleBook struct{ rules sync.Map }

func (b *ruleBook) rule(spec connect.Spec) (*rule, error) {
	if known, ok := b.rules.Load(spec.Procedure); ok {
		return known.(*rule), nil //nolint:forcetypeassert // nothing else is in it
	}
	r, err := ruleOf(spec)
	if err != nil {
		return nil, err
	}
	b.rules.Store(spec.Procedure, r)
	return r, nil
}

// ruleOf reads the rule of a method. One without a rule that says everything is refused.
func ruleOf(spec connect.Spec) (*rule, error) {
	method, ok := spec.Schema.(protoreflect.MethodDescriptor)
	if !ok {
		return nil, job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "%s has no descriptor and is refused", spec.Procedure)
	}
	option, ok := proto.GetExtension(method.Options(), policyv1.E_Access).(*policyv1.AccessRule)
	switch method.Parent().FullName() {
	case grpcreflect.ReflectV1ServiceName, grpcreflect.ReflectV1AlphaServiceName:
		option, ok = reflectionRule, true
	}
	if !ok || option == nil || !complete(option) {
		return nil, job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "%s has no access rule, or one that does not say enough, and is refused",
			spec.Procedure)
	}
	r := &rule{
		permission: option.GetPermission(), scope: option.GetScope(), reads: option.GetReads(),
		proofs: make(map[policyv1.Authentication]bool), action: string(method.Parent().FullName()) + "/" + string(method.Name()),
	}
	for _, a := range option.GetAuthentication() {
		r.proofs[a] = true
	}
	return r, nil
}

// complete reports whether a rule says all that it must.
func complete(r *policyv1.AccessRule) bool {
	proofs := r.GetAuthentication()
	if len(proofs) == 0 || slices.Contains(proofs, policyv1.Authentication_AUTHENTICATION_UNSPECIFIED) {
		return false
	}
	if slices.Contains(proofs, policyv1.Authentication_AUTHENTICATION_NONE) {
		return len(proofs) == 1 && r.GetPermission() == "" && r.GetScope() == policyv1.Scope_SCOPE_UNSPECIFIED
	}
	if r.GetScope() == policyv1.Scope_SCOPE_SELF {
		return true
	}
	return r.GetPermission() != "" && r.GetScope() != policyv1.Scope_SCOPE_UNSPECIFIED
}

// further are the permissions that methods about the caller themselves ask for when they are about somebody else.
var further = []string{"tokens.create", "tokens.list", "tokens.revoke"}

// Permissions returns all permissions that users can hold, sorted: those that the methods of the served API name.
func Permissions() []string {
	all := make(map[string]bool)
	for _, name := range further {
		all[name] = true
	}
	for _, name := range serviceNames() {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		service, ok := found.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			continue
		}
		for i := range service.Methods().Len() {
			option, ok := proto.GetExtension(service.Methods().Get(i).Options(), policyv1.E_Access).(*policyv1.AccessRule)
			if ok && option.GetPermission() != "" && option.GetPermission() != agentPermission {
				all[option.GetPermission()] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// agentPermission is the only thing that agents may do, and that nobody else may.
const agentPermission = "agent.connect"
