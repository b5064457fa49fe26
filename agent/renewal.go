package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

const (
	// renewalRetry is how long the agent waits at most for an answer before it asks for a certificate again; it is less for a
	// certificate that does not live for long.
	renewalRetry = time.Minute
	// renewalSpread is over how long agents spread their wishes when the server asks all of them at once.
	renewalSpread = 3 * time.Second
)

// request makes a key and a request for its certificate (PKCS #10, DER).
func (id *identity) request() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.asked, id.again = key, false
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "hodei agent"}}, key)
}

// untilDue is how long until a certificate is to be asked for.
func (id *identity) untilDue() time.Duration {
	id.mu.Lock()
	defer id.mu.Unlock()
	return max(time.Until(id.due), 0)
}

// hasten has a certificate asked for soon, whatever becomes of a request that is under way.
func (id *identity) hasten() {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.again = true
	if at := soon(); at.Before(id.due) {
		id.due = at
	}
}

func soon() time.Time {
	return time.Now().Add(mathrand.N(renewalSpread)) //nolint:gosec // spreads load, hides nothing
}

// renewal returns the wish for a certificate when it is due; it is due again if no answer comes. The stream need not be opened anew: the
// next connection uses the new certificate.
func (id *identity) renewal() (*hwpv1.AgentMessage, error) {
	if id.untilDue() > 0 {
		return nil, nil
	}
	csr, err := id.request()
	if err != nil {
		return nil, err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	leaf := id.certificate.Leaf
	id.due = time.Now().Add(min(renewalRetry, leaf.NotAfter.Sub(leaf.NotBefore)/10))
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_CertificateRequest{
		CertificateRequest: &hwpv1.CertificateRequest{CsrDer: csr},
	}}, nil
}

// renewed takes in the answer.
func (a *agent) renewed(answer *hwpv1.Certificate) {
	if err := a.identity.accept(answer.GetChainDer(), answer.GetRootsDer()); err != nil {
		a.config.Logger.Warn("the certificate was not renewed; the agent will ask again", "error", err)
		return
	}
	a.config.Logger.Info("certificate renewed")
	a.signal() // the session's timer is for the former one
}

// checkPin verifies that a root which the pin names vouches for the server's certificate. During a rotation of the authority that may
// take a certificate in between.
func checkPin(state tls.ConnectionState, host, pin string) error {
	others := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		others.AddCert(c)
	}
	problem := fmt.Errorf("the server shows no CA with the pin %s of --ca-pin: this is another server, or somebody is in between; "+
		"take the pin from `hodei token create` on the right one", pin)
	for _, c := range state.PeerCertificates[1:] {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		if "sha256:"+hex.EncodeToString(sum[:]) != pin || !c.IsCA {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: host})
		if err == nil {
			return nil
		}
		problem = err
	}
	return problem
}
