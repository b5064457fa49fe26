package api

import (
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
)

// Every method says who may call it, and those that only read say that too: so that every other one leaves a record.
func TestEveryMethodHasARule(t *testing.T) {
	t.Parallel()
	open := []string{
		"/hodei.v1.AuthService/GetLoginOptions", "/hodei.v1.AuthService/ExchangeToken", "/hodei.v1.AuthService/RequestLogin",
		"/hodei.v1.AuthService/CollectLogin", "/hwp.v1.WorkerService/Enroll",
	}
	catalog := Permissions()
	for _, m := range methods(t) {
		r, err := ruleOf(connect.Spec{Procedure: procedureOf(m), Schema: m})
		if err != nil {
			t.Error(err)
			continue
		}
		if r.open() != slices.Contains(open, procedureOf(m)) {
			t.Errorf("%s may be called by anybody: %t", procedureOf(m), r.open())
		}
		options, _ := m.Options().(*descriptorpb.MethodOptions)
		if options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS && !r.reads {
			t.Errorf("%s has no side effects and does not say that it reads", procedureOf(m))
		}
		if r.permission != "" && r.permission != agentPermission && !slices.Contains(catalog, r.permission) {
			t.Errorf("%s needs %s, which nobody can hold", procedureOf(m), r.permission)
		}
	}
	if len(catalog) < 25 || !slices.IsSorted(catalog) {
		t.Errorf("the permissions are %v", catalog)
	}
}

func TestRulesThatDoNotSayEnough(t *testing.T) {
	t.Parallel()
	none, user := policyv1.Authentication_AUTHENTICATION_NONE, policyv1.Authentication_AUTHENTICATION_USER_CERTIFICATE
	for name, c := range map[string]struct {
		rule *policyv1.AccessRule
		ok   bool
	}{
		"empty":              {&policyv1.AccessRule{}, false},
		"no proof":           {&policyv1.AccessRule{Permission: "a.b", Scope: policyv1.Scope_SCOPE_CLUSTER}, false},
		"unspecified proof":  {&policyv1.AccessRule{Permission: "a.b", Scope: policyv1.Scope_SCOPE_CLUSTER, Authentication: []policyv1.Authentication{user, 0}}, false},
		"none among others":  {&policyv1.AccessRule{Authentication: []policyv1.Authentication{none, user}}, false},
		"open, a permission": {&policyv1.AccessRule{Permission: "a.b", Authentication: []policyv1.Authentication{none}}, false},
		"no scope":           {&policyv1.AccessRule{Permission: "a.b", Authentication: []policyv1.Authentication{user}}, false},
		"no permission":      {&policyv1.AccessRule{Scope: policyv1.Scope_SCOPE_NAMESPACE, Authentication: []policyv1.Authentication{user}}, false},
		"open":               {&policyv1.AccessRule{Authentication: []policyv1.Authentication{none}}, true},
		"self":               {&policyv1.AccessRule{Scope: policyv1.Scope_SCOPE_SELF, Authentication: []policyv1.Authentication{user}}, true},
		"whole":              {&policyv1.AccessRule{Permission: "a.b", Scope: policyv1.Scope_SCOPE_NAMESPACE, Authentication: []policyv1.Authentication{user}}, true},
	} {
		if complete(c.rule) != c.ok {
			t.Errorf("%s: %v", name, c.rule)
		}
	}
}
