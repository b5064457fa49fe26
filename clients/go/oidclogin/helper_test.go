package oidclogin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	testIssuer = "https://login.example.org"
	clientID   = "hodei-cli"
)

// provider is one in memory, so that the time of a test can be its own. Its answers are what a test wants.
type provider struct {
	key         *ecdsa.PrivateKey
	description map[string]any
	device      map[string]any // the answer to the request for a code
	answers     []string       // what the token endpoint says, one by one: an error, "away", "lost", "cut" or, at the end, the token
	claims      map[string]any // changes to the ID token's; nil takes one away
	noToken     bool           // gives an access token only
	signer      *ecdsa.PrivateKey

	mu    sync.Mutex
	forms []url.Values // what the token endpoint was asked, and when
	times []time.Time
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &provider{
		key: key, signer: key,
		description: map[string]any{
			"issuer": testIssuer, "jwks_uri": testIssuer + "/keys", "authorization_endpoint": testIssuer + "/auth",
			"token_endpoint": testIssuer + "/token", "device_authorization_endpoint": testIssuer + "/device",
			"id_token_signing_alg_values_supported": []string{"ES256"},
		},
		device: map[string]any{
			"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": testIssuer + "/enter", "expires_in": 600, "interval": 5,
		},
	}
}

// RoundTrip answers as a provider does.
func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		defer r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	var value any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		value = p.description
	case "/keys":
		value = map[string]any{"keys": []any{jose.JSONWebKey{Key: &p.key.PublicKey, KeyID: "k1"}}}
	case "/device":
		if value = p.device; p.device["error"] != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	case "/token":
		answer, err := p.token(r)
		if err != nil {
			return nil, err
		}
		if value = answer; answer["error"] != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		if status, ok := answer["status"].(int); ok {
			w.WriteHeader(status)
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	_ = json.NewEncoder(w).Encode(value)
	return w.Result(), nil
}

func (p *provider) token(r *http.Request) (map[string]any, error) {
	_ = r.ParseForm()
	if _, _, basic := r.BasicAuth(); basic { // as a real one says to a public client
		return map[string]any{"error": "invalid_client"}, nil
	}
	p.forms, p.times = append(p.forms, r.PostForm), append(p.times, time.Now())
	if len(p.answers) > 0 {
		answer := p.answers[0]
		p.answers = p.answers[1:]
		switch answer {
		case "away":
			return map[string]any{"status": http.StatusBadGateway}, nil
		case "lost":
			return map[string]any{"status": http.StatusNotFound}, nil
		case "cut":
			return nil, errors.New("connection reset")
		default:
			return map[string]any{"error": answer, "error_description": "what\x1b[2J"}, nil
		}
	}
	sum := sha256.Sum256([]byte("access"))
	claims := map[string]any{
		"iss": testIssuer, "aud": clientID, "sub": "user-1", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		"at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]),
	}
	maps.Copy(claims, p.claims)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	answer := map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": p.sign(claims)}
	if p.noToken {
		delete(answer, "id_token")
	}
	return answer, nil
}

func (p *provider) sign(claims any) string {
	payload, _ := json.Marshal(claims) // of texts and numbers only
	key := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: p.signer, KeyID: "k1"}}
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		return err.Error()
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return err.Error()
	}
	token, _ := signed.CompactSerialize() // it has one signature
	return token
}

func (p *provider) config() Config {
	return Config{Issuer: testIssuer, ClientID: clientID, HTTPClient: &http.Client{Transport: p}}
}

// subject reads an ID token's, without checking it.
func subject(t *testing.T, token string) string {
	t.Helper()
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatalf("%q is no token: %v", token, err)
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims); err != nil {
		t.Fatal(err)
	}
	return claims.Subject
}
