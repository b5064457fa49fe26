package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// signed makes a certificate as the owner of the signer's key could.
func signed(t *testing.T, now time.Time, signer *keyPair, change func(*x509.Certificate), between ...*x509.Certificate) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(template)
	pair, err := issue(template, signer)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Certificate{Certificate: [][]byte{pair.certificate.Raw}, PrivateKey: pair.key, Leaf: pair.certificate}
	for _, b := range between {
		c.Certificate = append(c.Certificate, b.Raw)
	}
	return c
}

func naming(uris ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, text := range uris {
			if uri, err := url.Parse(text); err == nil {
				c.URIs = append(c.URIs, uri)
			}
		}
	}
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
}

func pairOf(t *testing.T, c tls.Certificate) *keyPair {
	t.Helper()
	return &keyPair{certificate: c.Leaf, key: c.PrivateKey.(*ecdsa.PrivateKey)}
}

// TestWhoMaySignForWhom uses the keys of the authorities for what they are not meant for.
func TestWhoMaySignForWhom(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	trusted := a.trust.Load()
	at := now.Now()
	agents, agentsOnly := trusted.agents, trusted.agents.certificate
	wider := signed(t, at, trusted.root, func(c *x509.Certificate) { asCA(c); c.MaxPathLenZero = true })
	below := signed(t, at, agents, func(c *x509.Certificate) { asCA(c); c.MaxPathLenZero = true })
	tests := []struct {
		name string
		show tls.Certificate
		want bool
	}{
		{"agents' signs for an agent", signed(t, at, agents, naming("hodei://agent/wkr_1"), agentsOnly), true},
		{"agents' signs for a user", signed(t, at, agents, naming("hodei://user/admin"), agentsOnly), false},
		{"agents' signs for an agent that is a user too", signed(t, at, agents, naming("hodei://agent/wkr_1", "hodei://user/admin"), agentsOnly), false},
		{"agents' signs for a server", signed(t, at, agents, func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }, agentsOnly), false},
		{"agents' signs for an address", signed(t, at, agents, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv6loopback} }, agentsOnly), false},
		{"agents' signs for another authority", signed(t, at, pairOf(t, below), naming("hodei://agent/wkr_1"), below.Leaf, agentsOnly), false},
		{"agents' without itself in the chain", signed(t, at, agents, naming("hodei://agent/wkr_1")), false},
		{"the root signs for a user", signed(t, at, trusted.root, naming("hodei://user/ada")), true},
		{"the root signs for an agent", signed(t, at, trusted.root, func(c *x509.Certificate) {
			naming("hodei://agent/wkr_1")(c)
			c.NotBefore = agentsOnly.NotBefore.Add(time.Second)
		}), false},
		{"the root signed for an agent before there was another", signed(t, at, trusted.root, naming("hodei://agent/wkr_1")), true},
		{"another authority signs for a user", signed(t, at, pairOf(t, wider), naming("hodei://user/admin"), wider.Leaf), false},
		{"another authority signs for an agent", signed(t, at, pairOf(t, wider), naming("hodei://agent/wkr_1"), wider.Leaf), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := together(t, a.ServerTLS(nil), knowing(now.Now, []tls.Certificate{tt.show}, root(t, a))); got != tt.want {
				t.Errorf("the certificate was taken: %v, want %v", got, tt.want)
			}
		})
	}
	// A client must not take what agents' signs for a server, nor what was signed for a user.
	for name, c := range map[string]tls.Certificate{
		"agents' signs for a server": signed(t, at, agents, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"localhost"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, agentsOnly),
		"agents' signs for a server without names": signed(t, at, agents, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, agentsOnly),
		"a user with a server's name": signed(t, at, trusted.root, func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} }),
		"another name": signed(t, at, trusted.root, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"other"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}),
		"expired": signed(t, at, trusted.root, func(c *x509.Certificate) {
			c.DNSNames, c.ExtKeyUsage = []string{"localhost"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			c.NotAfter = at.Add(-time.Second)
		}),
	} {
		server := a.ServerTLS(nil)
		server.GetConfigForClient = nil
		server.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c, nil }
		if together(t, server, knowing(now.Now, nil, root(t, a))) {
			t.Errorf("%s: a client took it", name)
		}
	}
}

// TestLastWord shows that whoever checks certificates further is asked about every one, and about nobody without.
func TestLastWord(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	revoked := agent(t, a)
	asked := make(chan string, 10)
	server := a.ServerTLS(func(leaf *x509.Certificate) error {
		asked <- leaf.Subject.CommonName
		if leaf.Equal(parse(t, revoked.Certificate[0])) {
			return errors.New("revoked")
		}
		return nil
	})
	for _, want := range []bool{true, false, true} {
		show := []tls.Certificate{revoked}
		if want {
			show = []tls.Certificate{admin(t, a)}
		}
		if got := together(t, server, knowing(now.Now, show, root(t, a))); got != want {
			t.Errorf("came in: %v, want %v", got, want)
		}
	}
	if !together(t, server, knowing(now.Now, nil, root(t, a))) || len(asked) != 3 {
		t.Errorf("the check was asked %d times, want 3", len(asked))
	}
}

