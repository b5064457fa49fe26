package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// allFiles are the files of a whole folder, in the order in which the first boot writes them.
var allFiles = []string{"ca-key.pem", "ca.pem", "server-key.pem", "server.pem", "admin-key.pem", "admin.pem"}

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
	der, err := readPEM(filepath.Join(dir, name+certificatePE), pemCertificate)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
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
	if !bytes.Equal(ca.Raw, a.CADER()) {
		t.Error("CADER is not the certificate in the folder")
	}
	if !ca.IsCA || !ca.MaxPathLenZero || len(ca.SubjectKeyId) == 0 || ca.KeyUsage&x509.KeyUsageCertSign == 0 {
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
	if p, err := PrincipalOf(certificateIn(t, dir, adminFile)); err != nil || p != (Principal{Kind: User, Name: "admin"}) {
		t.Errorf("the administrator's certificate is of %v (error %v)", p, err)
	}
}

// checkIssued checks what every certificate of the CA has in common.
func checkIssued(t *testing.T, ca, c *x509.Certificate, now time.Time, usage x509.ExtKeyUsage, life time.Duration) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
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
	serve := a.ServerTLS().GetCertificate
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

func remove(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHalfMadeFolder cuts the first boot off after each file that it writes.
func TestHalfMadeFolder(t *testing.T) {
	t.Parallel()
	for written := range len(allFiles) + 1 {
		dir, now := t.TempDir(), newClock()
		pin := openAuthority(t, dir, now.Now).Pin()
		remove(t, dir, allFiles[written:]...)
		unfinished := filepath.Join(dir, ".new-123")
		if err := os.WriteFile(unfinished, []byte("half a ke"), 0o600); err != nil {
			t.Fatal(err)
		}
		a := openAuthority(t, dir, now.Now)
		if files := readFiles(t, dir); len(files) != len(allFiles) {
			t.Errorf("after %d files the boot left %d", written, len(files))
		}
		if written > 0 && a.Pin() != pin {
			t.Errorf("after %d files, with the CA's key among them, the pin changed", written)
		}
		checkIssued(t, parse(t, a.CADER()), certificateIn(t, dir, serverFile), now.Now(), x509.ExtKeyUsageServerAuth, serverLife)
		checkIssued(t, parse(t, a.CADER()), certificateIn(t, dir, adminFile), now.Now(), x509.ExtKeyUsageClientAuth, userLife)
	}
}

// TestLostCACertificate shows that the CA's key is what counts: certificates that it signed stay good.
func TestLostCACertificate(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	first := openAuthority(t, dir, now.Now)
	old := parse(t, first.CADER())
	remove(t, dir, "ca.pem")
	now.advance(time.Hour)
	second := openAuthority(t, dir, now.Now)
	if second.Pin() != first.Pin() {
		t.Error("the pin changed")
	}
	agent, err := second.SignAgent(request(t, &x509.CertificateRequest{}, newKey(t)), "wkr_1")
	if err != nil {
		t.Fatal(err)
	}
	// Those who hold the old certificate trust what the new one stands for, and the other way round.
	checkIssued(t, old, parse(t, agent), now.Now(), x509.ExtKeyUsageClientAuth, agentLife)
	if err := certificateIn(t, dir, adminFile).CheckSignatureFrom(parse(t, second.CADER())); err != nil {
		t.Error(err)
	}
}

// TestMixedPair shows that a certificate whose key was renewed without it, by a crash, is made again.
func TestMixedPair(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	a := openAuthority(t, dir, now.Now)
	for _, name := range []string{serverFile, adminFile} {
		pair, err := a.issueServer()
		if err != nil {
			t.Fatal(err)
		}
		if err := a.save("other", pair); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "other-key.pem"), filepath.Join(dir, name+keyPE)); err != nil {
			t.Fatal(err)
		}
	}
	b := openAuthority(t, dir, now.Now)
	for _, name := range []string{serverFile, adminFile} {
		if _, err := b.load(name); err != nil {
			t.Error(err)
		}
	}
}

func TestRefusedFolders(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	write := func(name, text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	block := func(kind, text string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(text)}))
	}
	copyFile := func(from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			write(to, string(readFiles(t, dir)[from]))(t, dir)
		}
	}
	tests := []struct {
		name  string
		wait  time.Duration
		spoil func(*testing.T, string)
		want  []string // parts of the message
	}{
		{"no key", 0, func(t *testing.T, dir string) { t.Helper(); remove(t, dir, "ca-key.pem") }, []string{"ca-key.pem is missing", "backup"}},
		{"no CA", 0, func(t *testing.T, dir string) {
			t.Helper()
			remove(t, dir, "ca.pem", "ca-key.pem")
		}, []string{"the CA that signed it is missing", "backup"}},
		{"another key", 0, copyFile("server-key.pem", "ca-key.pem"), []string{"is not the key of ca.pem", "backup"}},
		{"not a CA", 0, func(t *testing.T, dir string) {
			t.Helper()
			copyFile("server-key.pem", "ca-key.pem")(t, dir)
			copyFile("server.pem", "ca.pem")(t, dir)
		}, []string{"not a CA's"}},
		{"empty certificate", 0, write("ca.pem", ""), []string{"ca.pem has no PEM block"}},
		{"empty key", 0, write("ca-key.pem", ""), []string{"ca-key.pem has no PEM block"}},
		{"certificate of noise", 0, write("ca.pem", block(pemCertificate, "noise")), []string{"ca.pem holds no certificate"}},
		{"key of noise", 0, write("ca-key.pem", block(pemKey, "noise")), []string{"ca-key.pem holds no private key"}},
		{"key without certificate, of noise", 0, func(t *testing.T, dir string) {
			t.Helper()
			remove(t, dir, "ca.pem")
			write("ca-key.pem", block(pemKey, "noise"))(t, dir)
		}, []string{"ca-key.pem holds no private key"}},
		{"expired", 10*year + time.Hour, func(*testing.T, string) {}, []string{"expired on", "new CA"}},
		{"from the future", -year, func(*testing.T, string) {}, []string{"clock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, now := t.TempDir(), newClock()
			openAuthority(t, dir, now.Now)
			tt.spoil(t, dir)
			before := readFiles(t, dir)
			now.advance(tt.wait)
			a, err := OpenAuthority(dir, nil, now.Now)
			if err == nil || a != nil {
				t.Fatalf("OpenAuthority = %v, %v, want an error and nothing else", a, err)
			}
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the message %q does not say %q", err, part)
				}
			}
			for name, data := range readFiles(t, dir) {
				if !bytes.Equal(data, before[name]) {
					t.Errorf("%s was changed although the folder was refused", name)
				}
			}
		})
	}
}

func TestFolderThatCannotBeMade(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenAuthority(path, nil, newClock().Now); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file as the folder gives %v", err)
	}
}

func TestRightsAreTightened(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		return // whose files have no such bits
	}
	dir, now := t.TempDir(), newClock()
	openAuthority(t, dir, now.Now)
	for _, name := range allFiles {
		if err := os.Chmod(filepath.Join(dir, name), 0o664); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // the point of the test
		t.Fatal(err)
	}
	openAuthority(t, dir, now.Now)
	paths := map[string]os.FileMode{dir: 0o700}
	for _, name := range allFiles {
		if strings.HasSuffix(name, keyPE) {
			paths[filepath.Join(dir, name)] = 0o600
		}
	}
	for path, want := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
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
		if _, err := OpenAuthority(t.TempDir(), []string{host}, newClock().Now); err == nil || !strings.Contains(err.Error(), "without scheme") {
			t.Errorf("the host %q gives %v", host, err)
		}
	}
}
