package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// authority signs for the tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes a root, or with above an authority below that.
func newAuthority(t *testing.T, name string, above *authority) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	a.certificate = template
	if above == nil {
		above = a
	}
	a.certificate = above.sign(t, template, &key.PublicKey, 10*365*24*time.Hour)
	return a
}

// sign makes a certificate that begins now.
func (a *authority) sign(t *testing.T, template *x509.Certificate, key any, life time.Duration) *x509.Certificate {
	t.Helper()
	template.NotBefore, template.NotAfter, template.BasicConstraintsValid = time.Now().Add(-time.Second), time.Now().Add(life), true
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a *authority) pin() string {
	sum := sha256.Sum256(a.certificate.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// answer signs a request as a server does.
func (a *authority) answer(t *testing.T, csr []byte, life time.Duration) *hwpv1.Certificate {
	t.Helper()
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	leaf := a.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "wkr_1"}}, request.PublicKey, life)
	return &hwpv1.Certificate{ChainDer: [][]byte{leaf.Raw, a.certificate.Raw}, RootsDer: [][]byte{a.certificate.Raw}}
}

// enrolled returns an identity that has a certificate.
func enrolled(t *testing.T, a *authority, life time.Duration) *identity {
	t.Helper()
	id := &identity{dir: filepath.Join(t.TempDir(), "identity")}
	renew(t, id, a, life)
	return id
}

func renew(t *testing.T, id *identity, a *authority, life time.Duration) {
	t.Helper()
	csr, err := id.request()
	if err != nil {
		t.Fatal(err)
	}
	answer := a.answer(t, csr, life)
	if err := id.accept(answer.GetChainDer(), answer.GetRootsDer()); err != nil {
		t.Fatal(err)
	}
}

func readDir(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func writeDir(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// olden brings an identity's files into the form of earlier versions.
func olden(files map[string][]byte) map[string][]byte {
	key, rest := pem.Decode(files[identityFile])
	leaf, _ := pem.Decode(rest)
	return map[string][]byte{formerKeyFile: pem.EncodeToMemory(key), certificateFile: pem.EncodeToMemory(leaf), caFile: files[caFile]}
}

func TestIdentityIsStoredWhole(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "root", nil)
	id := enrolled(t, a, time.Hour)
	if len(id.certificate.Certificate) != 2 {
		t.Errorf("the chain has %d certificates, want 2", len(id.certificate.Certificate))
	}
	info, err := os.Stat(filepath.Join(id.dir, identityFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the key has the mode %v (error %v)", info.Mode(), err)
	}
	again := &identity{dir: id.dir}
	if err := again.load(); err != nil || !again.certificate.Leaf.Equal(id.certificate.Leaf) || !again.roots.Equal(id.roots) {
		t.Errorf("loaded again, the identity is another (error %v)", err)
	}
}

// TestRenewalIsCutOff crashes a renewal, which changes the root too, after each change of the folder, from both forms of the folder.
func TestRenewalIsCutOff(t *testing.T) {
	t.Parallel()
	for _, former := range []bool{false, true} {
		first, second := newAuthority(t, "first", nil), newAuthority(t, "second", nil)
		id := enrolled(t, first, time.Hour)
		before := readDir(t, id.dir)
		if former {
			before = olden(before)
		}
		if err := os.RemoveAll(id.dir); err != nil {
			t.Fatal(err)
		}
		writeDir(t, id.dir, before)
		old := id.certificate.Leaf
		csr, err := id.request()
		if err != nil {
			t.Fatal(err)
		}
		answer := second.answer(t, csr, time.Hour)
		if err := id.accept(answer.GetChainDer(), [][]byte{second.certificate.Raw, first.certificate.Raw}); err != nil {
			t.Fatal(err)
		}
		after := readDir(t, id.dir)
		if len(after) != 2 {
			t.Errorf("%d files are left, want 2", len(after))
		}
		changes := []string{".new-123", caFile, identityFile, certificateFile, formerKeyFile}
		for n := range len(changes) + 1 {
			files := make(map[string][]byte)
			for name, data := range before {
				files[name] = data
			}
			for _, name := range changes[:n] {
				delete(files, name)
				if data, ok := after[name]; ok {
					files[name] = data
				}
			}
			crashed := &identity{dir: filepath.Join(t.TempDir(), "identity")}
			files[".new-123"] = []byte("half a ke")
			writeDir(t, crashed.dir, files)
			if err := crashed.load(); err != nil {
				t.Errorf("after %d changes, the identity is gone: %v", n, err)
				continue
			}
			if want := map[bool]*x509.Certificate{false: old, true: id.certificate.Leaf}[n > 2]; !crashed.certificate.Leaf.Equal(want) {
				t.Errorf("after %d changes, the certificate is another", n)
			}
			renew(t, crashed, second, time.Hour) // and it can go on
		}
	}
}

// TestAnswersThatDoNotFit leave the identity as it was, in memory and on the disk.
func TestAnswersThatDoNotFit(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "root", nil)
	id := enrolled(t, a, time.Hour)
	before := readDir(t, id.dir)
	csr, err := id.request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.request(); err != nil { // whose answer is awaited now
		t.Fatal(err)
	}
	late := a.answer(t, csr, time.Hour)
	for name, answer := range map[string]*hwpv1.Certificate{
		"nothing":                   {},
		"no roots":                  {ChainDer: late.GetChainDer()},
		"no certificate":            {RootsDer: late.GetRootsDer()},
		"noise":                     {ChainDer: [][]byte{[]byte("noise")}, RootsDer: late.GetRootsDer()},
		"the answer to another key": late,
	} {
		if err := id.accept(answer.GetChainDer(), answer.GetRootsDer()); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
	for name, data := range readDir(t, id.dir) {
		if string(before[name]) != string(data) {
			t.Errorf("%s was changed", name)
		}
	}
	if id.asked == nil {
		t.Error("the right answer would not be taken any more")
	}
	renew(t, id, a, time.Hour)
	if err := id.accept(late.GetChainDer(), late.GetRootsDer()); err == nil {
		t.Error("an answer was taken although none was awaited")
	}
}

func TestIdentityInTrouble(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "root", nil)
	good := readDir(t, enrolled(t, a, time.Hour).dir)
	other := readDir(t, enrolled(t, a, time.Hour).dir)
	with := func(base map[string][]byte, name string, data []byte) map[string][]byte {
		files := make(map[string][]byte)
		for n, d := range base {
			files[n] = d
		}
		if files[name] = data; data == nil {
			delete(files, name)
		}
		return files
	}
	for name, tt := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"empty":                             {with(good, identityFile, []byte{}), "damaged"},
		"no CA":                             {with(good, caFile, nil), "lacks the CA"},
		"a CA of noise":                     {with(good, caFile, []byte("noise")), "holds no certificate"},
		"the key of another, earlier form":  {with(olden(good), formerKeyFile, olden(other)[formerKeyFile]), "damaged"},
		"a key without certificate, as was": {with(olden(good), certificateFile, nil), ""},
		"no folder":                         {nil, ""},
	} {
		id := &identity{dir: filepath.Join(t.TempDir(), "identity")}
		if tt.files != nil {
			writeDir(t, id.dir, tt.files)
		}
		err := id.load()
		if tt.want == "" && !errors.Is(err, os.ErrNotExist) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: load gives %v", name, err)
		}
	}
}

