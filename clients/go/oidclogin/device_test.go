package oidclogin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// inBubble runs a test with a time of its own.
func inBubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(t)
		<-time.After(time.Minute) // oauth2 does not close the answer with the code, which therefore lasts until its timeout
	})
}

// device logs in and expects to be shown a code.
func device(t *testing.T, p *provider) (string, error) {
	t.Helper()
	shown := 0
	token, err := Device(t.Context(), p.config(), func(address, code string) {
		shown++
		if address != testIssuer+"/enter" || code != "ABCD-EFGH" {
			t.Errorf("shows %q and %q", address, code)
		}
	})
	if shown != 1 {
		t.Errorf("showed the code %d times", shown)
	}
	return token, err
}

func TestDevice(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		p := newProvider(t)
		p.answers = []string{"authorization_pending", "authorization_pending", "slow_down", "authorization_pending", "away", "cut"}
		start := time.Now()
		token, err := device(t, p)
		if err != nil || subject(t, token) != "user-1" {
			t.Fatalf("Device = %q, %v", token, err)
		}
		var waits []time.Duration
		for _, at := range p.times {
			waits, start = append(waits, at.Sub(start)), at
		}
		// Five seconds; five more after slow_down; and ever more when the provider is away, from the beginning.
		want := []time.Duration{5, 5, 5, 10, 10, 10, 20}
		for i := range want {
			want[i] *= time.Second
		}
		if !slices.Equal(waits, want) {
			t.Errorf("waited %v, want %v", waits, want)
		}
		form := p.forms[0]
		if form.Get("device_code") != "d" || form.Get("client_id") != clientID || form.Has("client_secret") || form.Get("scope") != "openid email profile groups" {
			t.Errorf("asked with %v", form)
		}
	})
}

func TestDeviceFails(t *testing.T) {
	t.Parallel()
	away := slices.Repeat([]string{"cut", "away"}, 10)
	pending := slices.Repeat([]string{"authorization_pending"}, 1000)
	for name, tt := range map[string]struct {
		change func(*provider)
		is     error
		want   string
	}{
		"denied":          {func(p *provider) { p.answers = []string{"access_denied"} }, ErrDenied, "denied by the OIDC provider " + testIssuer},
		"code expired":    {func(p *provider) { p.answers = []string{"expired_token"} }, ErrExpired, "log in again"},
		"no answer":       {func(p *provider) { p.answers = pending }, ErrExpired, "the code was good until"},
		"no end":          {func(p *provider) { p.answers = pending; delete(p.device, "expires_in") }, ErrExpired, "the code was good until"},
		"refused":         {func(p *provider) { p.answers = []string{"invalid_grant"} }, nil, "refuses the login (invalid_grant: what [2J)"},
		"lost":            {func(p *provider) { p.answers = []string{"lost"} }, nil, "404"},
		"away for long":   {func(p *provider) { p.answers = away; p.device["expires_in"] = 3600 }, nil, "does not say whether the login is done"},
		"away to the end": {func(p *provider) { p.answers = away; p.device["expires_in"] = 60 }, ErrExpired, "the code was good until"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				p := newProvider(t)
				tt.change(p)
				token, err := device(t, p)
				mustFail(t, token, err, tt.is, tt.want)
			})
		})
	}
}

// mustFail expects that there is no token, and why.
func mustFail(t *testing.T, token string, err, is error, want string) {
	t.Helper()
	if err == nil || token != "" || is != nil && !errors.Is(err, is) || is == nil && (errors.Is(err, ErrDenied) || errors.Is(err, ErrExpired)) {
		t.Fatalf("got %q, %v, want the error %v", token, err, is)
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\x1b") || len(err.Error()) > 600 {
		t.Errorf("the error %q does not say %q", err, want)
	}
}

