package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/hodei-jobs/hodei/service/durable"
)

// PEM types.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
	pemECKey       = "EC PRIVATE KEY"
)

// openFolder makes the folder, closes it to others, and removes what a crash left of files that were being written.
func openFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder for certificates: %w", err)
	}
	if err := tighten(dir, 0o700); err != nil {
		return err
	}
	rest, err := filepath.Glob(filepath.Join(dir, durable.Unfinished))
	if err != nil {
		return fmt.Errorf("looking for unfinished files in %s: %w", dir, err)
	}
	for _, path := range rest {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// tighten takes away what others may do with a key or the folder. It does not refuse: restored backups and volumes whose
// files are opened to a group at every mount are common, and must not keep the server from starting.
func tighten(path string, mode fs.FileMode) error {
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&^mode == 0 { // there, these bits say nothing
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("others may use %s, and that cannot be changed: %w; make the server's user its owner, or run chmod %o on it",
			path, err, mode)
	}
	return nil
}

// save writes the key, then the certificate. The order matters: a crash in between leaves a key that fits no certificate,
// which is made up for at the next boot.
func (a *Authority) save(name string, pair *keyPair) error {
	if err := a.saveKey(name, pair.key); err != nil {
		return err
	}
	return a.saveCertificates(name, pair.certificate)
}

func (a *Authority) saveKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the key %q: %w", name, err)
	}
	return a.change(name+keyPE, func(path string) error { return writePEM(path, pemKey, der) })
}

func (a *Authority) saveCertificates(name string, certificates ...*x509.Certificate) error {
	var ders [][]byte
	for _, c := range certificates {
		ders = append(ders, c.Raw)
	}
	return a.change(name+certificatePE, func(path string) error { return writePEM(path, pemCertificate, ders...) })
}

func (a *Authority) rename(from, to string) error {
	return a.change(to, func(path string) error {
		if err := os.Rename(a.path(from), path); err != nil {
			return err
		}
		return durable.SyncFolder(a.dir)
	})
}

// remove removes a file if it is there.
func (a *Authority) remove(file string) error {
	if _, err := os.Stat(a.path(file)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return a.change(file, os.Remove)
}

// change changes a file of the folder; everything that does goes through here.
func (a *Authority) change(file string, how func(path string) error) error {
	if a.cut != nil {
		if err := a.cut(file); err != nil {
			return err
		}
	}
	return how(a.path(file))
}

// writePEM writes a file with one block for each of ders.
func writePEM(path, kind string, ders ...[]byte) error {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	return durable.WriteFile(path, text, 0o600)
}

// load reads a certificate and its key. The error is os.ErrNotExist when the certificate is not there.
func (a *Authority) load(name string) (*keyPair, error) {
	pair, _, err := a.loadAll(name)
	return pair, err
}

// loadAll is load for a file that may have further certificates; all are returned.
func (a *Authority) loadAll(name string) (*keyPair, []*x509.Certificate, error) {
	certificatePath, keyPath := a.path(name+certificatePE), a.path(name+keyPE)
	certificates, err := readCertificates(certificatePath)
	if err != nil {
		return nil, nil, err
	}
	key, err := readKey(keyPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s is there, but its key %s is missing; restore it from a backup, "+
			"or remove the whole folder to begin with a new CA", certificatePath, filepath.Base(keyPath))
	}
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(certificates[0].PublicKey) {
		return nil, nil, fmt.Errorf("%s is not the key of %s; restore both from one backup", keyPath, filepath.Base(certificatePath))
	}
	return &keyPair{certificate: certificates[0], key: key}, certificates, nil
}

// readKey reads a key, in PKCS #8 or as OpenSSL writes those of elliptic curves, and sees to it that nobody else can. The error is
// os.ErrNotExist when it is not there.
func readKey(path string) (*ecdsa.PrivateKey, error) {
	blocks, err := readPEM(path, pemKey, pemECKey)
	if err != nil {
		return nil, err
	}
	if err := tighten(path, 0o600); err != nil {
		return nil, err
	}
	if blocks[0].Type == pemECKey {
		key, err := x509.ParseECPrivateKey(blocks[0].Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s holds no private key: %w", path, err)
		}
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(blocks[0].Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key that is not ECDSA; restore it from a backup", path)
	}
	return key, nil
}

// readCertificates reads one certificate or more.
func readCertificates(path string) ([]*x509.Certificate, error) {
	blocks, err := readPEM(path, pemCertificate)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, block := range blocks {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s holds no certificate: %w", path, err)
		}
		out = append(out, certificate)
	}
	return out, nil
}

// readPEM returns the blocks of these kinds in a file, at least one.
func readPEM(path string, kinds ...string) ([]*pem.Block, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []*pem.Block
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		if data = rest; slices.Contains(kinds, block.Type) {
			out = append(out, block)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no PEM block of type %q; restore it from a backup", path, kinds[0])
	}
	return out, nil
}
