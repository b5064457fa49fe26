package identity

import (
	"testing"

	"pgregory.net/rapid"
)

func TestAllows(t *testing.T) {
	t.Parallel()
	var (
		administrator = Principal{Kind: User, Name: "admin"}
		ada           = Principal{Kind: User, Name: "ada"}
		agent         = Principal{Kind: Agent, Worker: "wkr_1"}
	)
	tests := []struct {
		who        Principal
		permission string
		want       bool
	}{
		{administrator, "jobs.submit", true},
		{administrator, "tokens.create", true},
		{administrator, "agent.connect", false},
		{administrator, "", false},
		{Principal{Kind: User, Name: "Admin"}, "jobs.submit", false},
		{Principal{Kind: User, Name: "admin "}, "jobs.submit", false},
		{Principal{Kind: User}, "jobs.submit", false},
		{ada, "jobs.submit", false},
		{ada, "agent.connect", false},
		{ada, "", false},
		{agent, "agent.connect", true},
		{agent, "agent.connect2", false},
		{agent, "jobs.submit", false},
		{agent, "tokens.create", false},
		{agent, "", false},
		{Principal{Kind: Agent, Name: "admin", Worker: "wkr_1"}, "jobs.submit", false},
		{Principal{}, "jobs.submit", false},
		{Principal{}, "agent.connect", false},
		{Principal{}, "", false},
		{Principal{Name: "admin"}, "jobs.submit", false},
		{Principal{Kind: 77, Name: "admin"}, "jobs.submit", false},
	}
	for _, tt := range tests {
		if got := Allows(tt.who, tt.permission); got != tt.want {
			t.Errorf("Allows(%v, %q) = %v, want %v", tt.who, tt.permission, got, tt.want)
		}
	}
}

// TestNobodyHoldsBoth checks that what agents may do and what people may do never meet, whatever the permission is called.
func TestNobodyHoldsBoth(t *testing.T) {
	t.Parallel()
	permissions := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"agent.connect", "jobs.submit", "*", "agent.*", ""}))
	rapid.Check(t, func(r *rapid.T) {
		permission := permissions.Draw(r, "permission")
		kind := Kind(rapid.IntRange(0, 255).Draw(r, "kind"))
		name := rapid.SampledFrom([]string{"admin", "ada", ""}).Draw(r, "name")
		if !Allows(Principal{Kind: kind, Name: name, Worker: "wkr_1"}, permission) {
			return
		}
		agent := kind == Agent && permission == "agent.connect"
		person := kind == User && name == "admin" && permission != "agent.connect" && permission != ""
		if !agent && !person {
			r.Fatalf("kind %d, name %q may %q", kind, name, permission)
		}
	})
}
