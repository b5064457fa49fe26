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
	now := time.Unix(1000, 0)
	g := &gate{now: func() time.Time { return now }, limits: Limits{
		Identity: ratelimit.New(10, 3, 100), Address: ratelimit.New(1, 2, 100), Refused: func(reason string) { refused[reason]++ },
	}}
	ada, bob := identity.Principal{Kind: identity.User, Name: "ada"}, identity.Principal{Kind: identity.Agent, Worker: "wkr_1"}
	try := func(caller identity.Principal, address string, want bool) {
		t.Helper()
		err := g.admit(&call{caller: caller, address: address})
		if (err == nil) != want {
			t.Fatalf("%s from %s: %v", &caller, address, err)
		}
		var refusal *job.Error
		if err != nil && (!errors.As(err, &refusal) || refusal.Code != job.CodeExhausted || refusal.Reason != job.ReasonLimitReached || refusal.RetryAfter <= 0) {
			t.Fatalf("the refusal is %#v", err)
		}
	}
	for i := range 5 {
		try(ada, fmt.Sprintf("192.0.2.%d", i), i < 3) // wherever from
	}
	try(bob, "192.0.2.1", true)
	for i := range 4 {
		try(identity.Principal{}, fmt.Sprintf("2001:db8::%d", i), i < 2) // one /64
	}
	try(identity.Principal{}, "192.0.2.1", true)
	now = now.Add(100 * time.Millisecond)
	try(ada, "192.0.2.1", true)
	try(ada, "192.0.2.1", false)
	if refused["identity"] != 3 || refused["address"] != 2 {
		t.Errorf("counted were %v", refused)
	}
	if err := g.admit(&call{caller: ada}); !strings.Contains(err.Error(), "wait 100ms") {
		t.Errorf("the refusal says %q", err)
	}
	none := &gate{now: g.now}
	for range 1000 {
		if err := none.admit(&call{}); err != nil {
			t.Fatal(err)
		}
	}
}
