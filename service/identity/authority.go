package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// How long certificates live. Short ones renew themselves.
const (
	caLife     = 10 * 365 * 24 * time.Hour
	serverLife = 90 * 24 * time.Hour
	userLife   = 365 * 24 * time.Hour
	agentLife  = 24 * time.Hour
	// clockSkew is how far other machines' clocks may be behind.
	clockSkew = 5 * time.Minute
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
// old. Keys are readable by their owner only.
func OpenAuthority(dir string, hosts []string, now func() time.Time) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for certificates: %w", err)
	}
	a := &Authority{dir: dir, hosts: serverHosts(hosts), now: now}
	var err error
	if a.ca, err = a.openCA(); err != nil {
		return nil, err
	}
	if err := a.openServer(); err != nil {
		return nil, err
	}
	return a, a.openAdmin()
}

func serverHosts(hosts []string) []string {
	all := append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
	if name, err := os.Hostname(); err == nil {
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// CACertificatePath, AdminCertificatePath and AdminKeyPath are the files that a client of this server needs.
func (a *Authority) CACertificatePath() string { return filepath.Join(a.dir, caFile+certificatePE) }

// AdminCertificatePath is the file with the administrator's certificate.
func (a *Authority) AdminCertificatePath() string {
	return filepath.Join(a.dir, adminFile+certificatePE)
}

// AdminKeyPath is the file with the administrator's key.
func (a *Authority) AdminKeyPath() string { return filepath.Join(a.dir, adminFile+keyPE) }

// CADER returns the CA's certificate.
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
		return a.server, nil //nolint:nilerr // the old one is good for another month; the next handshake tries again
	}
	a.server = a.withChain(pair)
	return a.server, nil
}

// old reports whether two thirds of a certificate's life are over.
func (a *Authority) old(c *x509.Certificate) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	return a.now().After(c.NotBefore.Add(life * 2 / 3))
}

// withChain lets the server send the CA too: an agent that enrols checks its pin against it.
func (a *Authority) withChain(p *keyPair) *tls.Certificate {
	return &tls.Certificate{
		Certificate: [][]byte{p.certificate.Raw, a.ca.certificate.Raw}, PrivateKey: p.key, Leaf: p.certificate,
	}
}

func (a *Authority) openCA() (*keyPair, error) {
	pair, err := a.load(caFile)
	if err == nil {
		if !pair.certificate.IsCA {
			return nil, fmt.Errorf("%s holds a certificate that is not a CA's", a.CACertificatePath())
		}
		return pair, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := a.template(pkix.Name{CommonName: "Hodei Jobs CA"}, caLife)
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return a.save(caFile, template, &keyPair{certificate: template, key: key}, key)
}

func (a *Authority) openServer() error {
	pair, err := a.load(serverFile)
	fresh := err == nil && !a.old(pair.certificate) && slices.Equal(certificateHosts(pair.certificate), a.hosts) &&
		pair.certificate.CheckSignatureFrom(a.ca.certificate) == nil
	if !fresh {
		if pair, err = a.issueServer(); err != nil {
			return err
		}
	}
	a.server = a.withChain(pair)
	return nil
}

func certificateHosts(c *x509.Certificate) []string {
	hosts := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	slices.Sort(hosts)
	return hosts
}

func (a *Authority) issueServer() (*keyPair, error) {
	template := a.template(pkix.Name{CommonName: "Hodei Jobs server"}, serverLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range a.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return a.issue(serverFile, template)
}

func (a *Authority) openAdmin() error {
	pair, err := a.load(adminFile)
	if err == nil && !a.old(pair.certificate) && pair.certificate.CheckSignatureFrom(a.ca.certificate) == nil {
		return nil
	}
	template := a.template(pkix.Name{CommonName: Administrator}, userLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{Principal{Kind: User, Name: Administrator}.uri()}
	_, err = a.issue(adminFile, template)
	return err
}

// issue makes a key and a certificate for it, and writes both.
func (a *Authority) issue(name string, template *x509.Certificate) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return a.save(name, template, a.ca, key)
}

// SignAgent signs the request of an agent: a certificate for a worker's identity and nothing else that the request may ask
// for. The error, a *job.Error, says what is wrong with the request.
func (a *Authority) SignAgent(csrDER []byte, id job.WorkerID) ([]byte, error) {
	request, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "csr_der is no certificate request: %v", err)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "csr_der is not signed by its own key: %v", err)
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "csr_der has a key that is not ECDSA P-256")
	}
	template := a.template(pkix.Name{CommonName: string(id)}, agentLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{Principal{Kind: Agent, Worker: id}.uri()}
	return x509.CreateCertificate(rand.Reader, template, a.ca.certificate, key, a.ca.key)
}

func (a *Authority) template(subject pkix.Name, life time.Duration) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		serial = big.NewInt(a.now().UnixNano()) // crypto/rand does not fail; unique is all that a serial must be
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: a.now().Add(-clockSkew), NotAfter: a.now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
}
