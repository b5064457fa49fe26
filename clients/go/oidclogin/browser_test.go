package oidclogin

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/oauth2"
)

// browser is what a person's does after the login: it comes back with what it was given.
type browser struct {
	t      *testing.T
	p      *provider
	change func(callback url.Values)
	pages  []string
	asked  url.Values
	done   chan struct{} // closed when open has returned
}

func newBrowser(t *testing.T, p *provider, change func(url.Values)) *browser {
	return &browser{t: t, p: p, change: change, done: make(chan struct{})}
}

// open logs in at once and comes back.
func (b *browser) open(address string) error {
	defer close(b.done)
	u, err := url.Parse(address)
	if err != nil || !strings.HasPrefix(address, testIssuer+"/auth?") {
		b.t.Errorf("opens %q", address)
		return err
	}
	b.asked = u.Query()
	callback := url.Values{"code": {"c"}, "state": {b.asked.Get("state")}}
	b.p.mu.Lock()
	if b.p.claims == nil {
		b.p.claims = map[string]any{"nonce": b.asked.Get("nonce")}
	}
	b.p.mu.Unlock()
	if b.change != nil {
		b.change(callback)
	}
	b.get(b.asked.Get("redirect_uri") + "?" + callback.Encode())
	return nil
}

func (b *browser) get(address string) *http.Response {
	response, err := http.Get(address)
	if err != nil {
		b.t.Error(err)
		return nil
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		b.t.Error(err)
	}
	b.pages = append(b.pages, string(body))
	return response
}

func TestBrowser(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	b := newBrowser(t, p, nil)
	token, err := Browser(t.Context(), p.config(), b.open)
	if err != nil || subject(t, token) != "user-1" {
		t.Fatalf("Browser = %q, %v", token, err)
	}
	<-b.done
	redirect, err := url.Parse(b.asked.Get("redirect_uri"))
	if err != nil || redirect.Scheme != "http" || redirect.Hostname() != "127.0.0.1" || redirect.Path != "/callback" {
		t.Errorf("comes back to %q", redirect)
	}
	form := p.forms[0]
	verifier := form.Get("code_verifier")
	if b.asked.Get("code_challenge_method") != "S256" || b.asked.Get("code_challenge") != oauth2.S256ChallengeFromVerifier(verifier) || len(verifier) < 43 {
		t.Errorf("the challenge %v does not go with the verifier %q", b.asked, verifier)
	}
	if b.asked.Get("response_type") != "code" || b.asked.Get("scope") != "openid email profile groups" || b.asked.Get("client_id") != clientID {
		t.Errorf("asks for %v", b.asked)
	}
	if form.Get("code") != "c" || form.Get("redirect_uri") != b.asked.Get("redirect_uri") || form.Has("client_secret") {
		t.Errorf("trades the code with %v", form)
	}
	for _, secret := range []string{"state", "nonce"} {
		if len(b.asked.Get(secret)) < 43 || b.asked.Get(secret) == verifier || b.asked.Get("state") == b.asked.Get("nonce") {
			t.Errorf("%s is %q", secret, b.asked.Get(secret))
		}
	}
	if len(b.pages) != 1 || b.pages[0] != page {
		t.Errorf("the browser shows %q", b.pages)
	}
	if _, err := http.Get(redirect.String()); err == nil {
		t.Error("the port is still open")
	}
}

