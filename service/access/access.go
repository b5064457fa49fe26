package access

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/mirror"
)

// The kinds of the records of roles and bindings; the keys are the roles' names, and those of Binding.Key.
const (
	roleRecord    = "role"
	bindingRecord = "binding"
)

// Limits.
const (
	maxRoles    = 1000
	maxBindings = 100_000
)

// Access keeps roles and bindings. Its methods may be called from several goroutines at once.
type Access struct {
	catalog []string
	now     func() time.Time
	changed func()

	mu       sync.Mutex // makes looking and changing one step
	roles    *mirror.Mirror[Role]
	bindings *mirror.Mirror[Binding]
	policy   atomic.Pointer[Policy]
}

// Open loads the roles and bindings that are stored. The catalog are all permissions that there are; changed is called after each
// change. Records that cannot be read grant nothing, and are logged.
func Open(
	ctx context.Context, db mirror.Store, catalog []string, now func() time.Time, changed func(), logger *slog.Logger,
) (*Access, error) {
	a := &Access{catalog: catalog, now: now, changed: changed}
	var err error
	if a.roles, err = mirror.Open[Role](ctx, db, roleRecord, logger); err != nil {
		return nil, err
	}
	if a.bindings, err = mirror.Open[Binding](ctx, db, bindingRecord, logger); err != nil {
		return nil, err
	}
	a.renew()
	return a, nil
}

// renew takes roles and bindings into use.
func (a *Access) renew() { a.policy.Store(NewPolicy(a.catalog, a.roles.All(), a.bindings.All())) }

// Policy returns what is granted now.
func (a *Access) Policy() *Policy { return a.policy.Load() }

// Catalog returns all permissions that there are. The caller must not change it.
func (a *Access) Catalog() []string { return a.catalog }

// SetRole makes a role or changes it. CodeInvalid when it is wrong, CodeDenied when the caller does not hold all of its permissions everywhere.
func (a *Access) SetRole(ctx context.Context, by *Caller, r Role) (Role, error) {
	r.BuiltIn = false
	slices.Sort(r.Permissions)
	r.Permissions = slices.Compact(r.Permissions)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.checkRole(&r); err != nil {
		return r, err
	}
	if missing := a.Policy().holdsAll(by, r.Permissions, Everywhere); missing != "" {
		return r, escalates(missing, Everywhere)
	}
	_, there := a.roles.Get(r.Name)
	if !there && a.roles.Len() >= maxRoles {
		return r, job.Errorf(job.CodeExhausted, job.ReasonLimitReached, "there are %d roles, as many as there may be; remove some first", maxRoles)
	}
	if missing := a.Policy().HoldsAll(by, r.Name, Everywhere); missing != "" { // of what it permits so far
		return r, escalates(missing, Everywhere)
	}
	return r, a.took(a.roles.Set(ctx, r.Name, r))
}

var roleName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func (a *Access) checkRole(r *Role) error {
	if !roleName.MatchString(r.Name) {
		return invalid("name: %q is no name for a role; use up to 63 lower-case letters, digits and '-', a letter first", r.Name)
	}
	if own, ok := a.Policy().Role(r.Name); ok && own.BuiltIn {
		return invalid("name: the role %q comes with the server and cannot be changed; make one with another name", r.Name)
	}
	if len(r.Permissions) == 0 {
		return invalid("permissions: a role permits at least one thing; `hodei admin role list` shows what there is")
	}
	for _, permission := range r.Permissions {
		if !slices.Contains(a.catalog, permission) {
			return invalid("permissions: there is no permission %q; `hodei admin role list` shows those that there are", permission)
		}
	}
	return nil
}

// DeleteRole removes a role. CodeNotFound when there is none, CodePrecondition while a binding names it.
func (a *Access) DeleteRole(ctx context.Context, by *Caller, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.roles.Get(name); !ok {
		return job.Errorf(job.CodeNotFound, job.ReasonNotFound, "there is no role %q that could be removed; `hodei admin role list` shows the roles", name)
	}
	if missing := a.Policy().HoldsAll(by, name, Everywhere); missing != "" {
		return escalates(missing, Everywhere)
	}
	if used := a.Policy().Bindings(func(b *Binding) bool { return b.Role == name }); len(used) > 0 {
		return job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"%s has the role %q in %s; remove that binding first", used[0].Subject, name, used[0].Namespace)
	}
	return a.took(a.roles.Change(ctx, nil, name))
}

// took takes a change into use, if it was stored.
func (a *Access) took(err error) error {
	if err == nil {
		a.renew()
		a.changed()
	}
	return err
}

// CreateBinding grants a role. CodeInvalid when the binding is wrong, CodeDenied when the caller does not hold all that it gives. One that
// is there already stays as it is.
func (a *Access) CreateBinding(ctx context.Context, by *Caller, b Binding) (Binding, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.checkBinding(by, &b); err != nil {
		return b, err
	}
	if there, ok := a.bindings.Get(b.Key()); ok {
		return there, nil
	}
	if a.bindings.Len() >= maxBindings {
		return b, job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
			"there are %d bindings, as many as there may be; bind groups rather than users, or remove some", maxBindings)
	}
	b.Created = a.now().UTC()
	return b, a.took(a.bindings.Set(ctx, b.Key(), b))
}

// DeleteBinding takes a role away. CodeNotFound when it was not granted, CodeDenied when the caller could not grant it.
func (a *Access) DeleteBinding(ctx context.Context, by *Caller, b Binding) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.checkBinding(by, &b); err != nil {
		return err
	}
	if _, ok := a.bindings.Get(b.Key()); !ok {
		return job.Errorf(job.CodeNotFound, job.ReasonNotFound,
			"%s does not have the role %q in %s; `hodei admin binding list` shows what is granted", b.Subject, b.Role, b.Namespace)
	}
	return a.took(a.bindings.Change(ctx, nil, b.Key()))
}

func (a *Access) checkBinding(by *Caller, b *Binding) error {
	kind, name, _ := strings.Cut(b.Subject, "/")
	if kind != "user" && kind != "group" || CheckName(name) != nil {
		return invalid("subject: %.80q is neither user/NAME nor group/NAME", b.Subject)
	}
	if _, ok := a.Policy().Role(b.Role); !ok {
		return invalid("role: there is no role %q; `hodei admin role list` shows those that there are", b.Role)
	}
	if b.Namespace != Everywhere {
		if err := job.CheckNamespace(b.Namespace); err != nil {
			return err
		}
	}
	if missing := a.Policy().HoldsAll(by, b.Role, b.Namespace); missing != "" {
		return escalates(missing, b.Namespace)
	}
	return nil
}

// CheckName returns what is wrong with the name of a user or a group, a *job.Error, or nil.
func CheckName(name string) error {
	strange := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._@+:|=", r)
	}
	if name == "" || len(name) > 128 || strings.ContainsFunc(name, strange) {
		return invalid("the name %.80q must have from 1 to 128 letters, digits and \"-._@+:|=\"", name)
	}
	return nil
}

func escalates(permission, namespace string) error {
	where := "in namespace " + namespace
	if namespace == Everywhere {
		where = "in all namespaces"
	}
	return job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "you do not hold the permission %q %s, so you may not grant it or take it away",
		permission, where)
}

func invalid(format string, args ...any) error {
	return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, format, args...)
}
