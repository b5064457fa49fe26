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
)

// PEM types.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// newFiles is the pattern of files that are being written.
const newFiles = ".new-*"

// openFolder makes the folder, closes it to others, and removes what a crash left of files that were being written.
func openFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder for certificates: %w", err)
	}
	if err := tighten(dir, 0o700); err != nil {
		return err
	}
	rest, err := filepath.Glob(filepath.Join(dir, newFiles))
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
	der, err := x509.MarshalPKCS8PrivateKey(pair.key)
	if err != nil {
		return fmt.Errorf("encoding the key %q: %w", name, err)
	}
	path := filepath.Join(a.dir, name)
	if err := writePEM(path+keyPE, pemKey, der); err != nil {
		return err
	}
	return writePEM(path+certificatePE, pemCertificate, pair.certificate.Raw)
}

// writePEM writes a file with one block.
func writePEM(path, kind string, der []byte) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// writeFile writes a file so that after a crash it is there whole, as it was before, or not at all.
func writeFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), newFiles) // made with mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	err = errors.Join(err, temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(temp.Name()))
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a rename survive the loss of power.
func syncFolder(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // folders cannot be synced there, and need not be
	}
	folder, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	if err := errors.Join(folder.Sync(), folder.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}

// load reads a certificate and its key. The error is os.ErrNotExist when the certificate is not there.
func (a *Authority) load(name string) (*keyPair, error) {
	certificatePath, keyPath := filepath.Join(a.dir, name+certificatePE), filepath.Join(a.dir, name+keyPE)
	der, err := readPEM(certificatePath, pemCertificate)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s holds no certificate: %w", certificatePath, err)
	}
	key, err := readKey(keyPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is there, but its key %s is missing; restore it from a backup, "+
			"or remove the whole folder to begin with a new CA", certificatePath, filepath.Base(keyPath))
	}
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s; restore both from one backup", keyPath, filepath.Base(certificatePath))
	}
	return &keyPair{certificate: certificate, key: key}, nil
}

// readKey reads a key and sees to it that nobody else can. The error is os.ErrNotExist when it is not there.
func readKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(path, pemKey)
	if err != nil {
		return nil, err
	}
	if err := tighten(path, 0o600); err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key that is not ECDSA; restore it from a backup", path)
	}
	return key, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil && block.Type == kind {
		return block.Bytes, nil
	}
	return nil, fmt.Errorf("%s has no PEM block of type %q; restore it from a backup", path, kind)
}
