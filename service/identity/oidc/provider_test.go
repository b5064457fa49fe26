package oidc_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/clients/go/oidclogin"
	"github.com/hodei-jobs/hodei/e2e/oidctest"
	"github.com/hodei-jobs/hodei/service/identity/oidc"
	"github.com/hodei-jobs/hodei/service/job"
)

// These tests log in with a real provider, by the client that people use.

// tomorrow is a clock that tests can set forward.
type tomorrow struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *tomorrow) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *tomorrow) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

func verifier(t *testing.T, p *oidctest.Provider) (*oidc.Verifier, *tomorrow) {
	t.Helper()
	clock := new(tomorrow)
	v, err := oidc.New(oidc.Config{Issuer: p.URL, ClientID: oidctest.ClientID, Clock: clock.now})
	if err != nil {
		t.Fatal(err)
	}
	return v, clock
}

func byDevice(t *testing.T, p *oidctest.Provider, who string) string {
	t.Helper()
	token, err := oidclogin.Device(t.Context(), oidclogin.Config{Issuer: p.URL, ClientID: oidctest.ClientID}, func(address, code string) {
		if err := p.Device(address, code, who, true); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func byBrowser(t *testing.T, p *oidctest.Provider, who string) string {
	t.Helper()
	token, err := oidclogin.Browser(t.Context(), oidclogin.Config{Issuer: p.URL, ClientID: oidctest.ClientID}, func(address string) error {
		_, err := p.Browser(address, who, true)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestRealLogins(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t)
	v, _ := verifier(t, p)
	for _, flow := range []func(*testing.T, *oidctest.Provider, string) string{byDevice, byBrowser} {
		for who, want := range map[string]oidc.Claims{
			oidctest.Ada: {Subject: "ada", Name: "ada@example.org", Groups: []string{"devs"}},
			oidctest.Eve: {Subject: "eve", Name: "oidc:eve", Groups: []string{"admins"}},
		} {
			got, err := v.Verify(t.Context(), flow(t, p, who))
			if err != nil || got.Subject != want.Subject || got.Name != want.Name || !slices.Equal(got.Groups, want.Groups) {
				t.Errorf("%s logs in as %+v, %v, want %+v", who, got, err, want)
			}
			if left := time.Until(got.Expires); left <= 0 || left > 5*time.Minute {
				t.Errorf("the token is good for %v, want 5 minutes", left)
			}
		}
	}
}

func TestRealRotation(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t)
	v, clock := verifier(t, p)
	before := byBrowser(t, p, oidctest.Ada)
	mustVerify(t, v, before)
	p.Rotate(t, false)
	after := byBrowser(t, p, oidctest.Ada)
	clock.advance(15 * time.Second) // so that it may be asked again
	mustVerify(t, v, after)
	mustVerify(t, v, before)
	p.Rotate(t, true)
	last := byBrowser(t, p, oidctest.Ada)
	clock.advance(15 * time.Second)
	mustVerify(t, v, last)
	if _, err := v.Verify(t.Context(), before); job.CodeOf(err) != job.CodeUnauthenticated || !strings.Contains(err.Error(), "none of the provider's keys") {
		t.Errorf("a token by a key that was withdrawn gives %v", err)
	}
}

func mustVerify(t *testing.T, v *oidc.Verifier, token string) {
	t.Helper()
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
}

func TestRealProviderAway(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t)
	token := byBrowser(t, p, oidctest.Ada)
	p.Stop()
	v, clock := verifier(t, p)
	if _, err := v.Verify(t.Context(), token); job.CodeOf(err) != job.CodeUnavailable || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("with the provider away, Verify gives %v", err)
	}
	p.Restart(t)
	clock.advance(15 * time.Second)
	mustVerify(t, v, byBrowser(t, p, oidctest.Ada))
}