// TestOnlyTheCallbackIsServed sends all sorts of requests before the browser comes back, and one more after it.
func TestOnlyTheCallbackIsServed(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	b := newBrowser(t, p, nil)
	after := make(chan int, 1)
	open := func(address string) error {
		defer close(after)
		u, _ := url.Parse(address)
		redirect, _ := url.Parse(u.Query().Get("redirect_uri"))
		for _, request := range []struct{ method, path, host string }{
			{http.MethodGet, "/", ""},
			{http.MethodGet, "/favicon.ico", ""},
			{http.MethodPost, "/callback?state=x", ""},
			{http.MethodGet, "/callback?state=x", "evil.example.org"},
			{http.MethodGet, "/callback/x?state=x", ""},
		} {
			r, err := http.NewRequestWithContext(t.Context(), request.method, "http://"+redirect.Host+request.path, http.NoBody)
			if err != nil {
				return err
			}
			r.Host = request.host
			response, err := http.DefaultClient.Do(r)
			if err != nil {
				return err
			}
			response.Body.Close()
			if response.StatusCode != http.StatusNotFound && response.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("%+v is answered with %s", request, response.Status)
			}
		}
		p.mu.Lock() // the login goes on only when the second callback was answered
		defer p.mu.Unlock()
		p.claims = map[string]any{"nonce": u.Query().Get("nonce")}
		callback := redirect.String() + "?code=c&state=" + u.Query().Get("state")
		first := b.get(callback)
		if first == nil {
			return nil
		}
		if h := first.Header; !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") || h.Get("Cache-Control") != "no-store" ||
			h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("the page comes with %v", h)
		}
		if second := b.get(callback); second != nil {
			after <- second.StatusCode
		}
		return nil
	}
	if _, err := Browser(t.Context(), p.config(), open); err != nil {
		t.Error(err)
	}
	if code := <-after; code != http.StatusGone {
		t.Errorf("a second callback is answered with %d", code)
	}
}

func TestBrowserFails(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		callback func(url.Values)
		provider func(*provider)
		is       error
		want     string
	}{
		"denied": {func(v url.Values) { v.Del("code"); v.Set("error", "access_denied") }, nil, ErrDenied, "denied by the OIDC provider"},
		"an error": {
			func(v url.Values) {
				v.Set("error", "server_error")
				v.Set("error_description", "\x1b[2J"+strings.Repeat("x", 999))
			},
			nil, nil, "refuses the login (server_error:",
		},
		"another login":        {func(v url.Values) { v.Set("state", "x") }, nil, nil, "another login (state)"},
		"another login denied": {func(v url.Values) { v.Set("state", "x"); v.Set("error", "access_denied") }, nil, nil, "another login (state)"},
		"no state":             {func(v url.Values) { v.Del("state") }, nil, nil, "another login (state)"},
		"another provider":     {func(v url.Values) { v.Set("iss", "https://evil.example.org") }, nil, nil, "came back from"},
		"no code":              {func(v url.Values) { v.Del("code") }, nil, nil, "without a code"},
		"code refused":         {nil, func(p *provider) { p.answers = []string{"invalid_grant"} }, nil, "invalid_grant"},
		"provider away":        {nil, func(p *provider) { p.answers = []string{"away"} }, nil, "502"},
		"provider gone":        {nil, func(p *provider) { p.answers = []string{"cut"} }, nil, "connection reset"},
		"another nonce":        {nil, func(p *provider) { p.claims = map[string]any{"nonce": "x"} }, nil, "another login (nonce)"},
		"no nonce":             {nil, func(p *provider) { p.claims = map[string]any{} }, nil, "another login (nonce)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t)
			if tt.provider != nil {
				tt.provider(p)
			}
			b := newBrowser(t, p, tt.callback)
			token, err := Browser(t.Context(), p.config(), b.open)
			mustFail(t, token, err, tt.is, tt.want)
		})
	}
}

func TestAddressesThatNoBrowserShouldOpen(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "file:///etc/passwd", "javascript:alert(1)", "--help", "http://login.example.org/auth"} {
		p := newProvider(t)
		p.description["authorization_endpoint"] = address
		token, err := Browser(t.Context(), p.config(), func(address string) error { t.Errorf("opens %q", address); return nil })
		mustFail(t, token, err, nil, "offers no login by a browser")
	}
}

func TestItsOwnNameIsNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	b := newBrowser(t, p, func(v url.Values) { v.Set("iss", testIssuer) })
	if _, err := Browser(t.Context(), p.config(), b.open); err != nil {
		t.Error(err)
	}
}

func TestBrowserThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	p := newProvider(t)
	token, err := Browser(t.Context(), p.config(), func(string) error { return errors.New("no display") })
	mustFail(t, token, err, nil, "cannot be opened: no display")

	ctx, cancel := context.WithCancel(t.Context())
	token, err = Browser(ctx, p.config(), func(string) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) || token != "" {
		t.Errorf("a login that was cancelled gives %q, %v", token, err)
	}

	requests, l, err := begin(t.Context(), p.config())
	if err != nil {
		t.Fatal(err)
	}
	token, err = l.browse(t.Context(), requests, func(string) error { return nil }, 0)
	mustFail(t, token, err, ErrExpired, "did not come back within")
}
