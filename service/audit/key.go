package audit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/hodei-jobs/hodei/service/durable"
)

// Files of the key in its folder, and their PEM types.
const (
	keyFile    = "audit-key.pem"
	publicFile = "audit-public.pem"
	pemKey     = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
)

// OpenKey reads the key that signs checkpoints from audit-key.pem in a folder, or makes it at the first boot, together with
// audit-public.pem, with which everybody can verify. A key that is lost is not replaced without a word: checkpoints of the old one
// could not be told from forged ones.
func OpenKey(dir string) (ed25519.PrivateKey, error) {
	path, publicPath := filepath.Join(dir, keyFile), filepath.Join(dir, publicFile)
	data, err := os.ReadFile(path)
	var key ed25519.PrivateKey
	switch {
	case err == nil:
		key, err = parseKey(path, data)
	case errors.Is(err, fs.ErrNotExist):
		key, err = makeKey(path, publicPath)
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the audit trail: %w", err)
	}
	public := publicPEM(key.Public())
	if there, err := os.ReadFile(publicPath); err == nil && bytes.Equal(there, public) {
		return key, nil
	}
	return key, durable.WriteFile(publicPath, public, 0o644)
}

func publicPEM(key crypto.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil { // which does not happen to keys of this kind
		return nil
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: der})
}

func parseKey(path string, data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemKey {
		return nil, fmt.Errorf("%s has no PEM block of type %q; restore it from a backup", path, pemKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key that is not Ed25519; restore it from a backup", path)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0 { // there, these bits say nothing
		return key, err
	}
	if err := os.Chmod(path, 0o600); err != nil { // as after the restore of a backup
		return nil, fmt.Errorf("others may use %s, and that cannot be changed: %w; make the server's user its owner, or run chmod 600 on it", path, err)
	}
	return key, nil
}

func makeKey(path, publicPath string) (ed25519.PrivateKey, error) {
	if _, err := os.Stat(publicPath); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, fmt.Errorf("%s is there, but %s is missing; restore it from a backup, "+
			"or move %[1]s away to begin with a new key, and keep it for the checkpoints that were signed so far", publicPath, keyFile))
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), 0o600)
}
