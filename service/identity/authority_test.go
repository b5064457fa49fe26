package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// allFiles are the files of a whole folder, in the order in which the first boot writes them.
var allFiles = []string{"ca-key.pem", "ca.pem", "agents-ca-key.pem", "agents-ca.pem", "server-key.pem", "server.pem", "admin-key.pem", "admin.pem"}

func readFiles(t *testing.T, dir string) map[string][]byte {
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

func certificateIn(t *testing.T, dir, name string) *x509.Certificate {
	t.Helper()
	certificates, err := readCertificates(filepath.Join(dir, name+certificatePE))
	if err != nil {
		t.Fatal(err)
	}
	return certificates[0]
}

func TestFirstBoot(t *testing.T) {
	t.Parallel()
	dir, now := filepath.Join(t.TempDir(), "data", "tls"), newClock()
	a := openAuthority(t, dir, now.Now, "jobs.example.org", "192.0.2.7")
	files := readFiles(t, dir)
	if len(files) != len(allFiles) {
		t.Errorf("the folder has %d files, want %v", len(files), allFiles)
	}
	for _, name := range allFiles {
		if files[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	for _, path := range []string{a.CACertificatePath(), a.AdminCertificatePath(), a.AdminKeyPath()} {
		if files[filepath.Base(path)] == nil {
			t.Errorf("%s is not one of the files", path)
		}
	}
	ca := certificateIn(t, dir, caFile)
	if !bytes.Equal(ca.Raw, a.Roots()[0]) {
		t.Error("the first of Roots is not the certificate in the folder")
	}
	if !ca.IsCA || ca.MaxPathLen != 1 || len(ca.SubjectKeyId) == 0 || ca.KeyUsage&x509.KeyUsageCertSign == 0 {
		t.Errorf("the CA's certificate lacks what a CA needs: %+v", ca)
	}
	sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	if want := "sha256:" + hex.EncodeToString(sum[:]); a.Pin() != want {
		t.Errorf("Pin() = %s, want %s", a.Pin(), want)
	}
	checkIssued(t, ca, certificateIn(t, dir, serverFile), now.Now(), x509.ExtKeyUsageServerAuth, 90*24*time.Hour)
	checkIssued(t, ca, certificateIn(t, dir, adminFile), now.Now(), x509.ExtKeyUsageClientAuth, 365*24*time.Hour)
	server := certificateIn(t, dir, serverFile)
	for _, host := range []string{"localhost", "127.0.0.1", "::1", "jobs.example.org", "192.0.2.7"} {
		if err := server.VerifyHostname(host); err != nil {
			t.Errorf("the server's certificate: %v", err)
		}
	}
	if p, err := PrincipalOf(certificateIn(t, dir, adminFile)); err != nil || !reflect.DeepEqual(p, Principal{Kind: User, Name: "admin"}) {
		t.Errorf("the administrator's certificate is of %v (error %v)", p, err)
	}
}

// checkAgents checks what every certificate of an agent has in common, and returns it.
func checkAgents(t *testing.T, ca *x509.Certificate, issued Issued, now time.Time) *x509.Certificate {
	t.Helper()
	if len(issued.Chain) != 2 || !bytes.Equal(issued.Roots[0], ca.Raw) || issued.Root != pinOf(ca) {
		t.Fatalf("%d certificates were issued, with the root %s; want two and %s", len(issued.Chain), issued.Root, pinOf(ca))
	}
	c := parse(t, issued.Chain[0])
	checkIssued(t, ca, c, now, x509.ExtKeyUsageClientAuth, agentLife, issued.Chain[1:]...)
	if !issued.Expires.Equal(c.NotAfter) {
		t.Errorf("the certificate ends at %v and is said to at %v", c.NotAfter, issued.Expires)
	}
	return c
}

// checkIssued checks what every certificate of the CA has in common; between are those between it and the root.
func checkIssued(
	t *testing.T, ca, c *x509.Certificate, now time.Time, usage x509.ExtKeyUsage, life time.Duration, between ...[]byte,
) {
	t.Helper()
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca)
	for _, der := range between {
		others.AddCert(parse(t, der))
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}
	if _, err := c.Verify(options); err != nil {
		t.Errorf("%s does not verify: %v", c.Subject, err)
	}
	if !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{usage}) || c.IsCA {
		t.Errorf("%s may be used for %v (CA: %v), want only %v", c.Subject, c.ExtKeyUsage, c.IsCA, usage)
	}
	if got := c.NotAfter.Sub(now); got != life {
		t.Errorf("%s lives for %v, want %v", c.Subject, got, life)
	}
	if skew := now.Sub(c.NotBefore); skew < time.Minute {
		t.Errorf("%s begins only %v before now, a client whose clock is behind would refuse it", c.Subject, skew)
	}
	if c.SerialNumber.BitLen() < 64 {
		t.Errorf("%s has the short serial number %v", c.Subject, c.SerialNumber)
	}
}

func TestSecondBootChangesNothing(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	// The hosts are given in an odd spelling and twice: they must be known again all the same.
	hosts := []string{"::ffff:192.0.2.7", "2001:DB8:0::1", "jobs.example.org", "jobs.example.org", "localhost"}
	openAuthority(t, dir, now.Now, hosts...)
	before := readFiles(t, dir)
	now.advance(59 * 24 * time.Hour)
	slices.Reverse(hosts)
	openAuthority(t, dir, now.Now, hosts...)
	after := readFiles(t, dir)
	for name, data := range before {
		if !bytes.Equal(data, after[name]) {
			t.Errorf("%s was written again", name)
		}
	}
}

func TestRenewalAtBoot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name          string
		wait          time.Duration
		hosts         []string
		server, admin bool
	}{
		{"nothing is old", 59 * 24 * time.Hour, nil, false, false},
		{"the server's is old", 61 * 24 * time.Hour, nil, true, false},
		{"both are old", 250 * 24 * time.Hour, nil, true, true},
		{"both have expired", 400 * 24 * time.Hour, nil, true, true},
		{"the clock was set back", -30 * 24 * time.Hour, nil, true, true},
		{"a host was added", 0, []string{"new.example.org"}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, now := t.TempDir(), newClock()
			now.advance(tt.wait)
			born := newClock()
			if tt.wait < 0 { // the CA is older than the certificates, so that it is good before them
				born.advance(tt.wait - time.Hour)
				openAuthority(t, dir, born.Now)
				remove(t, dir, "server.pem", "admin.pem")
			}
			a := openAuthority(t, dir, newClock().Now)
			pin, before := a.Pin(), readFiles(t, dir)
			a = openAuthority(t, dir, now.Now, tt.hosts...)
			after := readFiles(t, dir)
			if a.Pin() != pin {
				t.Error("the CA changed")
			}
			for name, want := range map[string]bool{"server.pem": tt.server, "admin.pem": tt.admin, "ca.pem": false} {
				if got := !bytes.Equal(before[name], after[name]); got != want {
					t.Errorf("%s renewed: %v, want %v", name, got, want)
				}
			}
			for _, name := range []string{serverFile, adminFile} {
				if c := certificateIn(t, dir, name); now.Now().Before(c.NotBefore) || now.Now().After(c.NotAfter) {
					t.Errorf("%s is good from %v to %v, and it is %v", name, c.NotBefore, c.NotAfter, now.Now())
				}
			}
		})
	}
}

