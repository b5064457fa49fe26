package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/ratelimit"
)

// Who is known has a limit of their own; who is not shares that of their address.
func TestCallsAreLimited(t *testing.T) {
	t.Parallel()
	refused := make(map[string]int)
	limits := &Limits{
		Identity: ratelimit.New(10, 3, 100), Address: ratelimit.New(1, 2, 100), Refused: func(reason string) { refused[reason]++ },
	}
	now := time.Unix(1000, 0)
	ada, bob := identity.Principal{Kind: identity.User, Name: "ada"}, identity.Principal{Kind: identity.Agent, Worker: "wkr_1"}
	call := func(caller identity.Principal, peer string, want bool) {
		t.Helper()
		err := limits.admit(caller, peer, now)
		if (err == nil) != want {
			t.Fatalf("%s from %s: %v", caller, peer, err)
		}
		var refusal *job.Error
		if err != nil && (!errors.As(err, &refusal) || refusal.Code != job.CodeExhausted || refusal.Reason != job.ReasonLimitReached || refusal.RetryAfter <= 0) {
			t.Fatalf("the refusal is %#v", err)
		}
	}
	for i := range 5 {
		call(ada, fmt.Sprintf("192.0.2.%d:1", i), i < 3) // wherever from
	}
	call(bob, "192.0.2.1:1", true)
	for i := range 4 {
		call(identity.Principal{}, fmt.Sprintf("[2001:db8::%d]:%d", i, i), i < 2) // one /64
	}
	call(identity.Principal{}, "192.0.2.1:1", true)
	now = now.Add(100 * time.Millisecond)
	call(ada, "192.0.2.1:1", true)
	call(ada, "192.0.2.1:1", false)
	if refused["identity"] != 3 || refused["address"] != 2 {
		t.Errorf("counted were %v", refused)
	}
	if err := limits.admit(ada, "", now); !strings.Contains(err.Error(), "user/ada") || !strings.Contains(err.Error(), "wait 100ms") {
		t.Errorf("the refusal says %q", err)
	}
	none := &Limits{}
	for range 1000 {
		if err := none.admit(identity.Principal{}, "", now); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	limits := &Limits{Identity: ratelimit.New(1e9, 1e9, 1000), Address: ratelimit.New(1e-9, 1, 1000)}
	known := identity.Principal{Kind: identity.Agent, Worker: "wkr_01jxxxxxxxxxxxxxxxxxxxxxxx"}
	for name, caller := range map[string]identity.Principal{"let through": known, "refused": {}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = limits.admit(caller, "192.0.2.1:12345", time.Now())
			}
		})
	}
}
