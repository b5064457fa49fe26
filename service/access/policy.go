// Package access decides who may do what: roles are sets of permissions, and bindings give them to users and groups in namespaces.
// What is not granted is denied, and nobody grants more than they hold.
package access

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Everywhere as a namespace stands for all of them.
const Everywhere = "*"

// Administrator is the subject that holds the role admin everywhere, whatever the bindings say: the user of the certificate that lies
// in the server's own folder, with which every other certificate can be made.
const Administrator = "user/admin"

// Role is a set of permissions.
type Role struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"` // sorted
	Description string   `json:"description,omitempty"`
	BuiltIn     bool     `json:"-"`
}

// Binding gives a role to a user or a group in a namespace.
type Binding struct {
	Subject   string    `json:"subject"` // "user/" or "group/" and the name
	Role      string    `json:"role"`
	Namespace string    `json:"namespace"` // or Everywhere
	CreatedBy string    `json:"created_by"`
	Created   time.Time `json:"created"`
}

// Caller is who asks.
type Caller struct {
	Subjects []string // "user/ada" and the groups: "group/devs"
	// Bounds, when there are any, permit no more than they say of what the subjects hold.
	Bounds []Bound
}

// Bound is a role in a namespace to which an API token is bound.
type Bound struct {
	Role      string `json:"role"`
	Namespace string `json:"namespace"` // or Everywhere
}

// Reach is where a permission is held.
type Reach struct {
	Everywhere bool
	Namespaces []string // sorted; when it is not held everywhere
}

// Policy is what is granted at one moment. It never changes, so it may be used by several goroutines at once.
type Policy struct {
	roles    map[string]*rights
	bindings map[string][]Binding // by subject
}

// rights are a role, made quick to ask.
type rights struct {
	Role
	has map[string]bool
}

// NewPolicy makes a policy of roles and bindings. The catalog are all permissions that there are, which the role admin holds. A
// binding to a role that is not there grants nothing.
func NewPolicy(catalog []string, roles []Role, bindings []Binding) *Policy {
	p := &Policy{roles: make(map[string]*rights), bindings: make(map[string][]Binding)}
	for _, r := range append(slices.Clone(roles), builtIn(catalog)...) { // the built-in ones win
		r.Permissions = slices.Compact(slices.Sorted(slices.Values(r.Permissions)))
		has := make(map[string]bool, len(r.Permissions))
		for _, permission := range r.Permissions {
			has[permission] = true
		}
		p.roles[r.Name] = &rights{Role: r, has: has}
	}
	administrator := Binding{Subject: Administrator, Role: adminRole, Namespace: Everywhere, CreatedBy: "server"}
	for _, b := range append([]Binding{administrator}, bindings...) {
		p.bindings[b.Subject] = append(p.bindings[b.Subject], b)
	}
	return p
}

// Allows reports whether the caller holds a permission in a namespace, or in all of them.
func (p *Policy) Allows(c *Caller, permission, namespace string) bool {
	return p.granted(c, permission, namespace) && p.within(c, permission, namespace)
}

func (p *Policy) granted(c *Caller, permission, namespace string) bool {
	for _, subject := range c.Subjects {
		for i := range p.bindings[subject] {
			b := &p.bindings[subject][i]
			if p.covers(b.Role, b.Namespace, permission, namespace) {
				return true
			}
		}
	}
	return false
}

// within reports whether the caller's bounds let a permission through.
func (p *Policy) within(c *Caller, permission, namespace string) bool {
	if len(c.Bounds) == 0 {
		return true
	}
	return slices.ContainsFunc(c.Bounds, func(b Bound) bool { return p.covers(b.Role, b.Namespace, permission, namespace) })
}

// covers reports whether a role in one namespace gives a permission in another.
func (p *Policy) covers(role, in, permission, namespace string) bool {
	if in != Everywhere && in != namespace {
		return false
	}
	r := p.roles[role]
	return r != nil && r.has[permission]
}

// Reach returns where the caller holds a permission.
func (p *Policy) Reach(c *Caller, permission string) Reach {
	if p.Allows(c, permission, Everywhere) {
		return Reach{Everywhere: true}
	}
	var names []string
	for _, b := range p.named(c) {
		if p.Allows(c, permission, b) {
			names = append(names, b)
		}
	}
	return Reach{Namespaces: names}
}

// Nowhere reports whether the permission is not held at all.
func (r *Reach) Nowhere() bool { return !r.Everywhere && len(r.Namespaces) == 0 }

// Includes reports whether a namespace is within reach.
func (r *Reach) Includes(namespace string) bool {
	return r.Everywhere || slices.Contains(r.Namespaces, namespace)
}

// named returns the namespaces that the caller's bindings and bounds name, sorted.
func (p *Policy) named(c *Caller) []string {
	var names []string
	for _, subject := range c.Subjects {
		for i := range p.bindings[subject] {
			names = append(names, p.bindings[subject][i].Namespace)
		}
	}
	for _, b := range c.Bounds {
		names = append(names, b.Namespace)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool { return name == Everywhere })
}

// HoldsAll returns a permission of a role that the caller does not hold in a namespace; empty when they hold all of them.
func (p *Policy) HoldsAll(c *Caller, role, namespace string) (missing string) {
	r := p.roles[role]
	if r == nil {
		return ""
	}
	return p.holdsAll(c, r.Permissions, namespace)
}

func (p *Policy) holdsAll(c *Caller, permissions []string, namespace string) (missing string) {
	for _, permission := range permissions {
		if !p.Allows(c, permission, namespace) {
			return permission
		}
	}
	return ""
}

// Exceeds returns what a user holds that the caller does not, "permission in namespace"; empty when there is nothing.
func (p *Policy) Exceeds(c *Caller, user string) string {
	for _, b := range p.bindings[user] {
		if missing := p.HoldsAll(c, b.Role, b.Namespace); missing != "" {
			return missing + " in " + b.Namespace
		}
	}
	return ""
}

// Role returns a role.
func (p *Policy) Role(name string) (Role, bool) {
	if r := p.roles[name]; r != nil {
		return r.Role, true
	}
	return Role{}, false
}

// Roles returns all roles, those that are built in first, each part by name.
func (p *Policy) Roles() []Role {
	var all []Role
	for _, r := range p.roles {
		all = append(all, r.Role)
	}
	slices.SortFunc(all, func(a, b Role) int {
		if a.BuiltIn != b.BuiltIn {
			return cmp.Compare(rank(a), rank(b))
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all
}

func rank(r Role) int {
	if r.BuiltIn {
		return 0
	}
	return 1
}

// Bindings returns the bindings that are chosen, by namespace, subject and role.
func (p *Policy) Bindings(chosen func(*Binding) bool) []Binding {
	var all []Binding
	for _, of := range p.bindings {
		for i := range of {
			if chosen(&of[i]) {
				all = append(all, of[i])
			}
		}
	}
	slices.SortFunc(all, func(a, b Binding) int { return strings.Compare(a.Key(), b.Key()) })
	return all
}

// Of returns the bindings of a caller's subjects.
func (p *Policy) Of(c *Caller) []Binding {
	return p.Bindings(func(b *Binding) bool { return slices.Contains(c.Subjects, b.Subject) })
}

// Key names a binding; the keys are in the order of namespace, subject and role.
func (b *Binding) Key() string { return b.Namespace + " " + b.Subject + " " + b.Role }
