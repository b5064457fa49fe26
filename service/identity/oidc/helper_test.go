package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const clientID = "hodei-cli"

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2031, 5, 17, 9, 30, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rsaKey is made once, because that takes time.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) //nolint:forbidigo // there is no test to fail yet
	}
	return key
})

func newECKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEdKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// provider publishes a description and keys, counts who asks, and can be away.
type provider struct {
	*httptest.Server
	key *ecdsa.PrivateKey // "k1", which signs most tokens

	mu          sync.Mutex
	away        bool
	description map[string]any
	keys        []any
	asked       int // for keys
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{key: newECKey(t)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, false) })
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, true) })
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	p.description = map[string]any{
		"issuer": p.URL, "jwks_uri": p.URL + "/keys", "authorization_endpoint": p.URL + "/auth", "token_endpoint": p.URL + "/token",
		"id_token_signing_alg_values_supported": []string{"none", "HS256", "RS256", "ES256", "EdDSA"},
	}
	p.publish(public("k1", &p.key.PublicKey))
	return p
}

func public(id string, key any) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: id, Use: "sig"}
}

func (p *provider) answer(w http.ResponseWriter, keys bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var value any = p.description
	if keys {
		p.asked++
		value = map[string]any{"keys": p.keys}
	}
	if p.away {
		http.Error(w, "<html>\x1b[2Jmaintenance", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func (p *provider) publish(keys ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

func (p *provider) describe(name string, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.description[name] = value
}

func (p *provider) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

func (p *provider) questions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// verifier makes a verifier of this provider's tokens.
func (p *provider) verifier(t testing.TB, now *clock, change ...func(*Config)) *Verifier {
	t.Helper()
	config := Config{Issuer: p.URL, ClientID: clientID, Clock: now.Now}
	for _, c := range change {
		c(&config)
	}
	v, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// claims returns those of a good token of ada's, with some changed; nil takes a claim away.
func (p *provider) claims(now *clock, changes map[string]any) map[string]any {
	c := map[string]any{
		"iss": p.URL, "aud": clientID, "sub": "user-1", "exp": now.Now().Add(time.Hour).Unix(), "iat": now.Now().Unix(),
		"email": "ada@example.org", "email_verified": true, "groups": []string{"devs", "Ops Team/EU"},
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// header are what a token says of its signature.
type header struct {
	algorithm jose.SignatureAlgorithm
	id        string // of the key
	kind      string // "typ"
	embed     bool   // the public key too
}

// sign makes a token in the compact form.
func sign(t testing.TB, claims any, key crypto.PrivateKey, h header) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	options := &jose.SignerOptions{EmbedJWK: h.embed}
	if h.kind != "" {
		options = options.WithType(jose.ContentType(h.kind))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: h.algorithm, Key: jose.JSONWebKey{Key: key, KeyID: h.id}}, options)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// token signs claims as the provider does.
func (p *provider) token(t testing.TB, claims any) string {
	t.Helper()
	return sign(t, claims, p.key, header{algorithm: jose.ES256, id: "k1"})
}
