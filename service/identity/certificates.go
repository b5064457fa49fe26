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
	"slices"
	"time"
)

// How long certificates live. Short ones renew themselves.
const (
	caLife       = 10 * 365 * 24 * time.Hour
	agentsLife   = 365 * 24 * time.Hour // of the authority for agents
	serverLife   = 90 * 24 * time.Hour
	userLife     = 365 * 24 * time.Hour
	agentLife    = 24 * time.Hour
	minAgentLife = 5 * time.Second // certificates count in seconds
	// clockSkew is how far other machines' clocks may be behind; for certificates that live less than an hour it is less.
	clockSkew = 5 * time.Minute
)

// open opens what is in the folder and makes what is missing or old.
func (a *Authority) open() (*trust, error) {
	if err := a.finishRotation(); err != nil {
		return nil, err
	}
	t := new(trust)
	if err := a.openRoots(t); err != nil {
		return nil, err
	}
	if err := a.openAgents(t); err != nil {
		return nil, err
	}
	server, err := a.openServer(t)
	if err != nil {
		return nil, err
	}
	if err := t.complete(server).check(a.now(), a.CACertificatePath()); err != nil {
		return nil, err
	}
	return t, a.openAdmin(t)
}

// openRoots loads the root, or makes it when the folder is new, and the one before during a rotation. A root whose certificate is
// missing, or does not permit an authority below it, gets a new one for the same key: its pin, and every certificate that it has
// signed, stay good.
func (a *Authority) openRoots(t *trust) error {
	pair, all, err := a.loadAll(caFile)
	if errors.Is(err, os.ErrNotExist) {
		if t.root, err = a.makeRoot(); err != nil {
			return err
		}
		return a.saveCertificates(caFile, t.root.certificate)
	}
	if err != nil {
		return err
	}
	if err := a.checkCA(pair.certificate); err != nil {
		return err
	}
	t.root = pair
	if err := a.openFormer(t, all); err != nil || !pair.certificate.MaxPathLenZero {
		return err
	}
	template := *pair.certificate // with its names, dates and limits
	template.SerialNumber, template.MaxPathLen, template.MaxPathLenZero = nil, 1, false
	if t.root, err = sign(&template, pair.key, &keyPair{certificate: &template, key: pair.key}); err != nil {
		return err
	}
	return a.saveCertificates(caFile, t.roots()...)
}

// makeRoot makes the certificate of a root, and its key when there is none.
func (a *Authority) makeRoot() (*keyPair, error) {
	key, err := readKey(a.path(caFile + keyPE))
	if errors.Is(err, os.ErrNotExist) {
		if key, err = a.newCAKey(); err == nil {
			err = a.saveKey(caFile, key)
		}
	}
	if err != nil {
		return nil, err
	}
	template := a.rootTemplate(pkix.Name{CommonName: "Hodei Jobs CA"})
	if admin, err := a.load(adminFile); err == nil { // then it must have the name by which that knows it
		template.RawSubject = admin.certificate.RawIssuer
	}
	return sign(template, key, &keyPair{certificate: template, key: key})
}