func TestRenewalWhileRunning(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	a := openAuthority(t, dir, now.Now)
	serve := a.ServerTLS(nil).GetCertificate
	first, err := serve(nil)
	if err != nil {
		t.Fatal(err)
	}
	now.advance(59 * 24 * time.Hour)
	if same, err := serve(nil); err != nil || same != first {
		t.Errorf("a young certificate was replaced (error %v)", err)
	}
	now.advance(2 * 24 * time.Hour)
	second, err := serve(nil)
	if err != nil || second == first {
		t.Fatalf("an old certificate was not replaced (error %v)", err)
	}
	if stored := certificateIn(t, dir, serverFile); !stored.Equal(second.Leaf) {
		t.Error("the new certificate was not stored")
	}
	// A folder that is gone keeps the renewed certificate from being stored, not from being served.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	now.advance(200 * 24 * time.Hour)
	third, err := serve(nil)
	if err != nil || now.Now().After(third.Leaf.NotAfter) {
		t.Errorf("the certificate served without a folder expired on %v (error %v)", third.Leaf.NotAfter, err)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "jobs.example.org", "JOBS-2.example.org", "*.example.org", "my_host", "10.0.0.1", "fe80::1", "a."} {
		if _, err := serverHosts([]string{good}); err != nil {
			t.Errorf("serverHosts(%q): %v", good, err)
		}
	}
	bad := []string{
		"", "jobs.example.org:7443", "https://jobs.example.org", "[::1]", "fe80::1%eth0", "two words", "señor", "a\nb",
		strings.Repeat("a", 254),
	}
	for _, host := range bad {
		if _, err := OpenAuthority(t.TempDir(), AuthorityConfig{Hosts: []string{host}, Now: newClock().Now}); err == nil || !strings.Contains(err.Error(), "without scheme") {
			t.Errorf("the host %q gives %v", host, err)
		}
	}
}
