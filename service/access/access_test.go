package access

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

var now = func() time.Time { return time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC) }

// faulty is a store whose commits fail while err is set.
type faulty struct {
	*memstore.Store
	err error
}

func (f *faulty) Commit(ctx context.Context, batch *store.Batch) error {
	if f.err != nil {
		return f.err
	}
	return f.Store.Commit(ctx, batch)
}

func open(t *testing.T, db *faulty, changed func()) *Access {
	t.Helper()
	a, err := Open(t.Context(), db, catalog, now, changed, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestRolesAndBindingsAreKept(t *testing.T) {
	t.Parallel()
	db := &faulty{Store: memstore.New()}
	changes := 0
	a := open(t, db, func() { changes++ })
	admin := caller(Administrator)
	must[Role](t)(a.SetRole(t.Context(), admin, Role{Name: "runner", Permissions: []string{"jobs.submit", "jobs.read", "jobs.submit"}}))
	b := must[Binding](t)(a.CreateBinding(t.Context(), admin, Binding{Subject: "user/ada", Role: "runner", Namespace: "a", CreatedBy: "user/admin"}))
	if !b.Created.Equal(now()) {
		t.Errorf("created %v", b.Created)
	}
	must[Binding](t)(a.CreateBinding(t.Context(), admin, Binding{Subject: "user/ada", Role: "runner", Namespace: "a"})) // again
	if changes != 2 {
		t.Errorf("told of %d changes", changes)
	}
	for _, a := range []*Access{a, open(t, db, func() {})} {
		if !a.Policy().Allows(caller("user/ada"), "jobs.submit", "a") || a.Policy().Allows(caller("user/ada"), "jobs.submit", "b") {
			t.Error("not what was granted")
		}
		if got := a.Policy().Of(caller("user/ada")); len(got) != 1 || got[0].CreatedBy != "user/admin" {
			t.Errorf("bindings: %v", got)
		}
	}
	if err := a.DeleteRole(t.Context(), admin, "runner"); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("a role in use was removed: %v", err)
	}
	if err := a.DeleteBinding(t.Context(), admin, b); err != nil {
		t.Error(err)
	}
	if err := a.DeleteBinding(t.Context(), admin, b); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
	if err := a.DeleteRole(t.Context(), admin, "runner"); err != nil {
		t.Error(err)
	}
	if a := open(t, db, func() {}); a.Policy().Allows(caller("user/ada"), "jobs.submit", "a") || len(a.Policy().Roles()) != 5 {
		t.Error("what was removed is there")
	}
}

func TestWrongRolesAndBindings(t *testing.T) {
	t.Parallel()
	a := open(t, &faulty{Store: memstore.New()}, func() {})
	admin := caller(Administrator)
	for name, r := range map[string]Role{
		"built in": {Name: "viewer", Permissions: []string{"jobs.read"}}, "no name": {Permissions: []string{"jobs.read"}},
		"upper case": {Name: "Runner", Permissions: []string{"jobs.read"}}, "no permission": {Name: "runner"},
		"unknown": {Name: "runner", Permissions: []string{"jobs.reed"}}, "of agents": {Name: "runner", Permissions: []string{"agent.connect"}},
		"long": {Name: strings.Repeat("a", 64), Permissions: []string{"jobs.read"}}, "path": {Name: "../x", Permissions: []string{"jobs.read"}},
	} {
		if _, err := a.SetRole(t.Context(), admin, r); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string]Binding{
		"no kind": {Subject: "ada", Role: "viewer", Namespace: "a"}, "agent": {Subject: "agent/wkr_1", Role: "viewer", Namespace: "a"},
		"no name": {Subject: "user/", Role: "viewer", Namespace: "a"}, "two names": {Subject: "user/a/b", Role: "viewer", Namespace: "a"},
		"space": {Subject: "user/a b", Role: "viewer", Namespace: "a"}, "no role": {Subject: "user/ada", Role: "runner", Namespace: "a"},
		"bad namespace": {Subject: "user/ada", Role: "viewer", Namespace: "A B"}, "no namespace": {Subject: "user/ada", Role: "viewer"},
		"prefix": {Subject: "user/ada", Role: "viewer", Namespace: "a*"},
	} {
		if _, err := a.CreateBinding(t.Context(), admin, b); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was not stored is not granted, and not taken away.
func TestChangesThatAreNotStored(t *testing.T) {
	t.Parallel()
	db := &faulty{Store: memstore.New()}
	a := open(t, db, func() {})
	admin, b := caller(Administrator), Binding{Subject: "user/ada", Role: "viewer", Namespace: "a"}
	db.err = errors.New("the disk is full")
	if _, err := a.CreateBinding(t.Context(), admin, b); err == nil || a.Policy().Allows(caller("user/ada"), "jobs.read", "a") {
		t.Errorf("granted: %v", err)
	}
	db.err = nil
	must[Binding](t)(a.CreateBinding(t.Context(), admin, b))
	db.err = errors.New("the disk is full")
	if err := a.DeleteBinding(t.Context(), admin, b); err == nil || !a.Policy().Allows(caller("user/ada"), "jobs.read", "a") {
		t.Errorf("taken away: %v", err)
	}
}

func TestDamagedRecordsGrantNothing(t *testing.T) {
	t.Parallel()
	db := &faulty{Store: memstore.New()}
	for _, kind := range []string{roleRecord, bindingRecord} {
		if err := db.Commit(t.Context(), &store.Batch{Records: []store.Record{{Kind: kind, Key: "x", Value: []byte("{")}}}); err != nil {
			t.Fatal(err)
		}
	}
	if a := open(t, db, func() {}); len(a.Policy().Roles()) != 5 || len(a.Policy().Bindings(func(*Binding) bool { return true })) != 1 {
		t.Error("a damaged record counts")
	}
}

// However people grant each other what they hold, nobody comes to hold more than those who began held together.
func TestNobodyGrantsMoreThanTheyHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, err := Open(context.Background(), &faulty{Store: memstore.New()}, catalog, now, func() {}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		users := []string{"user/ada", "user/bob", "user/eve"}
		roles := []string{"viewer", "submitter", "operator", "admin", "auditor", "own"}
		namespaces := []string{"a", "b", Everywhere}
		// ada runs namespace a, and bob may see b.
		for _, b := range []Binding{{Subject: users[0], Role: "admin", Namespace: "a"}, {Subject: users[1], Role: "viewer", Namespace: "b"}} {
			if _, err := a.CreateBinding(context.Background(), caller(Administrator), b); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			by := caller(rapid.SampledFrom(users).Draw(t, "by"))
			b := Binding{
				Subject: rapid.SampledFrom(users).Draw(t, "to"), Role: rapid.SampledFrom(roles).Draw(t, "role"),
				Namespace: rapid.SampledFrom(namespaces).Draw(t, "namespace"),
			}
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				_, _ = a.CreateBinding(context.Background(), by, b)
			case 2:
				_ = a.DeleteBinding(context.Background(), by, b)
			case 3:
				_, _ = a.SetRole(context.Background(), by, Role{
					Name: "own", Permissions: rapid.SliceOfNDistinct(rapid.SampledFrom(catalog), 1, 5, rapid.ID).Draw(t, "permissions"),
				})
			}
			for _, user := range users {
				for _, permission := range catalog {
					if a.Policy().Allows(caller(user), permission, Everywhere) {
						t.Fatalf("%s holds %s everywhere", user, permission)
					}
					if a.Policy().Allows(caller(user), permission, "b") && !slices.Contains(viewerPermissions, permission) {
						t.Fatalf("%s holds %s in b", user, permission)
					}
				}
			}
		}
	})
}

func TestExplain(t *testing.T) {
	t.Parallel()
	a := open(t, &faulty{Store: memstore.New()}, func() {})
	must[Binding](t)(a.CreateBinding(t.Context(), caller(Administrator), Binding{Subject: "group/devs", Role: "viewer", Namespace: "a"}))
	who := caller("user/ada", "group/devs")
	if ok, why, err := a.Explain(who, "jobs.read", "a"); !ok || err != nil || why != "group/devs has the role viewer in a" {
		t.Error(ok, why, err)
	}
	if ok, why, err := a.Explain(who, "jobs.read", ""); ok || err != nil || !strings.Contains(why, "namespace default") {
		t.Error(ok, why, err)
	}
	if _, _, err := a.Explain(who, "jobs.reed", "a"); job.CodeOf(err) != job.CodeInvalid {
		t.Error(err)
	}
	who.Bounds = []Bound{{"viewer", "b"}}
	if ok, why, _ := a.Explain(who, "jobs.read", "a"); ok || !strings.Contains(why, "token") {
		t.Error(ok, why)
	}
}
