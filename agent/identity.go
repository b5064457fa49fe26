package agent

import (
	"context"
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
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
)

// identity is who the agent is: its key, which never leaves the machine, its certificate, and the CA that it trusts.
type identity struct {
	dir string

	mu          sync.Mutex
	certificate tls.Certificate
	roots       *x509.CertPool
}

// Files of an identity. The key is written first and the certificate last, so an identity with a certificate is whole.
const (
	keyFile         = "key.pem"
	caFile          = "ca.pem"
	certificateFile = "certificate.pem"
)

// openIdentity loads the identity from the state folder, or enrols with the token.
func openIdentity(ctx context.Context, config Config) (*identity, error) {
	id := &identity{dir: filepath.Join(config.StateDir, "identity")}
	err := id.load()
	switch {
	case err == nil && time.Now().Before(id.certificate.Leaf.NotAfter):
		return id, nil
	case err == nil && config.Token == "":
		return nil, fmt.Errorf("the agent's certificate expired on %s; enrol again: make a token with `hodei token create` and give it with --token",
			id.certificate.Leaf.NotAfter.Format(time.RFC3339))
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	case config.Token == "":
		return nil, errors.New("this agent has no identity yet and no token to get one: make one with `hodei token create` and give it with --token")
	}
	if err := id.enroll(ctx, config); err != nil {
		return nil, err
	}
	return id, nil
}

func (id *identity) load() error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(id.dir, certificateFile), filepath.Join(id.dir, keyFile))
	if errors.Is(err, os.ErrNotExist) {
		return os.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("the agent's identity in %s is damaged: %w; remove that folder and enrol again with a new token", id.dir, err)
	}
	ca, err := os.ReadFile(filepath.Join(id.dir, caFile))
	if err != nil {
		return fmt.Errorf("the agent's identity in %s lacks the CA: %w; remove that folder and enrol again with a new token", id.dir, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s holds no certificate; remove %s and enrol again with a new token", filepath.Join(id.dir, caFile), id.dir)
	}
	id.certificate, id.roots = pair, roots
	return nil
}

// enroll trades the token for an identity. The server is known by the pin of its CA.
func (id *identity) enroll(ctx context.Context, config Config) error {
	if config.CAPin == "" {
		return errors.New("a token needs --ca-pin, by which the agent knows the right server; `hodei token create` prints both")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := request(key)
	if err != nil {
		return err
	}
	security := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The CA is not known before the enrolment, so the chain is checked against the pin instead.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection:   func(state tls.ConnectionState) error { return checkPin(state, config.CAPin) },
	}
	client := newConnectClient(config.ServerURL, security)
	defer client.close()
	answer, err := hwpv1connect.NewWorkerServiceClient(client.client).Enroll(ctx,
		&hwpv1.EnrollRequest{Token: config.Token, CsrDer: csr, Name: config.Name})
	if err != nil {
		return fmt.Errorf("enrolling with %s: %w", config.ServerURL, explainRemote(err))
	}
	config.Logger.Info("enrolled", "worker", answer.GetWorkerId())
	return id.store(key, answer.GetChainDer(), answer.GetRootsDer())
}

// checkPin verifies that the server's certificate was signed by the CA that the pin names.
func checkPin(state tls.ConnectionState, pin string) error {
	seen := "no CA at all"
	for _, c := range state.PeerCertificates[1:] {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		seen = "sha256:" + hex.EncodeToString(sum[:])
		if seen != pin || !c.IsCA {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, DNSName: state.ServerName})
		return err
	}
	return fmt.Errorf("the server shows %s and --ca-pin says %s: this is another server, or somebody is in between; "+
		"take the pin from `hodei token create` on the right one", seen, pin)
}

func request(key *ecdsa.PrivateKey) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "hodei agent"}}, key)
}

// store writes a new identity and takes it into use.
func (id *identity) store(key *ecdsa.PrivateKey, chainDER, rootsDER [][]byte) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(id.dir, 0o700); err != nil {
		return fmt.Errorf("making the folder for the agent's identity: %w", err)
	}
	for _, file := range []struct {
		name, kind string
		ders       [][]byte
	}{{keyFile, "PRIVATE KEY", [][]byte{keyDER}}, {caFile, "CERTIFICATE", rootsDER}, {certificateFile, "CERTIFICATE", chainDER}} {
		var data []byte
		for _, der := range file.ders {
			data = append(data, pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: der})...)
		}
		if err := replaceFile(filepath.Join(id.dir, file.name), data); err != nil {
			return err
		}
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.load()
}

// tlsConfig is for the agent's connections: always with the newest certificate.
func (id *identity) tlsConfig() *tls.Config {
	id.mu.Lock()
	defer id.mu.Unlock()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    id.roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			id.mu.Lock()
			defer id.mu.Unlock()
			certificate := id.certificate
			return &certificate, nil
		},
		DynamicRecordSizingDisabled: true,
	}
}
