package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// PEM types.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// save signs a template for key and writes the key, then the certificate. The order matters: a crash in between leaves a
// key alone, which load treats as nothing.
func (a *Authority) save(name string, template *x509.Certificate, signer *keyPair, key *ecdsa.PrivateKey) (*keyPair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, signer.certificate, &key.PublicKey, signer.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate %q: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(a.dir, name+keyPE), pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: keyDER})); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(a.dir, name+certificatePE), pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})); err != nil {
		return nil, err
	}
	return &keyPair{certificate: certificate, key: key}, nil
}

// writeFile writes a file so that after a crash it is there whole or not at all.
func writeFile(path string, data []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // made with mode 0600
	if err != nil {
		return err
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
	keyDER, err := readPEM(keyPath, pemKey)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is there, but its key %s is missing; restore it from a backup, or remove the whole folder to begin with a new CA",
			certificatePath, filepath.Base(keyPath))
	}
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("%s holds no private key: %w", keyPath, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s; restore both from one backup", keyPath, filepath.Base(certificatePath))
	}
	return &keyPair{certificate: certificate, key: key}, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil && block.Type == kind {
		return block.Bytes, nil
	}
	return nil, fmt.Errorf("%s has no PEM block of type %q", path, kind)
}
