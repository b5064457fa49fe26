package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
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

// maxRequestBytes bounds a certificate request; one for a P-256 key has a few hundred bytes.
const maxRequestBytes = 8 << 10

// openCA loads the CA, or makes it when the folder is new. A CA whose certificate is missing gets a new one for the same
// key: its pin, and every certificate that it has signed, stay good.
func (a *Authority) openCA() (*keyPair, error) {
	pair, err := a.load(caFile)
	if err == nil {
		return pair, a.checkCA(pair.certificate)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	key, err := readKey(filepath.Join(a.dir, caFile+keyPE))
	if errors.Is(err, os.ErrNotExist) {
		key, err = a.newCAKey()
	}
	if err != nil {
		return nil, err
	}
	template := a.template(pkix.Name{CommonName: "Hodei Jobs CA"}, caLife)
	template.IsCA, template.MaxPathLenZero = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if pair, err = sign(template, key, &keyPair{certificate: template, key: key}); err != nil {
		return nil, err
	}
	return pair, a.save(caFile, pair)
}

// newCAKey makes a key for a new CA, unless certificates show that there was one: to replace it would lock every agent out.
func (a *Authority) newCAKey() (*ecdsa.PrivateKey, error) {
	for _, name := range []string{serverFile, adminFile} {
		path := filepath.Join(a.dir, name+certificatePE)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, fmt.Errorf("%s is there, but the CA that signed it is missing; restore %s%s and %s%s from a backup, "+
				"or remove the whole folder to begin with a new CA", path, caFile, certificatePE, caFile, keyPE))
		}
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// checkCA refuses a CA with which no handshake could succeed.
func (a *Authority) checkCA(c *x509.Certificate) error {
	now := a.now()
	switch {
	case !c.IsCA:
		return fmt.Errorf("%s holds a certificate that is not a CA's; restore it from a backup", a.CACertificatePath())
	case now.Before(c.NotBefore):
		return fmt.Errorf("the CA in %s is good only from %s on, and it is %s now; set this machine's clock",
			a.CACertificatePath(), c.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("the CA in %s expired on %s; remove the whole folder to begin with a new CA, then enrol the agents again",
			a.CACertificatePath(), c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// usable reports whether a certificate that was loaded can go on: it is not old, and of this CA.
func (a *Authority) usable(c *x509.Certificate) bool {
	return !a.old(c) && c.CheckSignatureFrom(a.ca.certificate) == nil
}

// old reports whether two thirds of a certificate's life are over, or it has not begun because the clock was set back.
func (a *Authority) old(c *x509.Certificate) bool {
	now, life := a.now(), c.NotAfter.Sub(c.NotBefore)
	return now.Before(c.NotBefore) || now.After(c.NotBefore.Add(life*2/3))
}

// openServer loads the server's certificate, or makes one when it is missing, old, or for other hosts.
func (a *Authority) openServer() error {
	pair, err := a.load(serverFile)
	if err != nil || !a.usable(pair.certificate) || !slices.Equal(certificateHosts(pair.certificate), a.hosts) {
		if pair, err = a.issueServer(); err != nil {
			return err
		}
		if err := a.save(serverFile, pair); err != nil {
			return err
		}
	}
	a.server = a.withChain(pair)
	return nil
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
	return a.issue(template)
}

// openAdmin makes the administrator's certificate when it is missing or old.
func (a *Authority) openAdmin() error {
	pair, err := a.load(adminFile)
	if err == nil && a.usable(pair.certificate) {
		return nil
	}
	template := a.template(pkix.Name{CommonName: Administrator}, userLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{Principal{Kind: User, Name: Administrator}.uri()}
	if pair, err = a.issue(template); err != nil {
		return err
	}
	return a.save(adminFile, pair)
}

// issue makes a key and a certificate for it.
func (a *Authority) issue(template *x509.Certificate) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return sign(template, key, a.ca)
}

// sign makes a certificate for key.
func sign(template *x509.Certificate, key *ecdsa.PrivateKey, signer *keyPair) (*keyPair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, signer.certificate, &key.PublicKey, signer.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %q: %w", template.Subject.CommonName, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of %q: %w", template.Subject.CommonName, err)
	}
	return &keyPair{certificate: certificate, key: key}, nil
}

// SignAgent signs the request (PKCS #10, DER) of an agent: a certificate in DER for a worker's identity and nothing else
// that the request may ask for, good for a day. The error, a *job.Error, says what is wrong with the request.
func (a *Authority) SignAgent(csrDER []byte, id job.WorkerID) ([]byte, error) {
	key, err := requestedKey(csrDER)
	if err != nil {
		return nil, err
	}
	template := a.template(pkix.Name{CommonName: string(id)}, agentLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{Principal{Kind: Agent, Worker: id}.uri()}
	return x509.CreateCertificate(rand.Reader, template, a.ca.certificate, key, a.ca.key)
}

// requestedKey returns the key of a certificate request. Anybody may send one, so its size and the kind of its key are
// checked before the signature: to check that of a huge RSA key could take minutes.
func requestedKey(csrDER []byte) (*ecdsa.PublicKey, error) {
	if len(csrDER) > maxRequestBytes {
		return nil, badRequest("csr_der has %d bytes and may have %d; send a request for an ECDSA P-256 key", len(csrDER), maxRequestBytes)
	}
	request, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, badRequest("csr_der is no certificate request: %v", err)
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, badRequest("csr_der has a key that is not ECDSA P-256; make the agent's key with that curve")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, badRequest("csr_der is not signed by its own key: %v", err)
	}
	return key, nil
}

func badRequest(format string, args ...any) error {
	return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, format, args...)
}

// template is what all certificates have in common; signing gives it a random serial number.
func (a *Authority) template(subject pkix.Name, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject: subject, NotBefore: a.now().Add(-clockSkew), NotAfter: a.now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
}
