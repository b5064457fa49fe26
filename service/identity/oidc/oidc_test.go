package oidc

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/hodei-jobs/hodei/service/job"
)

// mustRefuse expects that a token is not good, for a reason.
func mustRefuse(t *testing.T, v *Verifier, token, want string) {
	t.Helper()
	claims, err := v.Verify(t.Context(), token)
	var e *job.Error
	if !errors.As(err, &e) || e.Code != job.CodeUnauthenticated || e.Reason != job.ReasonTokenRefused {
		t.Fatalf("Verify = %+v, %v, want a refusal", claims, err)
	}
	if !strings.Contains(e.Message, want) || !strings.Contains(e.Message, "hodei login") {
		t.Errorf("the message %q does not say %q and what to do", e.Message, want)
	}
	if len(e.Message) > 600 {
		t.Errorf("the message has %d bytes", len(e.Message))
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 16 && strings.Contains(e.Message, part) {
			t.Errorf("the message %q repeats the token", e.Message)
		}
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	ed := newEdKey(t)
	p.publish(public("k1", &p.key.PublicKey), public("r1", &rsaKey().PublicKey), public("e1", ed.Public()))
	want := Claims{Subject: "user-1", Name: "ada@example.org", Groups: []string{"devs", "Ops Team/EU"}, Expires: now.Now().Add(time.Hour)}
	good := p.claims(now, nil)
	for name, token := range map[string]string{
		"ES256":                p.token(t, good),
		"RS256":                sign(t, good, rsaKey(), header{algorithm: jose.RS256, id: "r1"}),
		"EdDSA":                sign(t, good, ed, header{algorithm: jose.EdDSA, id: "e1"}),
		"no key id":            sign(t, good, p.key, header{algorithm: jose.ES256}),
		"typ":                  sign(t, good, p.key, header{algorithm: jose.ES256, id: "k1", kind: "JWT"}),
		"several audiences":    p.token(t, p.claims(now, map[string]any{"aud": []string{"api", clientID}, "azp": clientID})),
		"verified as a text":   p.token(t, p.claims(now, map[string]any{"email_verified": "true"})),
		"a fraction":           p.token(t, p.claims(now, map[string]any{"iat": float64(now.Now().Unix()) + 0.5})),
		"issued a bit ahead":   p.token(t, p.claims(now, map[string]any{"iat": now.Now().Add(4 * time.Minute).Unix()})),
		"good since a bit ago": p.token(t, p.claims(now, map[string]any{"nbf": now.Now().Add(-time.Minute).Unix()})),
	} {
		got, err := p.verifier(t, now).Verify(t.Context(), token)
		if err != nil || got.Subject != want.Subject || got.Name != want.Name || !slices.Equal(got.Groups, want.Groups) || !got.Expires.Equal(want.Expires) {
			t.Errorf("%s: Verify = %+v, %v, want %+v", name, got, err, want)
		}
	}
}

func TestVerifyRefusesClaims(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now)
	at := func(d time.Duration) int64 { return now.Now().Add(d).Unix() }
	tests := []struct {
		name    string
		changes map[string]any
		want    string
	}{
		{"another issuer", map[string]any{"iss": "https://evil.example.org"}, "issued by a different provider"},
		{"no issuer", map[string]any{"iss": nil}, "issued by a different provider"},
		{"another audience", map[string]any{"aud": "other"}, "expected audience"},
		{"no audience", map[string]any{"aud": nil}, "expected audience"},
		{"other audiences", map[string]any{"aud": []string{"a", "b"}, "azp": clientID}, "expected audience"},
		{"several audiences, no azp", map[string]any{"aud": []string{clientID, "b"}}, "azp"},
		{"several audiences, another azp", map[string]any{"aud": []string{clientID, "b"}, "azp": "b"}, "azp"},
		{"one audience, another azp", map[string]any{"azp": "b"}, "azp"},
		{"azp is no text", map[string]any{"azp": 7}, "azp"},
		{"expired", map[string]any{"exp": at(-time.Second)}, "expired at 2031-05-17T09:29:59Z"},
		{"no exp", map[string]any{"exp": nil}, "exp"},
		{"exp is a text", map[string]any{"exp": "soon"}, "claims"},
		{"exp is a number in a text", map[string]any{"exp": "1936777777"}, "(exp)"},
		{"exp in milliseconds", map[string]any{"exp": now.Now().Add(time.Hour).UnixMilli()}, "would be good for more"},
		{"exp far away", map[string]any{"exp": at(32 * 24 * time.Hour)}, "would be good for more"},
		{"exp beyond all time", map[string]any{"exp": json.Number("9223372036854775808")}, "exp"},
		{"exp without end", map[string]any{"exp": json.Number("1e300")}, "exp"},
		{"exp before all time", map[string]any{"exp": json.Number("-1e300")}, "exp"},
		{"issued in the future", map[string]any{"iat": at(6 * time.Minute)}, "issued in the future"},
		{"no iat", map[string]any{"iat": nil}, "(iat)"},
		{"not yet good", map[string]any{"nbf": at(6 * time.Minute)}, "nbf"},
		{"no sub", map[string]any{"sub": nil}, "sub"},
		{"sub in another case", map[string]any{"sub": nil, "SUB": "user-1"}, "sub"},
		{"empty sub", map[string]any{"sub": ""}, "sub"},
		{"long sub", map[string]any{"sub": strings.Repeat("x", 256)}, "sub"},
		{"sub is no text", map[string]any{"sub": 7}, "claims"},
		{"groups are a text", map[string]any{"groups": "devs"}, `"groups" is not a list`},
		{"groups are an object", map[string]any{"groups": map[string]any{"devs": true}}, `"groups" is not a list`},
		{"groups are numbers", map[string]any{"groups": []int{1}}, `"groups" is not a list`},
		{"a group is null", map[string]any{"groups": []any{"devs", nil}}, "printable"},
		{"a group is empty", map[string]any{"groups": []any{""}}, "printable"},
		{"a group has a control character", map[string]any{"groups": []any{"a\x00b"}}, "printable"},
		{"a long group", map[string]any{"groups": []any{strings.Repeat("x", 261)}}, "printable"},
		{"many groups", map[string]any{"groups": slices.Repeat([]string{"g"}, 257)}, "257 groups"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mustRefuse(t, v, p.token(t, p.claims(now, tt.changes)), tt.want)
		})
	}
	t.Run("exp in two cases", func(t *testing.T) {
		t.Parallel()
		expired, err := json.Marshal(p.claims(now, map[string]any{"exp": at(-time.Hour)}))
		if err != nil {
			t.Fatal(err)
		}
		expired = fmt.Appendf(bytes.TrimSuffix(expired, []byte("}")), `,"EXP":%d}`, at(time.Hour))
		mustRefuse(t, v, p.token(t, json.RawMessage(expired)), "has expired")
	})
	t.Run("no object", func(t *testing.T) {
		t.Parallel()
		mustRefuse(t, v, p.token(t, []string{"x"}), "claims")
	})
}

