package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hodei-jobs/hodei/service/job"
)

// tokenClock is a clock that tests set.
type tokenClock struct{ at time.Time }

func (c *tokenClock) now() time.Time { return c.at }

func newTokenClock() *tokenClock { return &tokenClock{time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)} }

func openTokens(t testing.TB, dir string, clock *tokenClock) *AccessTokens {
	t.Helper()
	tokens, err := OpenAccessTokens(dir, clock.now)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

var (
	ada     = Principal{Kind: User, Name: "ada", Groups: []string{"devs"}, Login: "lgn_1", Token: "tok_1"}
	boundTo = Fingerprint{1}
)

func issueToken(t testing.TB, tokens *AccessTokens, p Principal, binding Fingerprint) string {
	t.Helper()
	token, _, err := tokens.Issue(p, binding, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestAccessTokens(t *testing.T) {
	t.Parallel()
	clock, dir := newTokenClock(), t.TempDir()
	tokens := openTokens(t, dir, clock)
	token, expires, err := tokens.Issue(ada, boundTo, time.Time{})
	if err != nil || !expires.Equal(clock.at.Add(15*time.Minute)) {
		t.Fatalf("%v until %v", err, expires)
	}
	for range 2 { // the second time it is remembered
		p, until, err := tokens.Verify(token, boundTo)
		if err != nil || !reflect.DeepEqual(p, ada) || !until.Equal(expires) {
			t.Fatalf("%v until %v: %v", p, until, err)
		}
	}
	// A later life of the server knows it too.
	if p, _, err := openTokens(t, dir, clock).Verify(token, boundTo); err != nil || p.Name != "ada" {
		t.Errorf("after a restart: %v, %v", p, err)
	}
	info, err := os.Stat(filepath.Join(dir, "token-keys.pem"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the keys: %v, %v", info.Mode(), err)
	}
	if _, until, err := tokens.Issue(ada, boundTo, clock.at.Add(time.Minute)); err != nil || !until.Equal(clock.at.Add(time.Minute)) {
		t.Errorf("a certificate that ends in a minute: until %v, %v", until, err)
	}
}

func TestTokenIsBoundToItsCertificate(t *testing.T) {
	t.Parallel()
	tokens := openTokens(t, t.TempDir(), newTokenClock())
	bound, free := issueToken(t, tokens, ada, boundTo), issueToken(t, tokens, ada, Fingerprint{})
	for name, c := range map[string]struct {
		token     string
		presented Fingerprint
		ok        bool
	}{
		"its certificate": {bound, boundTo, true}, "another": {bound, Fingerprint{2}, false}, "none": {bound, Fingerprint{}, false},
		"unbound, none": {free, Fingerprint{}, true}, "unbound, any": {free, Fingerprint{2}, true},
	} {
		for range 2 {
			if _, _, err := tokens.Verify(c.token, c.presented); (err == nil) != c.ok || err != nil && job.CodeOf(err) != job.CodeUnauthenticated {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// An agent's token is of no use without its certificate.
	if _, _, err := tokens.Verify(issueToken(t, tokens, Principal{Kind: Agent, Worker: "wkr_1"}, Fingerprint{}), Fingerprint{}); err == nil {
		t.Error("an agent's token that is bound to nothing was taken")
	}
}

func TestTokenEnds(t *testing.T) {
	t.Parallel()
	clock := newTokenClock()
	tokens := openTokens(t, t.TempDir(), clock)
	known, unknown := issueToken(t, tokens, ada, boundTo), issueToken(t, tokens, Principal{Kind: User, Name: "bob"}, boundTo)
	clock.at = clock.at.Add(AccessTokenLife + ClockSkew - time.Second)
	if _, _, err := tokens.Verify(known, boundTo); err != nil {
		t.Errorf("within the skew: %v", err)
	}
	clock.at = clock.at.Add(time.Second)
	for name, token := range map[string]string{"remembered": known, "seen for the first time": unknown} {
		if _, _, err := tokens.Verify(token, boundTo); job.CodeOf(err) != job.CodeUnauthenticated || !strings.Contains(err.Error(), "expired") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// forge signs claims as somebody else would.
func forge(t *testing.T, method jwt.SigningMethod, key any, header map[string]any, c map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims(c))
	for name, value := range header {
		token.Header[name] = value
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestForgedTokensAreRefused(t *testing.T) {
	t.Parallel()
	clock := newTokenClock()
	tokens := openTokens(t, t.TempDir(), clock)
	own := tokens.keys[0]
	claims := func(change func(map[string]any)) map[string]any {
		c := map[string]any{
			"iss": "hodei", "aud": []string{"hodei"}, "sub": "user/ada", "iat": clock.at.Unix(), "exp": clock.at.Add(time.Minute).Unix(),
		}
		change(c)
		return c
	}
	same := func(map[string]any) {}
	kid := map[string]any{"kid": own.id}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(own.public())
	if err != nil {
		t.Fatal(err)
	}
	ed, hs := jwt.SigningMethodEdDSA, jwt.SigningMethodHS256
	good := forge(t, ed, own.private, kid, claims(same))
	if _, _, err := tokens.Verify(good, Fingerprint{}); err != nil {
		t.Fatalf("the token that the others are made of: %v", err)
	}
	parts := strings.Split(good, ".")
	with := func(name string, value any) map[string]any { return claims(func(c map[string]any) { c[name] = value }) }
	without := func(name string) map[string]any { return claims(func(c map[string]any) { delete(c, name) }) }
	b64 := base64.RawURLEncoding.EncodeToString
	for name, token := range map[string]string{
		"empty": "", "nothing": "nothing", "dots": "..", "a million dots": strings.Repeat(".", 1<<20), "many dots": strings.Repeat(".", 8000),
		"huge": good + strings.Repeat("a", 1<<20), "cut": good[:len(good)-1], "no signature": parts[0] + "." + parts[1] + ".",
		"two parts": parts[0] + "." + parts[1], "four parts": good + "." + parts[2],
		"alg none":              forge(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, kid, claims(same)),
		"alg None":              b64([]byte(`{"alg":"None","kid":"`+own.id+`"}`)) + "." + parts[1] + ".",
		"HS256 with public key": forge(t, hs, []byte(own.public()), kid, claims(same)),
		"HS256 with its DER":    forge(t, hs, publicDER, kid, claims(same)),
		"another key":           forge(t, ed, stranger, kid, claims(same)), "another key and kid": forge(t, ed, stranger, map[string]any{"kid": "x"}, claims(same)),
		"no kid": forge(t, ed, own.private, map[string]any{}, claims(same)), "path as kid": forge(t, ed, own.private, map[string]any{"kid": "../../token-keys.pem"}, claims(same)),
		"number as kid": forge(t, ed, own.private, map[string]any{"kid": 1}, claims(same)),
		"huge kid":      forge(t, ed, own.private, map[string]any{"kid": strings.Repeat("k", 1<<20)}, claims(same)),
		"no exp":        forge(t, ed, own.private, kid, without("exp")), "exp null": forge(t, ed, own.private, kid, with("exp", nil)),
		"exp as text": forge(t, ed, own.private, kid, with("exp", "tomorrow")), "expired": forge(t, ed, own.private, kid, with("exp", clock.at.Add(-time.Hour).Unix())),
		"no audience": forge(t, ed, own.private, kid, without("aud")), "another audience": forge(t, ed, own.private, kid, with("aud", "other")),
		"no issuer": forge(t, ed, own.private, kid, without("iss")), "another issuer": forge(t, ed, own.private, kid, with("iss", "other")),
		"from the future": forge(t, ed, own.private, kid, with("iat", clock.at.Add(time.Hour).Unix())),
		"not before":      forge(t, ed, own.private, kid, with("nbf", clock.at.Add(time.Hour).Unix())),
		"no subject":      forge(t, ed, own.private, kid, without("sub")), "nobody": forge(t, ed, own.private, kid, with("sub", "user/")),
		"of no kind": forge(t, ed, own.private, kid, with("sub", "root/ada")), "two names": forge(t, ed, own.private, kid, with("sub", "user/ada/bob")),
		"payload of another": parts[0] + "." + b64([]byte(`{"iss":"hodei","aud":"hodei","sub":"user/admin","exp":9999999999}`)) + "." + parts[2],
	} {
		for range 2 {
			_, _, err := tokens.Verify(token, Fingerprint{})
			if job.CodeOf(err) != job.CodeUnauthenticated {
				t.Errorf("%s: %v", name, err)
			} else if len(err.Error()) > 300 || len(token) > 20 && strings.Contains(err.Error(), token[:20]) {
				t.Errorf("%s: the error repeats the token", name)
			}
		}
	}
	// Milliseconds as exp, and the largest number, are far in the future and still no longer good than any other: they are not this server's.
	if len(tokens.verified) != 1 {
		t.Errorf("%d tokens are remembered, and one is good", len(tokens.verified))
	}
}

func TestKeysOfTokensRotate(t *testing.T) {
	t.Parallel()
	clock, dir := newTokenClock(), t.TempDir()
	tokens := openTokens(t, dir, clock)
	first := tokens.keys[0].id
	clock.at = clock.at.Add(signingKeyLife - time.Minute)
	old := issueToken(t, tokens, ada, boundTo)
	clock.at = clock.at.Add(2 * time.Minute)
	fresh := issueToken(t, tokens, ada, boundTo)
	if n := len(tokens.keys); n != 2 || tokens.keys[1].id == first {
		t.Fatalf("%d keys", n)
	}
	for _, tokens := range []*AccessTokens{tokens, openTokens(t, dir, clock)} {
		for name, token := range map[string]string{"old": old, "fresh": fresh} {
			if _, _, err := tokens.Verify(token, boundTo); err != nil {
				t.Errorf("the %s one: %v", name, err)
			}
		}
		var set struct{ Keys []map[string]string }
		if err := json.Unmarshal(tokens.KeySet(), &set); err != nil || len(set.Keys) != 2 || set.Keys[0]["kid"] != first || set.Keys[0]["alg"] != "EdDSA" {
			t.Errorf("%s: %v", tokens.KeySet(), err)
		}
	}
	clock.at = clock.at.Add(signingKeyLife)
	issueToken(t, tokens, ada, boundTo)
	if len(tokens.keys) != 2 || tokens.keys[0].id == first {
		t.Error("the first key is still there")
	}
}

func TestDamagedTokenKeys(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"empty": "", "text": "keys", "another block": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "token-keys.pem"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenAccessTokens(dir, time.Now); err == nil || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRememberedTokensAreBounded(t *testing.T) {
	t.Parallel()
	clock := newTokenClock()
	tokens := openTokens(t, t.TempDir(), clock)
	token := issueToken(t, tokens, ada, boundTo)
	for i := range rememberTokens {
		tokens.verified[strings.Repeat("x", i)] = &claims{RegisteredClaims: jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(clock.at)}}
	}
	if _, _, err := tokens.Verify(token, boundTo); err != nil || len(tokens.verified) > rememberTokens {
		t.Errorf("%d are remembered: %v", len(tokens.verified), err)
	}
}

func FuzzVerify(f *testing.F) {
	tokens := openTokens(f, f.TempDir(), newTokenClock())
	good := issueToken(f, tokens, ada, boundTo)
	for _, seed := range []string{"", good, good[1:], strings.ReplaceAll(good, ".", ".."), "eyJhbGciOiJub25lIn0.e30."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if _, _, err := tokens.Verify(token, boundTo); err == nil && token != good {
			t.Errorf("%q was taken", token)
		}
	})
}

func BenchmarkVerifyRemembered(b *testing.B) {
	tokens := openTokens(b, b.TempDir(), newTokenClock())
	token := issueToken(b, tokens, ada, boundTo)
	for b.Loop() {
		if _, _, err := tokens.Verify(token, boundTo); err != nil {
			b.Fatal(err)
		}
	}
}
