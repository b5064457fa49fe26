package audit_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store/memstore"
)

func TestKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, public := filepath.Join(dir, "audit-key.pem"), filepath.Join(dir, "audit-public.pem")
	key, err := audit.OpenKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	same := func(what string) {
		t.Helper()
		again, err := audit.OpenKey(dir)
		if err != nil || !again.Equal(key) {
			t.Errorf("%s: another key, %v", what, err)
		}
		if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", what, info, err)
		}
		data, err := os.ReadFile(public)
		block, _ := pem.Decode(data)
		if err != nil || block == nil {
			t.Fatalf("%s: %q, %v", what, data, err)
		}
		if parsed, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || !key.Public().(ed25519.PublicKey).Equal(parsed) {
			t.Errorf("%s: the public key is another one, %v", what, err)
		}
	}
	same("again")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	same("opened to others")
	if err := os.Remove(public); err != nil {
		t.Fatal(err)
	}
	same("without the public key")
	if err := os.WriteFile(public, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	same("with a damaged public key")

	k, err := audit.New(audit.Config{Store: memstore.New(), Key: key, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(public)
	if err != nil || string(k.PublicKeyPEM()) != string(data) || k.KeyID() != chain.KeyID(key.Public().(ed25519.PublicKey)) {
		t.Errorf("the keeper has %s, the file %s, %v", k.PublicKeyPEM(), data, err)
	}
	for _, short := range []ed25519.PrivateKey{nil, key[:32], append(key[:64:64], 0)} {
		if _, err := audit.New(audit.Config{Key: short}); err == nil {
			t.Errorf("a key of %d bytes was taken", len(short))
		}
	}
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, content, want string }{
		"lost":    {"audit-public.pem", "x", "audit-key.pem is missing; restore it from a backup"},
		"empty":   {"audit-key.pem", "", "has no PEM block"},
		"garbage": {"audit-key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := audit.OpenKey(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := audit.OpenKey(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a key was made in a folder that is not there")
	}
}
