package oidc

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/identity"
)

// checkClaims checks what holds of all claims that are accepted.
func checkClaims(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, c Claims, now time.Time,
) {
	t.Helper()
	if c.Subject == "" || c.Expires.Before(now) || c.Expires.After(now.Add(maxLife)) {
		t.Fatalf("accepted %+v", c)
	}
	if !strings.HasPrefix(c.Name, "oidc:") && (!strings.Contains(c.Name, "@") || strings.Contains(c.Name, ":")) {
		t.Fatalf("the name %q is neither an address nor marked as another provider's", c.Name)
	}
	for _, text := range append([]string{c.Name}, c.Groups...) {
		if text == "" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("accepted the text %q", text)
		}
	}
	// The name must be fit for a certificate.
	uri := &url.URL{Scheme: "hodei", Host: "user", Path: "/" + c.Name}
	parsed, err := url.Parse(uri.String())
	if err != nil {
		t.Fatalf("the name %q gives no URI: %v", c.Name, err)
	}
	p, err := identity.PrincipalOf(&x509.Certificate{URIs: []*url.URL{parsed}})
	if err != nil || p.String() != "user/"+c.Name {
		t.Fatalf("a certificate for %q is of %v (error %v)", c.Name, p, err)
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	tests := []struct {
		name    string
		claim   string
		changes map[string]any
		want    string // a name, or what the refusal says
	}{
		{"verified", "", nil, "ada@example.org"},
		{"not verified", "", map[string]any{"email_verified": false}, "oidc:user-1"},
		{"not verified, as a text", "", map[string]any{"email_verified": "false"}, "oidc:user-1"},
		{"nothing about it", "", map[string]any{"email_verified": nil}, "oidc:user-1"},
		{"verified is a number", "", map[string]any{"email_verified": 1}, "oidc:user-1"},
		{"verified in another case", "", map[string]any{"email_verified": nil, "Email_Verified": true}, "oidc:user-1"},
		{"no address", "", map[string]any{"email": nil}, "oidc:user-1"},
		{"the address is no text", "", map[string]any{"email": 7}, "oidc:user-1"},
		{"the address is a local user", "", map[string]any{"email": "admin"}, "oidc:user-1"},
		{"the address has no host", "", map[string]any{"email": "admin@"}, "oidc:user-1"},
		{"the address is another's subject", "", map[string]any{"email": "oidc:eve@example.org"}, "oidc:user-1"},
		{"the subject is a local user", "", map[string]any{"email": nil, "sub": "admin"}, "oidc:admin"},
		{"the subject is an address", "", map[string]any{"email": nil, "sub": "ada@example.org"}, "oidc:ada@example.org"},
		{"the longest subject", "", map[string]any{"email": nil, "sub": strings.Repeat("x", 255)}, "oidc:" + strings.Repeat("x", 255)},
		{"strange signs", "", map[string]any{"email": nil, "sub": "auth0|1?#%"}, "oidc:auth0|1?#%"},
		{"umlaut", "", map[string]any{"email": "jürgen@example.org"}, "jürgen@example.org"},
		{"slash", "", map[string]any{"email": "a/b@example.org"}, "without spaces"},
		{"space", "", map[string]any{"email": "a b@example.org"}, "without spaces"},
		{"turned round", "", map[string]any{"email": "\u202eada@example.org"}, "without spaces"},
		{"not UTF-8", "", map[string]any{"email": "a\uFFFD@example.org"}, "without spaces"},
		{"long address", "", map[string]any{"email": strings.Repeat("x", 260) + "@example.org"}, "without spaces"},
		{"only addresses", "email", nil, "ada@example.org"},
		{"only addresses, not verified", "email", map[string]any{"email_verified": false}, "not verified"},
		{"another claim", "preferred_username", map[string]any{"preferred_username": "ada"}, "oidc:ada"},
		{"another claim is a local user", "preferred_username", map[string]any{"preferred_username": "admin"}, "oidc:admin"},
		{"another claim is missing", "preferred_username", nil, "preferred_username"},
		{"another claim is empty", "preferred_username", map[string]any{"preferred_username": ""}, "preferred_username"},
		{"another claim is no text", "preferred_username", map[string]any{"preferred_username": true}, "preferred_username"},
		{"the subject", "sub", nil, "oidc:user-1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := p.verifier(t, now, func(c *Config) { c.NameClaim = tt.claim })
			token := p.token(t, p.claims(now, tt.changes))
			if !strings.ContainsAny(tt.want, "@:") {
				mustRefuse(t, v, token, tt.want)
				return
			}
			got, err := v.Verify(t.Context(), token)
			if err != nil || got.Name != tt.want {
				t.Fatalf("Verify = %+v, %v, want the name %q", got, err, tt.want)
			}
			checkClaims(t, got, now.Now())
		})
	}
}

// TestNamesNeverMeet checks that a person without a verified address never gets the name of one with it, or of a local user.
func TestNamesNeverMeet(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now)
	text := rapid.OneOf(rapid.SampledFrom([]string{"admin", "ada@example.org", "oidc:ada@example.org", "oidc:admin"}), rapid.StringN(1, 20, 60))
	rapid.Check(t, func(rt *rapid.T) {
		victim, sub, email := text.Draw(rt, "victim"), text.Draw(rt, "sub"), text.Draw(rt, "email")
		verified, err := v.Verify(t.Context(), p.token(t, p.claims(now, map[string]any{"email": victim, "sub": "victim"})))
		if err != nil {
			return
		}
		other, err := v.Verify(t.Context(), p.token(t, p.claims(now, map[string]any{"email": email, "sub": sub, "email_verified": false})))
		if err != nil {
			return
		}
		checkClaims(rt, other, now.Now())
		if sub != "victim" && other.Name == verified.Name || !strings.HasPrefix(other.Name, "oidc:") {
			rt.Fatalf("%q and %q are both called %q", victim, sub, other.Name)
		}
	})
}

func TestGroups(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	for name, tt := range map[string]struct {
		claim   string
		changes map[string]any
		want    int
	}{
		"as usual":          {"", nil, 2},
		"none":              {"", map[string]any{"groups": nil}, 0},
		"empty":             {"", map[string]any{"groups": []string{}}, 0},
		"another claim":     {"roles", map[string]any{"roles": []string{"a", "b", "c"}}, 3},
		"as many as may be": {"", map[string]any{"groups": strings.Split(strings.Repeat("g ", maxGroups-1)+"g", " ")}, maxGroups},
		"another case":      {"", map[string]any{"groups": nil, "Groups": []string{"a"}}, 0},
	} {
		v := p.verifier(t, now, func(c *Config) { c.GroupsClaim = tt.claim })
		got, err := v.Verify(t.Context(), p.token(t, p.claims(now, tt.changes)))
		if err != nil || len(got.Groups) != tt.want {
			t.Errorf("%s: Verify = %+v, %v, want %d groups", name, got, err, tt.want)
		}
	}
}