func TestExpiredIdentityWithoutToken(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "root", nil)
	id := enrolled(t, a, -time.Millisecond)
	_, err := openIdentity(t.Context(), Config{StateDir: filepath.Dir(id.dir)})
	if err == nil || !strings.Contains(err.Error(), "expired on") || !strings.Contains(err.Error(), "hodei token create") {
		t.Errorf("openIdentity gives %v", err)
	}
	if _, err := openIdentity(t.Context(), Config{StateDir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no identity yet") {
		t.Errorf("openIdentity without anything gives %v", err)
	}
}

// wish returns whether the agent asks for a certificate now.
func wish(t *testing.T, id *identity) []byte {
	t.Helper()
	message, err := id.renewal()
	if err != nil {
		t.Fatal(err)
	}
	return message.GetCertificateRequest().GetCsrDer()
}

func TestWhenTheAgentAsks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t, "root", nil)
		id := &identity{dir: filepath.Join(dir, "identity")}
		const life = 24 * time.Hour
		renew(t, id, a, life)
		if wait := id.untilDue(); wait < life*66/100 || wait > life*73/100 || wish(t, id) != nil {
			t.Errorf("it asks after %v of %v", wait, life)
		}
		time.Sleep(id.untilDue())
		first := wish(t, id)
		if first == nil || wish(t, id) != nil || id.untilDue() != renewalRetry {
			t.Fatalf("when it was time it asks: %v, and again after %v", first != nil, id.untilDue())
		}
		time.Sleep(renewalRetry)
		second := wish(t, id)
		if second == nil || string(second) == string(first) {
			t.Fatal("without an answer it does not ask again, with another key")
		}
		answer := a.answer(t, second, life)
		if err := id.accept(answer.GetChainDer(), answer.GetRootsDer()); err != nil || id.untilDue() < life/2 {
			t.Errorf("after the answer it asks again in %v (error %v)", id.untilDue(), err)
		}
		id.hasten()
		if wait := id.untilDue(); wait > renewalSpread {
			t.Errorf("when the server asks it to, it asks after %v", wait)
		}
		time.Sleep(renewalSpread)
		// The authorities change while the answer is on its way: it may be of the old one.
		third := wish(t, id)
		id.hasten()
		answer = a.answer(t, third, life)
		if err := id.accept(answer.GetChainDer(), answer.GetRootsDer()); err != nil || id.untilDue() > renewalSpread {
			t.Errorf("after an answer that may be too old it asks again in %v (error %v)", id.untilDue(), err)
		}
		time.Sleep(renewalSpread)
		answer = a.answer(t, wish(t, id), time.Minute)
		if err := id.accept(answer.GetChainDer(), answer.GetRootsDer()); err != nil || id.untilDue() > time.Minute {
			t.Errorf("a short certificate is renewed in %v (error %v)", id.untilDue(), err)
		}
		time.Sleep(id.untilDue())
		if wish(t, id) == nil || id.untilDue() > 7*time.Second {
			t.Errorf("a short certificate that was not renewed is asked for again in %v", id.untilDue())
		}
	})
}

