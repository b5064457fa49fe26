package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/hodei-jobs/hodei/service/job"
)

// mustAccept expects that a token is good.
func mustAccept(t *testing.T, v *Verifier, token string) {
	t.Helper()
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
}

// mustFail expects that the provider is said to be away.
func mustFail(t *testing.T, v *Verifier, token, want string) {
	t.Helper()
	_, err := v.Verify(t.Context(), token)
	var e *job.Error
	if !errors.As(err, &e) || e.Code != job.CodeUnavailable || e.Reason != job.ReasonUnavailable || e.RetryAfter <= 0 {
		t.Fatalf("Verify gives %v, want that the provider is away, and when to try again", err)
	}
	if !strings.Contains(e.Message, want) || strings.Contains(e.Message, "\x1b") {
		t.Errorf("the message %q does not say %q", e.Message, want)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now)
	before := p.token(t, p.claims(now, nil))
	mustAccept(t, v, before)
	key := newEdKey(t)
	after := sign(t, p.claims(now, nil), key, header{algorithm: jose.EdDSA, id: "k2"})
	p.publish(public("k1", &p.key.PublicKey), public("k2", key.Public()))
	mustRefuse(t, v, after, "none of the provider's keys") // it was asked a moment ago
	now.advance(leastWait)
	mustAccept(t, v, after)
	mustAccept(t, v, before)
	if n := p.questions(); n != 2 {
		t.Errorf("the provider was asked %d times, want 2", n)
	}
}

func TestNewAlgorithm(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	p.describe("id_token_signing_alg_values_supported", []string{"RS256"})
	v := p.verifier(t, now)
	token := p.token(t, p.claims(now, nil))
	mustRefuse(t, v, token, `algorithm "ES256"`)
	p.describe("id_token_signing_alg_values_supported", []string{"RS256", "ES256"})
	now.advance(leastWait)
	mustAccept(t, v, token)
}

// TestSilenceMeansRS256 checks what the standard says of providers that announce no algorithm.
func TestSilenceMeansRS256(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	p.describe("id_token_signing_alg_values_supported", nil)
	p.publish(public("k1", &p.key.PublicKey), public("r1", &rsaKey().PublicKey))
	v := p.verifier(t, now)
	mustAccept(t, v, sign(t, p.claims(now, nil), rsaKey(), header{algorithm: jose.RS256, id: "r1"}))
	mustRefuse(t, v, p.token(t, p.claims(now, nil)), `algorithm "ES256"`)
}

// TestWithdrawnKey checks that a key ends when the provider no longer publishes it, though nothing asks for another one.
func TestWithdrawnKey(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now)
	token := p.token(t, p.claims(now, nil))
	mustAccept(t, v, token)
	p.publish(public("k2", &newECKey(t).PublicKey))
	now.advance(maxAge - time.Second)
	mustAccept(t, v, token)
	now.advance(time.Second)
	mustRefuse(t, v, token, "none of the provider's keys")
}

// TestQuestionsAreFew sends bad tokens all the time.
func TestQuestionsAreFew(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now)
	bad := sign(t, p.claims(now, nil), newECKey(t), header{algorithm: jose.ES256, id: "unknown"})
	const seconds = 60
	for range seconds {
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if _, err := v.Verify(t.Context(), bad); job.CodeOf(err) != job.CodeUnauthenticated {
					t.Error(err)
				}
			})
		}
		all.Wait()
		now.advance(time.Second)
	}
	if n, most := p.questions(), seconds/int(leastWait.Seconds()); n > most || n == 0 {
		t.Errorf("the provider was asked %d times in %d seconds, want at most %d", n, seconds, most)
	}
}

func TestClaimsAreNoReasonToAsk(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now)
	for range 5 {
		mustRefuse(t, v, p.token(t, p.claims(now, map[string]any{"aud": "other"})), "audience")
		now.advance(time.Minute)
	}
	if n := p.questions(); n != 1 {
		t.Errorf("the provider was asked %d times, want 1", n)
	}
}

func TestProviderAway(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	p.setAway(true)
	v := p.verifier(t, now)
	token := p.token(t, p.claims(now, nil))
	mustFail(t, v, token, "maintenance")
	p.setAway(false)
	mustFail(t, v, token, "maintenance") // nobody asks again at once
	now.advance(leastWait)
	mustAccept(t, v, token)
	mustRefuse(t, v, sign(t, p.claims(now, nil), newECKey(t), header{algorithm: jose.ES256}), "none of the provider's keys")
	p.setAway(true)
	now.advance(maxAge - time.Second)
	mustAccept(t, v, p.token(t, p.claims(now, nil))) // its keys are known
	now.advance(time.Second)
	mustFail(t, v, p.token(t, p.claims(now, nil)), "maintenance")
	p.setAway(false)
	now.advance(leastWait)
	mustAccept(t, v, p.token(t, p.claims(now, nil)))
}