func TestDeviceThatShowsNothing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*provider)
		want   string
	}{
		"no such flow":                     {func(p *provider) { delete(p.description, "device_authorization_endpoint") }, "browser of this machine"},
		"client refused":                   {func(p *provider) { p.device = map[string]any{"error": "unauthorized_client"} }, "refuses the login (unauthorized_client)"},
		"another issuer":                   {func(p *provider) { p.description["issuer"] = "https://other.example.org" }, "did not match"},
		"endpoint in the open":             {func(p *provider) { p.description["device_authorization_endpoint"] = "http://login.example.org/d" }, "must begin with https://"},
		"no address":                       {func(p *provider) { delete(p.device, "verification_uri") }, "gives an address"},
		"a script":                         {func(p *provider) { p.device["verification_uri"] = "javascript:alert(1)" }, "gives an address"},
		"an address that moves the cursor": {func(p *provider) { p.device["verification_uri"] = testIssuer + "/\x1b[2J" }, "gives an address"},
		"an address turned round":          {func(p *provider) { p.device["verification_uri"] = testIssuer + "/\u202e" }, "gives an address"},
		"a long address":                   {func(p *provider) { p.device["verification_uri"] = testIssuer + "/" + strings.Repeat("x", 400) }, "gives an address"},
		"no code":                          {func(p *provider) { delete(p.device, "user_code") }, "nobody can enter"},
		"a code that clears the screen":    {func(p *provider) { p.device["user_code"] = "A\x1b[2J" }, "nobody can enter"},
		"a long code":                      {func(p *provider) { p.device["user_code"] = strings.Repeat("x", 301) }, "nobody can enter"},
		"no code for this device":          {func(p *provider) { delete(p.device, "device_code") }, "nobody can enter"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			tt.change(p)
			token, err := Device(t.Context(), p.config(), func(address, code string) { t.Errorf("shows %q and %q", address, code) })
			mustFail(t, token, err, nil, tt.want)
		})
	}
}

// TestTokensThatAreNotGood checks that the client hands on no token that is not for it.
func TestTokensThatAreNotGood(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*provider)
		want   string
	}{
		"none":             {func(p *provider) { p.noToken = true }, "scope openid"},
		"another issuer":   {func(p *provider) { p.claims = map[string]any{"iss": "https://other.example.org"} }, "different provider"},
		"another client":   {func(p *provider) { p.claims = map[string]any{"aud": "other"} }, "audience"},
		"expired":          {func(p *provider) { p.claims = map[string]any{"exp": 1} }, "expired"},
		"another login's":  {func(p *provider) { p.claims = map[string]any{"nonce": "x"} }, "another login"},
		"another answer's": {func(p *provider) { p.claims = map[string]any{"at_hash": "x"} }, "does not belong to its answer"},
		"another key":      {func(p *provider) { p.signer, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }, "signature"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				p := newProvider(t)
				tt.change(p)
				token, err := device(t, p)
				mustFail(t, token, err, nil, tt.want)
			})
		})
	}
}

func TestDeviceIsCancelled(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		p := newProvider(t)
		p.answers = slices.Repeat([]string{"authorization_pending"}, 1000)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-time.After(12 * time.Second)
			cancel()
		}()
		start := time.Now()
		token, err := Device(ctx, p.config(), func(string, string) {})
		if !errors.Is(err, context.Canceled) || token != "" || time.Since(start) != 12*time.Second {
			t.Errorf("Device = %q, %v after %v", token, err, time.Since(start))
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Device(ctx, p.config(), func(string, string) {}); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrExpired) {
			t.Errorf("a deadline of the caller's gives %v", err)
		}
	})
}

func TestCancelledBefore(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := newProvider(t)
	if _, err := Device(ctx, p.config(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Device gives %v", err)
	}
	if _, err := Browser(ctx, p.config(), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Browser gives %v", err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	for want, change := range map[string]func(*Config){
		"must begin with https://": func(c *Config) { c.Issuer = "http://login.example.org" },
		"address of an OIDC":       func(c *Config) { c.Issuer = "" },
		"client id is missing":     func(c *Config) { c.ClientID = "" },
		"cannot be asked":          func(c *Config) { c.HTTPClient = nil; c.Issuer = "https://127.0.0.1:1" },
	} {
		config := p.config()
		change(&config)
		token, err := Device(t.Context(), config, nil)
		mustFail(t, token, err, nil, want)
		token, err = Browser(t.Context(), config, nil)
		mustFail(t, token, err, nil, want)
	}
}