// TestRenewedInTheBackground takes in an answer as a session does.
func TestRenewedInTheBackground(t *testing.T) {
	t.Parallel()
	root := newAuthority(t, "root", nil)
	a := &agent{identity: enrolled(t, root, time.Hour), wake: make(chan struct{}, 1), config: Config{Logger: slog.New(slog.DiscardHandler)}}
	before := a.identity.certificate.Leaf
	a.renewed(&hwpv1.Certificate{})
	if !a.identity.certificate.Leaf.Equal(before) {
		t.Error("an empty answer changed the certificate")
	}
	csr, err := a.identity.request()
	if err != nil {
		t.Fatal(err)
	}
	security := a.identity.tlsConfig()
	a.renewed(root.answer(t, csr, time.Hour))
	if len(a.wake) != 1 {
		t.Error("the session was not told")
	}
	for want, config := range map[bool]*tls.Config{false: security, true: a.identity.tlsConfig()} {
		c, err := config.GetClientCertificate(nil)
		if err != nil || c.Leaf.Equal(before) == want {
			t.Errorf("a connection that begins later uses the new certificate: %v (error %v)", !c.Leaf.Equal(before), err)
		}
	}
}

// TestCheckPin shows servers whose authority is being rotated, or is another.
func TestCheckPin(t *testing.T) {
	t.Parallel()
	old, fresh, stranger := newAuthority(t, "old", nil), newAuthority(t, "new", nil), newAuthority(t, "stranger", nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := func(a *authority, usage x509.ExtKeyUsage, life time.Duration) *x509.Certificate {
		return a.sign(t, &x509.Certificate{DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{usage}}, &key.PublicKey, life)
	}
	cross := old.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "new"}, SubjectKeyId: fresh.certificate.SubjectKeyId, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, &fresh.key.PublicKey, time.Hour)
	leaf, plain := server(fresh, x509.ExtKeyUsageServerAuth, time.Hour), server(old, x509.ExtKeyUsageServerAuth, time.Hour)
	for name, tt := range map[string]struct {
		chain []*x509.Certificate
		pin   string
		host  string
		want  string // of the error
	}{
		"one root":                       {[]*x509.Certificate{plain, old.certificate}, old.pin(), "localhost", ""},
		"during a rotation, the new pin": {[]*x509.Certificate{leaf, cross, fresh.certificate, old.certificate}, fresh.pin(), "localhost", ""},
		"during a rotation, the old pin": {[]*x509.Certificate{leaf, cross, fresh.certificate, old.certificate}, old.pin(), "localhost", ""},
		"after a rotation, the old pin":  {[]*x509.Certificate{leaf, fresh.certificate}, old.pin(), "localhost", "no CA with the pin"},
		"another root":                   {[]*x509.Certificate{plain, old.certificate}, stranger.pin(), "localhost", "no CA with the pin"},
		"no root":                        {[]*x509.Certificate{plain}, old.pin(), "localhost", "no CA with the pin"},
		"a root that did not sign":       {[]*x509.Certificate{server(stranger, x509.ExtKeyUsageServerAuth, time.Hour), old.certificate}, old.pin(), "localhost", "unknown authority"},
		"another host":                   {[]*x509.Certificate{plain, old.certificate}, old.pin(), "example.org", "localhost"},
		"not a server's": {
			[]*x509.Certificate{server(old, x509.ExtKeyUsageClientAuth, time.Hour), old.certificate}, old.pin(), "localhost", "incompatible key usage",
		},
		"expired": {
			[]*x509.Certificate{server(old, x509.ExtKeyUsageServerAuth, -time.Millisecond), old.certificate}, old.pin(), "localhost", "expired",
		},
		"the pin of the server's own key": {[]*x509.Certificate{plain, plain}, (&authority{certificate: plain}).pin(), "localhost", "no CA with the pin"},
	} {
		err := checkPin(tls.ConnectionState{PeerCertificates: tt.chain, ServerName: tt.host}, tt.pin)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: checkPin gives %v", name, err)
		}
	}
}

func TestReadToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("hat_file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ path, stdin, want string }{
		"a file":             {file, "", "hat_file"},
		"the standard input": {"-", " hat_input\n", "hat_input"},
		"nothing":            {"-", " \n", ""},
		"far too much":       {"-", strings.Repeat("x", 1<<20), ""},
		"no file":            {file + "2", "hat_input", ""},
	} {
		got, err := ReadToken(tt.path, strings.NewReader(tt.stdin))
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: ReadToken gives %q, %v", name, got, err)
		}
	}
}