func TestVerifyRefusesSignatures(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	p.publish(public("k1", &p.key.PublicKey), public("r1", &rsaKey().PublicKey),
		map[string]string{"kty": "oct", "kid": "secret", "k": base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))})
	v := p.verifier(t, now)
	good := p.claims(now, nil)
	der, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	other := newECKey(t)
	token := p.token(t, good)
	parts := strings.Split(token, ".")
	evil := base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"admin"}`))
	none := func(algorithm string) string {
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"`+algorithm+`"}`)) + "." + parts[1] + "."
	}
	unsigned, err := json.Marshal(map[string]any{"payload": parts[1], "protected": parts[0], "signature": parts[2], "header": map[string]any{"a": 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, token, want string }{
		{"nothing", "", "no JWT"},
		{"Bearer nothing", "Bearer nothing", "no JWT"},
		{"only dots", "..", "malformed"},
		{"many dots", strings.Repeat(".", maxTokenBytes), "no JWT"},
		{"huge", strings.Repeat("x", maxTokenBytes+1), "16385 bytes and may have 16384"},
		{"in JSON", string(unsigned), "no JWT"},
		{"alg none", none("none"), `algorithm "none"`},
		{"alg None", none("None"), `algorithm "None"`},
		{"a long alg", none(strings.Repeat("x", 9000)), "malformed"},
		{"HS256 with the public key", sign(t, good, pemKey, header{algorithm: jose.HS256, id: "r1"}), `algorithm "HS256"`},
		{"HS256 with a published secret", sign(t, good, bytes.Repeat([]byte{7}, 32), header{algorithm: jose.HS256, id: "secret"}), `algorithm "HS256"`},
		{"an algorithm not announced", sign(t, good, rsaKey(), header{algorithm: jose.PS512, id: "r1"}), `algorithm "PS512"`},
		{"another key", sign(t, good, other, header{algorithm: jose.ES256, id: "k1"}), "none of the provider's keys"},
		{"another key without id", sign(t, good, other, header{algorithm: jose.ES256}), "none of the provider's keys"},
		{"a key of its own", sign(t, good, other, header{algorithm: jose.ES256, embed: true}), "none of the provider's keys"},
		{"unknown key id", sign(t, good, p.key, header{algorithm: jose.ES256, id: "../../k1"}), "none of the provider's keys"},
		{"long key id", sign(t, good, p.key, header{algorithm: jose.ES256, id: strings.Repeat("k", 9000)}), "none of the provider's keys"},
		{"key of another kind", sign(t, good, p.key, header{algorithm: jose.ES256, id: "r1"}), "none of the provider's keys"},
		{"changed claims", parts[0] + "." + evil + "." + parts[2], "none of the provider's keys"},
		{"no signature", parts[0] + "." + parts[1] + ".", "none of the provider's keys"},
		{"cut signature", token[:len(token)-2], "none of the provider's keys"},
		{"an access token", sign(t, good, p.key, header{algorithm: jose.ES256, id: "k1", kind: "at+jwt"}), "another purpose"},
		{"word of a logout", sign(t, good, p.key, header{algorithm: jose.ES256, id: "k1", kind: "logout+jwt"}), "another purpose"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mustRefuse(t, v, tt.token, tt.want)
		})
	}
}

