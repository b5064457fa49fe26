package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

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
		checkIssued(t, root(t, a), certificateIn(t, dir, serverFile), now.Now(), x509.ExtKeyUsageServerAuth, serverLife)
		checkIssued(t, root(t, a), certificateIn(t, dir, adminFile), now.Now(), x509.ExtKeyUsageClientAuth, userLife)
	}
}

// TestLostCACertificate shows that the CA's key is what counts: certificates that it signed stay good.
func TestLostCACertificate(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	first := openAuthority(t, dir, now.Now)
	old := root(t, first)
	remove(t, dir, "ca.pem")
	now.advance(time.Hour)
	second := openAuthority(t, dir, now.Now)
	if second.Pin() != first.Pin() {
		t.Error("the pin changed")
	}
	agent, err := second.SignAgent(request(t, &x509.CertificateRequest{}, newKey(t)), "wkr_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	// Those who hold the old certificate trust what the new one stands for, and the other way round.
	checkIssued(t, old, parse(t, agent.Chain[0]), now.Now(), x509.ExtKeyUsageClientAuth, agentLife, agent.Chain[1:]...)
	if err := certificateIn(t, dir, adminFile).CheckSignatureFrom(root(t, second)); err != nil {
		t.Error(err)
	}
}

// TestMixedPair shows that a certificate whose key was renewed without it, by a crash, is made again.
func TestMixedPair(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), newClock()
	a := openAuthority(t, dir, now.Now)
	for _, name := range []string{agentsFile, serverFile, adminFile} {
		pair, err := a.issueServer(a.trust.Load())
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
	for _, name := range []string{agentsFile, serverFile, adminFile} {
		if _, err := b.load(name); err != nil {
			t.Error(err)
		}
	}
}

// spoiler damages a folder.
type spoiler func(t *testing.T, dir string)

func writing(name, text string) spoiler {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func copying(from, to string) spoiler {
	return func(t *testing.T, dir string) {
		t.Helper()
		writing(to, string(readFiles(t, dir)[from]))(t, dir)
	}
}

func removing(names ...string) spoiler {
	return func(t *testing.T, dir string) {
		t.Helper()
		remove(t, dir, names...)
	}
}

func both(first, second spoiler) spoiler {
	return func(t *testing.T, dir string) {
		t.Helper()
		first(t, dir)
		second(t, dir)
	}
}

func TestRefusedFolders(t *testing.T) {
	t.Parallel()
	const year = 365 * 24 * time.Hour
	noise := func(kind string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("noise")}))
	}
	tests := []struct {
		name  string
		wait  time.Duration
		spoil spoiler
		want  []string // parts of the message
	}{
		{"no key", 0, removing("ca-key.pem"), []string{"ca-key.pem is missing", "backup"}},
		{"no CA", 0, removing("ca.pem", "ca-key.pem"), []string{"the CA that signed it is missing", "backup"}},
		{"another key", 0, copying("server-key.pem", "ca-key.pem"), []string{"is not the key of ca.pem", "backup"}},
		{"not a CA", 0, both(copying("server-key.pem", "ca-key.pem"), copying("server.pem", "ca.pem")), []string{"not a CA's"}},
		{"empty certificate", 0, writing("ca.pem", ""), []string{"ca.pem has no PEM block"}},
		{"empty key", 0, writing("ca-key.pem", ""), []string{"ca-key.pem has no PEM block"}},
		{"certificate of noise", 0, writing("ca.pem", noise(pemCertificate)), []string{"ca.pem holds no certificate"}},
		{"key of noise", 0, writing("ca-key.pem", noise(pemKey)), []string{"ca-key.pem holds no private key"}},
		{
			"key of noise without certificate", 0, both(removing("ca.pem"), writing("ca-key.pem", noise(pemKey))),
			[]string{"ca-key.pem holds no private key"},
		},
		{"expired", 10*year + time.Hour, removing(), []string{"expired on", "new CA"}},
		{"from the future", -year, removing(), []string{"clock"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, now := t.TempDir(), newClock()
			openAuthority(t, dir, now.Now)
			tt.spoil(t, dir)
			before := readFiles(t, dir)
			now.advance(tt.wait)
			a, err := OpenAuthority(dir, AuthorityConfig{Now: now.Now})
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
	if _, err := OpenAuthority(path, AuthorityConfig{Now: newClock().Now}); err == nil || !strings.Contains(err.Error(), path) {
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
	if err := os.Chmod(dir, 0o777); err != nil {
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
