package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

// keptCredentials are credentials on a store in memory, with a clock that tests set.
type keptCredentials struct {
	*Credentials
	db        *memstore.Store
	authority *Authority
	clock     *tokenClock
	changes   int
}

func openKept(t *testing.T) *keptCredentials {
	t.Helper()
	k := &keptCredentials{db: memstore.New(), clock: &tokenClock{time.Now()}}
	var err error
	if k.authority, err = OpenAuthority(t.TempDir(), AuthorityConfig{Now: k.clock.now}); err != nil {
		t.Fatal(err)
	}
	k.reopen(t)
	return k
}

// reopen is a later life of the server.
func (k *keptCredentials) reopen(t *testing.T) {
	t.Helper()
	var err error
	k.Credentials, err = OpenCredentials(t.Context(), k.db, k.authority, k.clock.now, func() { k.changes++ }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
}

func csr(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// holder is whom a certificate names.
func holder(t *testing.T, issued LoginCertificate) (Principal, *x509.Certificate) {
	t.Helper()
	c, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	p, err := PrincipalOf(c)
	if err != nil {
		t.Fatal(err)
	}
	return p, c
}

func TestAPITokens(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	bounds := []access.Bound{{Role: "viewer", Namespace: "a"}}
	token, secret, err := k.CreateAPIToken(t.Context(), APIToken{User: "ci", Bounds: bounds, CreatedBy: "user/ada"}, time.Hour)
	if err != nil || !strings.HasPrefix(secret, "hodei_") || APITokenID(secret) != token.ID {
		t.Fatalf("%v, %q: %v", token, secret, err)
	}
	// The secret is not in the store.
	records, err := k.db.ListRecords(t.Context(), apiTokenRecord)
	if err != nil || len(records) != 1 || strings.Contains(string(records[0].Value), secret[len(secret)-20:]) {
		t.Fatalf("%d records, %v", len(records), err)
	}
	k.reopen(t)
	p, got, err := k.RedeemAPIToken(secret)
	if err != nil || p.Name != "ci" || p.Token != token.ID || got.Bounds[0] != bounds[0] {
		t.Fatalf("%v, %v: %v", p, got, err)
	}
	other, _, err := k.CreateAPIToken(t.Context(), APIToken{User: "ci"}, 0)
	if err != nil || !other.Expires.Equal(k.clock.at.Add(defaultAPITokenTTL).UTC()) {
		t.Fatalf("%v: %v", other, err)
	}
	for name, wrong := range map[string]string{
		"empty": "", "without prefix": strings.TrimPrefix(secret, "hodei_"), "cut": secret[:len(secret)-1], "longer": secret + "A",
		"id of another": "hodei_" + strings.TrimPrefix(other.ID, "tok_") + secret[strings.LastIndex(secret, "_"):], "id alone": "hodei_" + strings.TrimPrefix(token.ID, "tok_"),
		"upper case": strings.ToUpper(secret), "an agent's": "hat_" + secret, "huge": "hodei_" + strings.Repeat("a", 1<<20) + "_",
	} {
		if _, _, err := k.RedeemAPIToken(wrong); job.CodeOf(err) != job.CodeUnauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		user string
		ttl  time.Duration
	}{"no user": {"", 0}, "a slash": {"a/b", 0}, "too long": {"ada", maxAPITokenTTL + 1}, "negative": {"ada", -1}} {
		if _, _, err := k.CreateAPIToken(t.Context(), APIToken{User: c.user}, c.ttl); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	k.clock.at = k.clock.at.Add(time.Hour - time.Nanosecond)
	if _, _, err := k.RedeemAPIToken(secret); err != nil {
		t.Errorf("at its end: %v", err)
	}
	k.clock.at = k.clock.at.Add(time.Nanosecond)
	if _, _, err := k.RedeemAPIToken(secret); job.CodeOf(err) != job.CodeUnauthenticated {
		t.Errorf("after its end: %v", err)
	}
}

// What was got with a token ends with it.
func TestRevokedTokenTakesItsLoginsAlong(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	token, secret, err := k.CreateAPIToken(t.Context(), APIToken{User: "ada"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := k.RedeemAPIToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := k.BeginLogin(t.Context(), p, csr(t))
	if err != nil || !issued.Login.Expires.Equal(token.Expires) {
		t.Fatalf("%v: %v", issued.Login, err)
	}
	who, certificate := holder(t, issued)
	if who.Login != issued.Login.ID || certificate.NotAfter.After(token.Expires.Add(time.Second)) {
		t.Fatalf("%v until %v", who, certificate.NotAfter)
	}
	if err := k.Check(&who, FingerprintOf(certificate)); err != nil {
		t.Fatal(err)
	}
	if err := k.RevokeAPIToken(t.Context(), token.ID); err != nil || k.changes != 1 {
		t.Fatalf("%d changes: %v", k.changes, err)
	}
	for _, p := range []Principal{p, who} {
		if err := k.Check(&p, Fingerprint{}); job.CodeOf(err) != job.CodeUnauthenticated {
			t.Errorf("%v: %v", p, err)
		}
	}
	if _, err := k.Renew(&who, csr(t)); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("renewed: %v", err)
	}
	if err := k.RevokeAPIToken(t.Context(), token.ID); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("revoked twice: %v", err)
	}
}

func TestLoginsRenewUntilTheyEnd(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	issued, err := k.BeginLogin(t.Context(), Principal{Kind: User, Name: "ada@example.com", Groups: []string{"devs"}}, csr(t))
	if err != nil {
		t.Fatal(err)
	}
	who, _ := holder(t, issued)
	if who.Name != "ada@example.com" || len(who.Groups) != 1 || who.Groups[0] != "devs" {
		t.Fatalf("the certificate is for %v", who)
	}
	k.clock.at = k.clock.at.Add(oidcLoginLife / 2)
	fresh, err := k.Renew(&who, csr(t))
	if err != nil {
		t.Fatal(err)
	}
	if who, certificate := holder(t, fresh); who.Login != issued.Login.ID || certificate.NotAfter.After(issued.Login.Expires.Add(time.Second)) {
		t.Errorf("%v until %v", who, certificate.NotAfter)
	}
	thief := who
	thief.Name = "eve"
	if _, err := k.Renew(&thief, csr(t)); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("somebody else's login was renewed: %v", err)
	}
	k.reopen(t)
	if err := k.Check(&who, Fingerprint{}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	k.clock.at = k.clock.at.Add(oidcLoginLife / 2)
	if err := k.Check(&who, Fingerprint{}); job.CodeOf(err) != job.CodeUnauthenticated {
		t.Errorf("after its end: %v", err)
	}
	if err := k.tidy(t.Context()); err != nil || len(k.Logins()) != 0 {
		t.Errorf("%d logins are kept: %v", len(k.Logins()), err)
	}
}

func TestLogout(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	issued, err := k.BeginLogin(t.Context(), Principal{Kind: User, Name: "ada"}, csr(t))
	if err != nil {
		t.Fatal(err)
	}
	who, _ := holder(t, issued)
	if err := k.EndLogin(t.Context(), who.Login); err != nil || k.Check(&who, Fingerprint{}) == nil || k.changes != 1 {
		t.Errorf("%v, %d changes", err, k.changes)
	}
	if err := k.EndLogin(t.Context(), who.Login); job.CodeOf(err) != job.CodeNotFound {
		t.Error(err)
	}
}

func TestRequestsForLogins(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	request, secret, err := k.RequestLogin("ada", "192.0.2.1", csr(t))
	if err != nil || len(request.Code) != 9 {
		t.Fatalf("%v: %v", request, err)
	}
	if issued, denied, err := k.CollectLogin(secret); issued != nil || denied || err != nil {
		t.Fatalf("before a decision: %v %t %v", issued, denied, err)
	}
	if _, _, err := k.CollectLogin("x" + secret); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("another secret: %v", err)
	}
	if _, err := k.ApproveLogin(t.Context(), "AAAA-AAAA", "user/admin", 0); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("another code: %v", err)
	}
	if _, err := k.ApproveLogin(t.Context(), request.Code, "user/admin", maxLoginTTL+1); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("too long: %v", err)
	}
	l, err := k.ApproveLogin(t.Context(), strings.ToLower(request.Code), "user/admin", time.Hour)
	if err != nil || l.User != "ada" || !strings.Contains(l.By, "user/admin") || !l.Expires.Equal(k.clock.at.Add(time.Hour).UTC()) {
		t.Fatalf("%v: %v", l, err)
	}
	if len(k.LoginRequests()) != 0 {
		t.Error("an approved request still waits")
	}
	issued, _, err := k.CollectLogin(secret)
	if err != nil || issued == nil {
		t.Fatal(err)
	}
	if who, _ := holder(t, *issued); who.Login != l.ID || k.Check(&who, Fingerprint{}) != nil {
		t.Errorf("the certificate is for %v", who)
	}
	if _, _, err := k.CollectLogin(secret); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("collected twice: %v", err)
	}

	request, secret, err = k.RequestLogin("eve", "192.0.2.1", csr(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.DenyLogin(request.Code); err != nil {
		t.Fatal(err)
	}
	if _, err := k.ApproveLogin(t.Context(), request.Code, "user/admin", 0); job.CodeOf(err) != job.CodeNotFound {
		t.Errorf("a denied one was approved: %v", err)
	}
	if issued, denied, err := k.CollectLogin(secret); issued != nil || !denied || err != nil {
		t.Errorf("after the denial: %v %t %v", issued, denied, err)
	}
}

func TestRequestsForLoginsAreBounded(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	same := csr(t)
	if _, _, err := k.RequestLogin("ada", "192.0.2.9", same); err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.RequestLogin("eve", "192.0.2.8", same); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("the same key again: %v", err)
	}
	for range maxFromAddress {
		if _, _, err := k.RequestLogin("ada", "192.0.2.1", csr(t)); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := k.RequestLogin("ada", "192.0.2.1", csr(t)); job.CodeOf(err) != job.CodeExhausted {
		t.Errorf("one more: %v", err)
	}
	for name, c := range map[string]struct {
		user string
		csr  []byte
	}{"no name": {"", csr(t)}, "no request": {"ada", nil}, "nonsense": {"ada", []byte("nonsense")}} {
		if _, _, err := k.RequestLogin(c.user, "192.0.2.2", c.csr); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	k.clock.at = k.clock.at.Add(loginRequestLife)
	if n := len(k.LoginRequests()); n != 0 {
		t.Errorf("%d requests are kept", n)
	}
	if _, _, err := k.RequestLogin("ada", "192.0.2.1", csr(t)); err != nil {
		t.Errorf("after they have expired: %v", err)
	}
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	print := Fingerprint{1, 2, 3}
	who := Principal{Kind: User, Name: "ada", Login: "", Token: ""}
	agent := Principal{Kind: Agent, Worker: "wkr_1"}
	for _, c := range []struct {
		subject     string
		p           Principal
		certificate Fingerprint
	}{
		{"user/ada", who, Fingerprint{}}, {"agent/wkr_1", agent, print}, {CertificateSubject(print), Principal{Kind: User, Name: "bob"}, print},
	} {
		if err := k.Check(&c.p, c.certificate); err != nil {
			t.Fatalf("%s before: %v", c.subject, err)
		}
		if _, err := k.Revoke(t.Context(), c.subject, "lost", "user/admin"); err != nil {
			t.Fatal(err)
		}
		k.reopen(t)
		if err := k.Check(&c.p, c.certificate); job.CodeOf(err) != job.CodeUnauthenticated || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("%s: %v", c.subject, err)
		}
		if err := k.Check(&Principal{Kind: User, Name: "carol"}, Fingerprint{9}); err != nil {
			t.Errorf("somebody else: %v", err)
		}
		if err := k.Reinstate(t.Context(), c.subject); err != nil || k.Check(&c.p, c.certificate) != nil {
			t.Errorf("%s reinstated: %v", c.subject, err)
		}
		if err := k.Reinstate(t.Context(), c.subject); job.CodeOf(err) != job.CodeNotFound {
			t.Errorf("%s reinstated twice: %v", c.subject, err)
		}
	}
	for _, subject := range []string{
		"", "ada", "user/", "user/a b", "user/a/b", "group/devs", "agent/1", "certificate/abc", "certificate/" + strings.Repeat("A", 64), "token/", "login/x",
		access.Administrator, "certificate/" + strings.Repeat("g", 64), "user/ada\n",
	} {
		if _, err := k.Revoke(t.Context(), subject, "", "user/admin"); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("%q: %v", subject, err)
		}
	}
}