// newCAKey makes a key for a new CA, unless certificates show that there was one: to replace it would lock every agent out.
func (a *Authority) newCAKey() (*ecdsa.PrivateKey, error) {
	for _, name := range []string{serverFile, adminFile} {
		path := a.path(name + certificatePE)
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, fmt.Errorf("%s is there, but the CA that signed it is missing; restore %s%s and %s%s from a backup, "+
				"or remove the whole folder to begin with a new CA", path, caFile, certificatePE, caFile, keyPE))
		}
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// checkCA refuses a root with which no handshake could succeed.
func (a *Authority) checkCA(c *x509.Certificate) error {
	now := a.now()
	switch {
	case !c.IsCA:
		return fmt.Errorf("%s holds a certificate that is not a CA's; restore it from a backup", a.CACertificatePath())
	case c.CheckSignatureFrom(c) != nil:
		return fmt.Errorf("%s holds a CA that has not signed itself, or may not sign others; put a root there, so that every client takes it",
			a.CACertificatePath())
	case now.Before(c.NotBefore):
		return fmt.Errorf("the CA in %s is good only from %s on, and it is %s now; set this machine's clock",
			a.CACertificatePath(), c.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("the CA in %s expired on %s; remove the whole folder to begin with a new CA, then enrol the agents again",
			a.CACertificatePath(), c.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// usable reports whether a certificate that was loaded can go on: it is not old, and signed by the root.
func (a *Authority) usable(t *trust, c *x509.Certificate) bool {
	return !a.old(c) && c.CheckSignatureFrom(t.root.certificate) == nil
}

// old reports whether two thirds of a certificate's life are over, or it has not begun because the clock was set back.
func (a *Authority) old(c *x509.Certificate) bool {
	now, life := a.now(), c.NotAfter.Sub(c.NotBefore)
	return now.Before(c.NotBefore) || now.After(c.NotBefore.Add(life*2/3))
}

// openAgents loads the authority for agents, or makes one when it is missing or old.
func (a *Authority) openAgents(t *trust) error {
	pair, err := a.load(agentsFile)
	if err != nil || !a.usable(t, pair.certificate) {
		if pair, err = a.issueAgents(t); err != nil {
			return err
		}
		if err := a.save(agentsFile, pair); err != nil {
			return err
		}
	}
	t.agents = pair
	return nil
}

// issueAgents makes an authority that can sign for agents and for nobody else: not for users, whose identities it may not name, and
// not for servers, whose names it may not use.
func (a *Authority) issueAgents(t *trust) (*keyPair, error) {
	template := a.template(pkix.Name{CommonName: "Hodei Jobs agents CA"}, agentsLife)
	template.IsCA, template.MaxPathLenZero, template.KeyUsage = true, true, x509.KeyUsageCertSign
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.PermittedDNSDomainsCritical = true // all of the constraints, not only those on DNS names
	template.PermittedURIDomains = []string{agentHost}
	template.ExcludedDNSDomains = []string{""}
	template.ExcludedEmailAddresses = []string{""}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		_, network, err := net.ParseCIDR(all)
		if err != nil {
			return nil, err
		}
		template.ExcludedIPRanges = append(template.ExcludedIPRanges, network)
	}
	return issue(template, t.root)
}

// openServer loads the server's certificate, or makes one when it is missing, old, or for other hosts.
func (a *Authority) openServer(t *trust) (*keyPair, error) {
	pair, err := a.load(serverFile)
	if err == nil && a.usable(t, pair.certificate) && slices.Equal(certificateHosts(pair.certificate), a.hosts) {
		return pair, nil
	}
	if pair, err = a.issueServer(t); err != nil {
		return nil, err
	}
	return pair, a.save(serverFile, pair)
}

func (a *Authority) issueServer(t *trust) (*keyPair, error) {
	template := a.template(pkix.Name{CommonName: "Hodei Jobs server"}, serverLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range a.hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return issue(template, t.root)
}

// openAdmin makes the administrator's certificate when it is missing or old.
func (a *Authority) openAdmin(t *trust) error {
	pair, err := a.load(adminFile)
	if err == nil && a.usable(t, pair.certificate) {
		return nil
	}
	template := a.template(pkix.Name{CommonName: Administrator}, userLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{Principal{Kind: User, Name: Administrator}.uri()}
	if pair, err = issue(template, t.root); err != nil {
		return err
	}
	return a.save(adminFile, pair)
}

// issue makes a key and a certificate for it.
func issue(template *x509.Certificate, signer *keyPair) (*keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return sign(template, key, signer)
}

// sign makes a certificate for key.
func sign(template *x509.Certificate, key *ecdsa.PrivateKey, signer *keyPair) (*keyPair, error) {
	certificate, err := signKey(template, &key.PublicKey, signer)
	return &keyPair{certificate: certificate, key: key}, err
}

// signKey makes a certificate for a key that somebody else may have. It ends no later than its signer's.
func signKey(template *x509.Certificate, key *ecdsa.PublicKey, signer *keyPair) (*x509.Certificate, error) {
	if last := signer.certificate.NotAfter; template.NotAfter.After(last) {
		template.NotAfter = last
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.certificate, key, signer.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %q: %w", template.Subject.CommonName, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of %q: %w", template.Subject.CommonName, err)
	}
	return certificate, nil
}

// template is what all certificates have in common; signing gives it a random serial number.
func (a *Authority) template(subject pkix.Name, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject: subject, NotBefore: a.now().Add(-min(clockSkew, life/12)), NotAfter: a.now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
}

// rootTemplate is what a root is made from: with room for one authority below it.
func (a *Authority) rootTemplate(subject pkix.Name) *x509.Certificate {
	template := a.template(subject, caLife)
	template.IsCA, template.MaxPathLen = true, 1
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return template
}