// olden makes a folder as earlier versions did, and returns an agent that enrolled then.
func olden(t *testing.T, dir string, now *clock) tls.Certificate {
	t.Helper()
	a := openAuthority(t, dir, now.Now)
	template := a.rootTemplate(pkix.Name{CommonName: "Hodei Jobs CA"})
	template.MaxPathLen, template.MaxPathLenZero = 0, true
	key := newKey(t)
	ca, err := sign(template, key, &keyPair{certificate: template, key: key})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.save(caFile, ca); err != nil {
		t.Fatal(err)
	}
	if _, err := a.openServer(&trust{root: ca}); err != nil { // the one of the other root is not usable
		t.Fatal(err)
	}
	if err := a.openAdmin(&trust{root: ca}); err != nil {
		t.Fatal(err)
	}
	remove(t, dir, "agents-ca.pem", "agents-ca-key.pem")
	return signed(t, now.Now(), ca, naming("hodei://agent/wkr_1"))
}

// TestFolderOfAnEarlierVersion shows that nobody is left behind by the update, nor by the rotation after it.
func TestFolderOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	oldAgent := olden(t, dir, now)
	before := certificateIn(t, dir, caFile)
	if !before.MaxPathLenZero {
		t.Fatal("the folder is not as it was")
	}
	now.advance(time.Minute)
	a := openAuthority(t, dir, now.Now)
	after := root(t, a)
	if pinOf(before) != a.Pin() || after.MaxPathLen != 1 || !after.NotAfter.Equal(before.NotAfter) {
		t.Errorf("the root has the pin %s instead of %s, and ends at %v instead of %v", a.Pin(), pinOf(before), after.NotAfter, before.NotAfter)
	}
	files := readFiles(t, dir)
	if openAuthority(t, dir, now.Now); !reflect.DeepEqual(files, readFiles(t, dir)) {
		t.Error("the next start changes the folder again")
	}
	for _, knows := range []*x509.Certificate{before, after} {
		for name, show := range map[string]tls.Certificate{"administrator": admin(t, a), "old agent": oldAgent, "new agent": agent(t, a)} {
			if !together(t, a.ServerTLS(nil), knowing(now.Now, []tls.Certificate{show}, knows)) {
				t.Errorf("the %s was left behind", name)
			}
		}
	}
	if err := a.Rotate(); err != nil {
		t.Fatal(err)
	}
	if !together(t, a.ServerTLS(nil), knowing(now.Now, []tls.Certificate{oldAgent}, after)) {
		t.Error("the old agent was left behind by the rotation")
	}
}

func TestAgentsAuthorityRenewsItself(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	a := openAuthority(t, dir, now.Now)
	before := a.trust.Load().agents.certificate
	now.advance(agentsLife * 2 / 3)
	old := agent(t, a)
	if got := a.trust.Load().agents.certificate; got.Equal(before) || !got.Equal(certificateIn(t, dir, agentsFile)) {
		t.Error("the authority for agents was not renewed and stored")
	}
	for _, c := range []tls.Certificate{old, agent(t, a)} {
		if !together(t, a.ServerTLS(nil), knowing(now.Now, []tls.Certificate{c}, root(t, a))) {
			t.Error("an agent was left behind")
		}
	}
}