func TestLastUse(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	p := Principal{Kind: User, Name: "ada", Token: "tok_1"}
	if !k.LastUse("tok_1").IsZero() {
		t.Error("used before it was")
	}
	k.Seen(&p)
	k.Seen(&Principal{Kind: Agent, Worker: "wkr_1"})
	at := k.clock.at
	for _, name := range []string{"tok_1", "user/ada"} {
		if !k.LastUse(name).Equal(at) {
			t.Errorf("%s was used %v", name, k.LastUse(name))
		}
	}
	if err := k.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.reopen(t)
	if !k.LastUse("tok_1").Equal(at) || !k.LastUse("agent/wkr_1").IsZero() {
		t.Error("not written down")
	}
}

// Many at once: nothing races, and a login that is ended while it is renewed is over.
func TestCredentialsAtOnce(t *testing.T) {
	t.Parallel()
	k := openKept(t)
	k.changed = func() {}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			ctx := context.Background()
			_, secret, err := k.CreateAPIToken(ctx, APIToken{User: "ada"}, time.Hour)
			if err != nil {
				t.Error(err)
				return
			}
			p, token, err := k.RedeemAPIToken(secret)
			if err != nil {
				t.Error(err)
				return
			}
			issued, err := k.BeginLogin(ctx, p, csr(t))
			if err != nil {
				t.Error(err)
				return
			}
			who := Principal{Kind: User, Name: "ada", Login: issued.Login.ID}
			k.Seen(&who)
			if err := k.RevokeAPIToken(ctx, token.ID); err != nil {
				t.Error(err)
			}
			if k.Check(&who, Fingerprint{}) == nil {
				t.Error("a login outlives its token")
			}
		})
	}
	group.Wait()
}
