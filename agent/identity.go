package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect/v2"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
)

// identity is who the agent is: its key, which never leaves the machine, its certificate, and the roots by which it knows the
// server.
type identity struct {
	dir string

	mu          sync.Mutex
	certificate tls.Certificate // with those between it and the root
	roots       *x509.CertPool
	due         time.Time         // when to ask for the next certificate
	asked       *ecdsa.PrivateKey // the key of the last request that was not answered; nil: none
	again       bool              // the answer to that may be too old
}

// Files of an identity. Key and certificate are in one file, so that they change together; the roots are written before it, and
// hold those by which the server is known now. Earlier versions had the key and the certificate in files of their own.
const (
	identityFile    = "identity.pem"
	caFile          = "ca.pem"
	formerKeyFile   = "key.pem"
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
		return nil, id.expired()
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	case config.Token == "":
		return nil, errors.New("this agent has no identity yet and no token to get one: make one with `hodei token create` and give it with --token-file")
	}
	if err := id.enroll(ctx, config); err != nil {
		return nil, err
	}
	return id, nil
}

// expired returns an error that says that the certificate has ended, once it has.
func (id *identity) expired() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if end := id.certificate.Leaf.NotAfter; !time.Now().Before(end) {
		return fmt.Errorf("the agent's certificate expired on %s; enrol again: make a token with `hodei token create` and give it with --token-file",
			end.Format(time.RFC3339))
	}
	return nil
}

// load reads the identity. The error is os.ErrNotExist when there is none.
func (id *identity) load() error {
	pair, err := id.loadPair()
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
	id.certificate, id.roots, id.due = pair, roots, renewalTime(pair.Leaf)
	return nil
}

func (id *identity) loadPair() (tls.Certificate, error) {
	path := filepath.Join(id.dir, identityFile)
	pair, err := tls.LoadX509KeyPair(path, path)
	if errors.Is(err, os.ErrNotExist) {
		return tls.LoadX509KeyPair(filepath.Join(id.dir, certificateFile), filepath.Join(id.dir, formerKeyFile))
	}
	return pair, err
}

// renewalTime is when two thirds of a certificate's life are over, and a little later, so that many agents do not ask at once.
func renewalTime(leaf *x509.Certificate) time.Time {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(life*2/3 + rand.N(life/20+1)) //nolint:gosec // spreads load, hides nothing
}

// enroll trades the token for an identity. The server is known by the pin of its CA.
func (id *identity) enroll(ctx context.Context, config Config) error {
	if config.CAPin == "" {
		return errors.New("a token needs --ca-pin, by which the agent knows the right server; `hodei token create` prints both")
	}
	if strings.HasPrefix(config.Token, "hodei_") {
		return errors.New("the token is an API token, with which people and scripts log in; agents join with one of `hodei token create`")
	}
	server, err := url.Parse(config.ServerURL)
	if err != nil {
		return fmt.Errorf("the address of the server: %w", err)
	}
	csr, err := id.request()
	if err != nil {
		return err
	}
	security := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The CA is not known before the enrolment, so the chain is checked against the pin instead.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does it
		VerifyConnection:   func(state tls.ConnectionState) error { return checkPin(state, server.Hostname(), config.CAPin) },
	}
	client := newConnectClient(config.ServerURL, security)
	defer client.close()
	request := &hwpv1.EnrollRequest{Token: config.Token, CsrDer: csr, Name: config.Name}
	answer, err := hwpv1connect.NewWorkerServiceClient(client.client).Enroll(ctx, request)
	for wait := shortestEnrolWait; turnedAway(err); wait = min(2*wait, longestEnrolWait) {
		config.Logger.Warn("the server cannot enrol this agent now; trying again", "server", config.ServerURL, "reason", explainRemote(err))
		if err = sleep(ctx, wait/2+rand.N(wait)); err == nil { //nolint:gosec // spreads load, hides nothing
			answer, err = hwpv1connect.NewWorkerServiceClient(client.client).Enroll(ctx, request)
		}
	}
	if err != nil {
		return fmt.Errorf("enrolling with %s: %w", config.ServerURL, explainRemote(err))
	}
	config.Logger.Info("enrolled", "worker", answer.GetWorkerId())
	return id.accept(answer.GetChainDer(), answer.GetRootsDer())
}

// Waits before an enrolment is tried again grow from shortest to longest. Many machines may start at the same moment.
const (
	shortestEnrolWait = time.Second
	longestEnrolWait  = 30 * time.Second
)

// turnedAway reports whether the server has refused a call, or the connection, as it would any other now, without a look at what it says.
func turnedAway(err error) bool {
	var wire *connect.Error
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) {
		return true
	}
	return errors.As(err, &wire) && wire.IsRemote() && (wire.Code() == connect.CodeResourceExhausted || wire.Code() == connect.CodeUnavailable)
}

// sleep waits, or returns the context's error when that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	pause := time.NewTimer(d)
	defer pause.Stop()
	select {
	case <-pause.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// accept stores the certificate that was asked for, with those between it and the root, and the roots, and takes it into use. After a
// crash at any moment the former identity is there or the new one, whole.
func (id *identity) accept(chainDER, rootsDER [][]byte) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	key := id.asked
	if key == nil || len(chainDER) == 0 || len(rootsDER) == 0 {
		return errors.New("the server sent a certificate that was not asked for, or a part of one")
	}
	leaf, err := x509.ParseCertificate(chainDER[0])
	if err != nil {
		return fmt.Errorf("the server sent what is no certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("the server sent a certificate for another key")
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(id.dir, 0o700); err != nil {
		return fmt.Errorf("making the folder for the agent's identity: %w", err)
	}
	whole := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), certificatesPEM(chainDER)...)
	if err := replaceFile(filepath.Join(id.dir, caFile), certificatesPEM(rootsDER)); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(id.dir, identityFile), whole); err != nil {
		return err
	}
	// Before it is used: whoever falls back to a former certificate after that counts as a double.
	if err := syncFolder(id.dir); err != nil {
		return err
	}
	if err := id.load(); err != nil {
		return err
	}
	id.asked = nil
	if id.again {
		id.due = soon()
	}
	for _, name := range []string{certificateFile, formerKeyFile} {
		_ = os.Remove(filepath.Join(id.dir, name)) // of an earlier version, not read any more
	}
	return nil
}

func certificatesPEM(ders [][]byte) []byte {
	var out bytes.Buffer
	for _, der := range ders {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return out.Bytes()
}

// tlsConfig is for the agent's connections: with the certificate and the roots of now.
func (id *identity) tlsConfig() *tls.Config {
	id.mu.Lock()
	defer id.mu.Unlock()
	certificate := id.certificate
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		RootCAs:                     id.roots,
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
		DynamicRecordSizingDisabled: true,
	}
}
