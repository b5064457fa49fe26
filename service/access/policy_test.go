package access

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var catalog = []string{
	"access.read", "access.write", "audit.read", "authority.read", "authority.rotate", "jobs.cancel", "jobs.read", "jobs.release", "jobs.submit",
	"logins.approve", "logins.list", "logs.read", "namespaces.read", "namespaces.write", "queues.read", "queues.write", "retention.list",
	"retention.set", "revocations.read", "revocations.write", "secrets.delete", "secrets.list", "secrets.set", "tokens.create", "tokens.list",
	"tokens.revoke", "workers.drain", "workers.read",
}

func caller(subjects ...string) *Caller { return &Caller{Subjects: subjects} }

func TestNothingIsAllowedThatIsNotGranted(t *testing.T) {
	t.Parallel()
	p := NewPolicy(catalog, nil, []Binding{
		{Subject: "user/ada", Role: "submitter", Namespace: "a"},
		{Subject: "group/ops", Role: "operator", Namespace: Everywhere},
		{Subject: "user/eve", Role: "gone", Namespace: Everywhere},
	})
	for _, c := range []struct {
		who                   *Caller
		permission, namespace string
		want                  bool
	}{
		{caller("user/ada"), "jobs.submit", "a", true},
		{caller("user/ada"), "jobs.read", "a", true}, // of the role before
		{caller("user/ada"), "jobs.submit", "b", false},
		{caller("user/ada"), "jobs.submit", "A", false},
		{caller("user/ada"), "jobs.submit", "", false},
		{caller("user/ada"), "jobs.submit", Everywhere, false},
		{caller("user/ada"), "jobs.release", "a", false},
		{caller("user/ad"), "jobs.submit", "a", false},
		{caller("user/ada2"), "jobs.submit", "a", false},
		{caller("group/ada"), "jobs.submit", "a", false},
		{caller("user/bob", "group/ops"), "jobs.release", "b", true},
		{caller("user/bob", "group/ops"), "jobs.release", Everywhere, true},
		{caller("user/bob", "group/ops"), "access.write", "b", false},
		{caller("user/eve"), "jobs.read", "a", false}, // a role that is not there
		{caller("user/ops"), "jobs.read", "a", false}, // a user is no group
		{caller(Administrator), "access.write", Everywhere, true},
		{caller(Administrator), "agent.connect", Everywhere, false},
		{caller(Administrator), "", Everywhere, false},
		{caller(), "jobs.read", "a", false},
		{&Caller{}, "jobs.read", Everywhere, false},
		{&Caller{Subjects: []string{Administrator}, Bounds: []Bound{{"viewer", "a"}}}, "jobs.read", "a", true},
		{&Caller{Subjects: []string{Administrator}, Bounds: []Bound{{"viewer", "a"}}}, "jobs.read", "b", false},
		{&Caller{Subjects: []string{Administrator}, Bounds: []Bound{{"viewer", "a"}}}, "jobs.submit", "a", false},
		{&Caller{Subjects: []string{"user/ada"}, Bounds: []Bound{{"admin", Everywhere}}}, "jobs.release", "a", false}, // a bound grants nothing
		{&Caller{Subjects: []string{Administrator}, Bounds: []Bound{{"gone", Everywhere}}}, "jobs.read", "a", false},
	} {
		if got := p.Allows(c.who, c.permission, c.namespace); got != c.want {
			t.Errorf("%v %q in %q: %t", c.who, c.permission, c.namespace, got)
		}
	}
}

// A role of the same name as one that comes with the server does not replace it.
func TestBuiltInRolesStay(t *testing.T) {
	t.Parallel()
	p := NewPolicy(catalog, []Role{{Name: "viewer", Permissions: catalog}}, []Binding{{Subject: "user/ada", Role: "viewer", Namespace: Everywhere}})
	if p.Allows(caller("user/ada"), "access.write", "a") {
		t.Error("a stored role replaced a built-in one")
	}
	for _, r := range builtIn(catalog) {
		for _, permission := range r.Permissions {
			if !slices.Contains(catalog, permission) {
				t.Errorf("the role %s has %s, which there is not", r.Name, permission)
			}
		}
	}
}

