package identity

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"path/filepath"
	"sync"
	"time"
)

// Names of the files in the authority's folder.
const (
	caFile        = "ca"
	serverFile    = "server"
	adminFile     = "admin"
	certificatePE = ".pem"
	keyPE         = "-key.pem"
)

// Authority is the certificate authority of a server. Its methods may be called from several goroutines at once.
type Authority struct {
	dir   string
	hosts []string
	now   func() time.Time
	ca    *keyPair

	mu     sync.Mutex
	server *tls.Certificate
}

// keyPair is a certificate with its key.
type keyPair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// OpenAuthority opens the authority in dir. The first time it makes a CA, a certificate for the server, valid for
// localhost, this machine's name and hosts, and one for the administrator; later it renews the latter two when they are
// old. What a crash left half made is completed. Keys are readable by their owner only. The error says what is wrong with
// the folder or a host, and what to do.
//
// One process at a time may use a folder; now is the clock by which certificates begin and end.
func OpenAuthority(dir string, hosts []string, now func() time.Time) (*Authority, error) {
	names, err := serverHosts(hosts)
	if err != nil {
		return nil, err
	}
	if err := openFolder(dir); err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, hosts: names, now: now}
	if a.ca, err = a.openCA(); err != nil {
		return nil, err
	}
	if err := a.openServer(); err != nil {
		return nil, err
	}
	if err := a.openAdmin(); err != nil {
		return nil, err
	}
	return a, nil
}

// CACertificatePath is the file with the CA's certificate, by which clients know the right server.
func (a *Authority) CACertificatePath() string { return filepath.Join(a.dir, caFile+certificatePE) }

// AdminCertificatePath is the file with the administrator's certificate.
func (a *Authority) AdminCertificatePath() string {
	return filepath.Join(a.dir, adminFile+certificatePE)
}

// AdminKeyPath is the file with the administrator's key.
func (a *Authority) AdminKeyPath() string { return filepath.Join(a.dir, adminFile+keyPE) }

// CADER returns the CA's certificate in DER. The caller must not change it.
func (a *Authority) CADER() []byte { return a.ca.certificate.Raw }

// Pin returns "sha256:" and the hash of the CA's public key, by which agents know the right server.
func (a *Authority) Pin() string {
	sum := sha256.Sum256(a.ca.certificate.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ServerTLS returns the settings of the API's listener: TLS 1.3, and a client certificate of this CA where one is given.
// Which calls need one is the business of each method's access rule.
func (a *Authority) ServerTLS() *tls.Config {
	clients := x509.NewCertPool()
	clients.AddCert(a.ca.certificate)
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: a.serverCertificate,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      clients,
		Time:           a.now,
		// A resumed session would not check the client's certificate again, so there are none.
		SessionTicketsDisabled: true,
		// Records of full size from the start: output comes in bulk.
		DynamicRecordSizingDisabled: true,
	}
}

// serverCertificate returns the server's certificate, renewed when it is old.
func (a *Authority) serverCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.old(a.server.Leaf) {
		return a.server, nil
	}
	pair, err := a.issueServer()
	if err != nil {
		return a.server, nil
	}
	a.server = a.withChain(pair)
	_ = a.save(serverFile, pair) // a full disk is no reason to serve an old certificate; the next boot makes another one
	return a.server, nil
}

// withChain lets the server send the CA too: an agent that enrols checks its pin against it.
func (a *Authority) withChain(p *keyPair) *tls.Certificate {
	return &tls.Certificate{
		Certificate: [][]byte{p.certificate.Raw, a.ca.certificate.Raw}, PrivateKey: p.key, Leaf: p.certificate,
	}
}