func TestProvidersThatMakeNoSense(t *testing.T) {
	t.Parallel()
	many := make([]any, maxKeys+1)
	for i := range many {
		many[i] = public("k", &rsaKey().PublicKey)
	}
	for name, tt := range map[string]struct {
		change func(*provider)
		want   string
	}{
		"another issuer":     {func(p *provider) { p.describe("issuer", "https://other.example.org") }, "did not match"},
		"no keys' address":   {func(p *provider) { p.describe("jwks_uri", nil) }, "not the address"},
		"keys in plain text": {func(p *provider) { p.describe("jwks_uri", "http://keys.example.org/") }, "must begin with https://"},
		"keys in a file":     {func(p *provider) { p.describe("jwks_uri", "file:///etc/passwd") }, "not the address"},
		"keys not there":     {func(p *provider) { p.describe("jwks_uri", p.URL+"/nothing") }, "404"},
		"secrets only":       {func(p *provider) { p.describe("id_token_signing_alg_values_supported", []string{"none", "HS256"}) }, "by none of"},
		"no key":             {func(p *provider) { p.publish() }, "no key for signatures"},
		"only an odd key":    {func(p *provider) { p.publish(map[string]string{"kty": "XYZ", "kid": "k1"}) }, "no key for signatures"},
		"only a secret":      {func(p *provider) { p.publish(map[string]string{"kty": "oct", "k": "AAAA"}) }, "no key for signatures"},
		"only a key for encryption": {func(p *provider) {
			p.publish(jose.JSONWebKey{Key: &p.key.PublicKey, KeyID: "k1", Use: "enc"})
		}, "no key for signatures"},
		"only a weak key": {func(p *provider) { p.publish(map[string]string{"kty": "RSA", "kid": "k1", "n": "AQAB", "e": "AA"}) }, "no key for signatures"},
		"a private key":   {func(p *provider) { p.publish(jose.JSONWebKey{Key: p.key, KeyID: "k1"}) }, "no key for signatures"},
		"many keys":       {func(p *provider) { p.publish(many...) }, "65 keys"},
		"endless keys":    {func(p *provider) { p.publish(strings.Repeat("x", 2<<20)) }, "too long"},
		"endless text":    {func(p *provider) { p.describe("x", strings.Repeat("x", 2<<20)) }, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, now := newProvider(t), newClock()
			tt.change(p)
			mustFail(t, p.verifier(t, now), p.token(t, p.claims(now, nil)), tt.want)
		})
	}
}

// TestOddKeysAreLeftOut checks that a key that cannot be used keeps nobody from using the others.
func TestOddKeysAreLeftOut(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	p.publish(map[string]string{"kty": "XYZ"}, 7, nil, map[string]string{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, public("k1", &p.key.PublicKey))
	mustAccept(t, p.verifier(t, now), p.token(t, p.claims(now, nil)))
}

// TestGivingUp checks that one who gives up is let go, and that the question goes on for the others.
func TestGivingUp(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	arrived, goOn := make(chan struct{}), make(chan struct{})
	arrive := sync.OnceFunc(func() { close(arrived) })
	slow := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		arrive()
		<-goOn
		return new(net.Dialer).DialContext(ctx, network, address)
	}}}
	v := p.verifier(t, now, func(c *Config) { c.HTTPClient = slow })
	token := p.token(t, p.claims(now, nil))
	ctx, cancel := context.WithCancel(t.Context())
	patient, hasty := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := v.Verify(ctx, token)
		hasty <- err
	}()
	<-arrived
	go func() {
		_, err := v.Verify(t.Context(), token)
		patient <- err
	}()
	cancel()
	if err := <-hasty; !errors.Is(err, context.Canceled) {
		t.Errorf("who gave up got %v", err)
	}
	close(goOn)
	if err := <-patient; err != nil {
		t.Errorf("who was patient got %v", err)
	}
}

// FuzzKeys checks that no set of keys makes the verifier fail, or keep a key that is secret.
func FuzzKeys(f *testing.F) {
	key, err := json.Marshal(map[string]any{"keys": []any{public("r", &rsaKey().PublicKey), public("e", newEdKey(f).Public())}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(key)
	f.Add([]byte(`{"keys":[{"kty":"oct","k":"AAAA"},null,7]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err == nil && len(keys) == 0 || len(keys) > maxKeys {
			t.Fatalf("%d keys and the error %v", len(keys), err)
		}
		for i := range keys {
			if !keys[i].IsPublic() || !keys[i].Valid() {
				t.Fatalf("kept the key %+v", keys[i])
			}
		}
	})
}