// granted is the policy in a few lines, to compare with.
func granted(bindings []Binding, roles map[string][]string, c *Caller, permission, namespace string) bool {
	covers := func(role, in string) bool {
		return (in == "*" || in == namespace) && slices.Contains(roles[role], permission)
	}
	held := slices.ContainsFunc(bindings, func(b Binding) bool {
		return slices.Contains(c.Subjects, b.Subject) && covers(b.Role, b.Namespace)
	})
	return held && (len(c.Bounds) == 0 || slices.ContainsFunc(c.Bounds, func(b Bound) bool { return covers(b.Role, b.Namespace) }))
}

func TestPolicyIsWhatItsModelSays(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		namespace := rapid.SampledFrom([]string{"a", "b", "ab", Everywhere})
		subject := rapid.SampledFrom([]string{"user/ada", "user/bob", "group/devs", "group/ops"})
		permission := rapid.SampledFrom([]string{"jobs.read", "jobs.submit", "queues.write", "access.write", "nothing"})
		roles := map[string][]string{}
		var list []Role
		for _, name := range []string{"one", "two"} {
			roles[name] = rapid.SliceOfNDistinct(permission, 0, 4, rapid.ID).Draw(t, "permissions of "+name)
			list = append(list, Role{Name: name, Permissions: slices.Clone(roles[name])})
		}
		role := rapid.SampledFrom([]string{"one", "two", "three"})
		binding := rapid.Custom(func(t *rapid.T) Binding {
			return Binding{Subject: subject.Draw(t, "subject"), Role: role.Draw(t, "role"), Namespace: namespace.Draw(t, "namespace")}
		})
		bindings := rapid.SliceOfN(binding, 0, 6).Draw(t, "bindings")
		p := NewPolicy(catalog, list, bindings)
		c := &Caller{Subjects: rapid.SliceOfNDistinct(subject, 0, 3, rapid.ID).Draw(t, "subjects")}
		for _, b := range rapid.SliceOfN(binding, 0, 2).Draw(t, "bounds") {
			c.Bounds = append(c.Bounds, Bound{b.Role, b.Namespace})
		}
		want, in := permission.Draw(t, "permission"), namespace.Draw(t, "in")
		if got := p.Allows(c, want, in); got != granted(bindings, roles, c, want, in) {
			t.Fatalf("Allows(%v, %s, %s) = %t", c, want, in, got)
		}
		reach := p.Reach(c, want)
		for _, name := range []string{"a", "b", "ab", "never"} {
			if reach.Includes(name) != p.Allows(c, want, name) {
				t.Fatalf("%s is within reach: %t, and allowed: %t", name, reach.Includes(name), p.Allows(c, want, name))
			}
		}
		if reach.Everywhere != p.Allows(c, want, Everywhere) {
			t.Fatalf("reach %v", reach)
		}
	})
}

func TestExceeds(t *testing.T) {
	t.Parallel()
	p := NewPolicy(catalog, nil, []Binding{
		{Subject: "user/lead", Role: "admin", Namespace: "a"},
		{Subject: "user/ada", Role: "submitter", Namespace: "a"},
		{Subject: "user/bob", Role: "viewer", Namespace: "b"},
	})
	for user, want := range map[string]string{"user/ada": "", "user/nobody": "", "user/bob": "in b", Administrator: "in *"} {
		if got := p.Exceeds(caller("user/lead"), user); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s holds more: %q", user, got)
		}
	}
}

func BenchmarkAllows(b *testing.B) {
	var bindings []Binding
	for _, namespace := range []string{"a", "b", "c", "d", "e"} {
		bindings = append(bindings, Binding{Subject: "user/ada", Role: "submitter", Namespace: namespace})
	}
	p, c := NewPolicy(catalog, nil, bindings), caller("user/ada", "group/devs")
	for b.Loop() {
		if !p.Allows(c, "jobs.submit", "e") {
			b.Fatal("denied")
		}
	}
}