// given puts a root into a folder as an operator would.
func given(t *testing.T, dir string, now time.Time, curve elliptic.Curve, kind string, change func(*x509.Certificate)) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "Example root", Organization: []string{"Example"}}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour),
		BasicConstraintsValid: true, MaxPathLen: -1,
	}
	asCA(template)
	change(template)
	pair, err := sign(template, key, &keyPair{certificate: template, key: key})
	if err != nil {
		t.Fatal(err)
	}
	var der []byte
	if kind == pemKey {
		der, err = x509.MarshalPKCS8PrivateKey(key)
	} else {
		der, err = x509.MarshalECPrivateKey(key)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := writePEM(filepath.Join(dir, "ca.pem"), pemCertificate, pair.certificate.Raw); err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	if err := os.WriteFile(filepath.Join(dir, "ca-key.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestGivenRoot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		curve  elliptic.Curve
		kind   string
		change func(*x509.Certificate)
		want   string // of the error; empty: it is taken
	}{
		{"P-256", elliptic.P256(), pemKey, func(*x509.Certificate) {}, ""},
		{"as OpenSSL writes it", elliptic.P256(), pemECKey, func(*x509.Certificate) {}, ""},
		{"P-384", elliptic.P384(), pemKey, func(*x509.Certificate) {}, ""},
		{"path length 1", elliptic.P256(), pemKey, func(c *x509.Certificate) { c.MaxPathLen = 1 }, ""},
		{"path length 0", elliptic.P256(), pemKey, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }, ""},
		{"no CA", elliptic.P256(), pemKey, func(c *x509.Certificate) { c.IsCA = false }, "not a CA's"},
		{"may not sign", elliptic.P256(), pemKey, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, "has not signed itself"},
		{"for clients only", elliptic.P256(), pemKey, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "cannot sign for the server"},
		{"for other names", elliptic.P256(), pemKey, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.org"} }, "cannot sign for the server"},
		{"expired", elliptic.P256(), pemKey, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Minute) }, "expired on"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, now := t.TempDir(), newClock()
			given(t, dir, now.Now(), tt.curve, tt.kind, tt.change)
			pin := pinOf(certificateIn(t, dir, caFile))
			a, err := OpenAuthority(dir, AuthorityConfig{Now: now.Now})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("OpenAuthority gives %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			client := knowing(now.Now, []tls.Certificate{agent(t, a)}, root(t, a))
			if a.Pin() != pin || !together(t, a.ServerTLS(nil), client) {
				t.Error("the root is not in force")
			}
			if err := a.Rotate(); err != nil || !together(t, a.ServerTLS(nil), client) {
				t.Errorf("its rotation leaves an agent behind (error %v)", err)
			}
		})
	}
}

// TestGivenRootOfAnother refuses an authority that another one has signed: not every client takes it for a root.
func TestGivenRootOfAnother(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	above := openAuthority(t, t.TempDir(), now.Now)
	c := signed(t, now.Now(), above.trust.Load().root, asCA)
	if err := openFolder(dir); err != nil {
		t.Fatal(err)
	}
	if err := above.save("below", pairOf(t, c)); err != nil {
		t.Fatal(err)
	}
	for _, ending := range []string{keyPE, certificatePE} {
		if err := os.Rename(above.path("below"+ending), filepath.Join(dir, caFile+ending)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenAuthority(dir, AuthorityConfig{Now: now.Now}); err == nil || !strings.Contains(err.Error(), "has not signed itself") {
		t.Errorf("OpenAuthority gives %v", err)
	}
}

func TestSignUser(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	many := make([]string, maxGroups)
	for i := range many {
		many[i] = fmt.Sprintf("group %d, with an ñ", i)
	}
	for name, groups := range map[string][]string{"ada": nil, "ada@example.org": {"ops", "dev"}, "Ada Lovelace": many, "工": {"ops"}} {
		key := newKey(t)
		issued, err := a.SignUser(request(t, &x509.CertificateRequest{}, key), name, groups, "lgn_1", 8*time.Hour)
		if err != nil {
			t.Errorf("SignUser(%q): %v", name, err)
			continue
		}
		c := parse(t, issued.Chain[0])
		checkIssued(t, root(t, a), c, now.Now(), x509.ExtKeyUsageClientAuth, 8*time.Hour, issued.Chain[1:]...)
		p, err := PrincipalOf(c)
		slices.Sort(p.Groups)
		groups = slices.Sorted(slices.Values(groups))
		if err != nil || p.Kind != User || p.Name != name || p.Login != "lgn_1" || !slices.Equal(p.Groups, groups) || p.Worker != "" {
			t.Errorf("the certificate of %q is of %+v (error %v)", name, p, err)
		}
		show := []tls.Certificate{{Certificate: issued.Chain, PrivateKey: key}}
		if !together(t, a.ServerTLS(nil), knowing(now.Now, show, root(t, a))) {
			t.Errorf("%q was refused", name)
		}
	}
	csr := request(t, &x509.CertificateRequest{}, newKey(t))
	for _, name := range []string{"", "a/b", "../admin", "a\x00", "a\nb", "\xff", strings.Repeat("a", maxUserLength+1)} {
		if _, err := a.SignUser(csr, name, nil, "", time.Hour); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("SignUser(%q) gives %v", name, err)
		}
		if _, err := a.SignUser(csr, "ada", []string{name}, "", time.Hour); name != "a/b" && name != "../admin" && job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("the group %q gives %v", name, err)
		}
	}
	if _, err := a.SignUser(csr, "ada", append(many, "x"), "", time.Hour); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("too many groups give %v", err)
	}
	if _, err := a.SignUser(nil, "ada", nil, "", time.Hour); job.CodeOf(err) != job.CodeInvalid {
		t.Errorf("no request gives %v", err)
	}
}