// TestTamperedToken changes every character of a token.
func TestTamperedToken(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now)
	good := p.token(t, p.claims(now, nil))
	for i := range len(good) {
		bad := []byte(good)
		if bad[i] ^= 1; bad[i] == '.' || good[i] == '.' {
			continue
		}
		if i == len(good)-1 || good[i+1] == '.' { // the last character of a part holds bits that mean nothing
			continue
		}
		if claims, err := v.Verify(t.Context(), string(bad)); job.CodeOf(err) != job.CodeUnauthenticated {
			t.Fatalf("with character %d changed, Verify = %+v, %v", i, claims, err)
		}
	}
}

func TestAudienceOfItsOwn(t *testing.T) {
	t.Parallel()
	p, now := newProvider(t), newClock()
	v := p.verifier(t, now, func(c *Config) { c.Audience = "hodei-server" })
	if _, err := v.Verify(t.Context(), p.token(t, p.claims(now, map[string]any{"aud": "hodei-server", "azp": clientID}))); err != nil {
		t.Error(err)
	}
	mustRefuse(t, v, p.token(t, p.claims(now, map[string]any{"aud": "hodei-server"})), "azp")
	mustRefuse(t, v, p.token(t, p.claims(now, map[string]any{"aud": "hodei-server", "azp": "other"})), "azp")
	mustRefuse(t, v, p.token(t, p.claims(now, nil)), "expected audience")
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := Config{Issuer: "https://login.example.org", ClientID: clientID}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"address of an OIDC provider": func(c *Config) { c.Issuer = "login.example.org" },
		"must begin with https://":    func(c *Config) { c.Issuer = "http://login.example.org" },
		"client id is missing":        func(c *Config) { c.ClientID = "" },
	} {
		bad := good
		change(&bad)
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v) = %v, want %q", bad, err, want)
		}
	}
}

// FuzzVerify checks that no text makes the verifier fail, or accept what the provider has not signed.
func FuzzVerify(f *testing.F) {
	p, now := newProvider(f), newClock()
	v := p.verifier(f, now)
	good := p.token(f, p.claims(now, nil))
	payload := strings.Split(good, ".")[1]
	for _, seed := range []string{"", "..", good, good + ".", "eyJhbGciOiJub25lIn0." + payload + ".", `{"payload":"","signatures":[]}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := v.Verify(t.Context(), token)
		if err == nil && !strings.HasPrefix(token, good[:strings.LastIndex(good, ".")]) {
			t.Fatalf("%q was accepted as %+v", token, claims)
		}
		if err != nil && job.CodeOf(err) != job.CodeUnauthenticated {
			t.Fatalf("%q gives %v", token, err)
		}
	})
}

// FuzzClaims checks that whatever claims a provider signs, names and groups are fit to be used.
func FuzzClaims(f *testing.F) {
	p, now := newProvider(f), newClock()
	v := p.verifier(f, now)
	for _, seed := range []string{`{}`, `{"sub":"a/b"}`, `{"email":"a:b@c"}`, `{"groups":["\u202e"]}`, `{"email":"x@y","email_verified":1}`, `{"sub":"\ud800"}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, changes string) {
		all := p.claims(now, nil)
		var changed map[string]any
		if json.Unmarshal([]byte(changes), &changed) != nil {
			return
		}
		maps.Copy(all, changed)
		claims, err := v.Verify(t.Context(), p.token(t, all))
		if err != nil {
			if job.CodeOf(err) != job.CodeUnauthenticated {
				t.Fatal(err)
			}
			return
		}
		checkClaims(t, claims, now.Now())
	})
}
