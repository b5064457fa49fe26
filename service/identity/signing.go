package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// Bounds of what a certificate carries: a handshake must stay small.
const (
	maxRequestBytes = 8 << 10 // of a certificate request; one for a P-256 key has a few hundred bytes
	maxUserLength   = 128     // characters, also of a group
	maxGroups       = 200
)

// Issued is a certificate that was signed, with what its owner needs beside it.
type Issued struct {
	Chain   [][]byte  // the certificate in DER, then those between it and the root
	Roots   [][]byte  // by which clients know the server, in DER: the one that signs first; not to be changed
	Root    string    // the pin of the root above the certificate
	Expires time.Time // when it ends to be good
}

// SignAgent signs the request (PKCS #10, DER) of an agent: a certificate for a worker's identity, with its generation (1 or more), and
// for nothing else that the request may ask for. The error, a *job.Error, says what is wrong with the request.
func (a *Authority) SignAgent(csrDER []byte, id job.WorkerID, generation int) (Issued, error) {
	key, err := requestedKey(csrDER)
	if err != nil {
		return Issued{}, err
	}
	t, err := a.agentsTrust()
	if err != nil {
		return Issued{}, err
	}
	template := a.template(pkix.Name{CommonName: string(id), SerialNumber: strconv.Itoa(generation)}, a.agentLife)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{Principal{Kind: Agent, Worker: id}.uri()}
	certificate, err := signKey(template, key, t.agents)
	if err != nil {
		return Issued{}, err
	}
	return t.issued(certificate, t.agents.certificate.Raw), nil
}

// agentsTrust returns what to sign with for agents; the authority for them is renewed when it is old.
func (a *Authority) agentsTrust() (*trust, error) {
	if t := a.trust.Load(); !a.old(t.agents.certificate) {
		return t, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := *a.trust.Load()
	if err := a.openAgents(&t); err != nil {
		return nil, err
	}
	a.trust.Store(&t)
	return &t, nil
}

// SignUser signs the request (PKCS #10, DER) of a user: a certificate for their name, with the groups to which they belong and the
// login that it belongs to ("" for none), good for life, and for nothing else that the request may ask for. The error, a
// *job.Error, says what is wrong with the request, the name or a group.
func (a *Authority) SignUser(csrDER []byte, user string, groups []string, login string, life time.Duration) (Issued, error) {
	key, err := requestedKey(csrDER)
	if err != nil {
		return Issued{}, err
	}
	if len(groups) > maxGroups {
		return Issued{}, badRequest("%.32q is in %d groups, and a certificate has room for %d; let the provider name fewer", user, len(groups), maxGroups)
	}
	for _, name := range slices.Concat([]string{user}, groups) {
		if !printable(name, maxUserLength) {
			return Issued{}, badRequest("%.32q cannot be the name of a user or a group; it must have 1 to %d printable characters", name, maxUserLength)
		}
	}
	t := a.trust.Load()
	template := a.template(pkix.Name{CommonName: user, Organization: groups, SerialNumber: login}, life)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{Principal{Kind: User, Name: user}.uri()}
	certificate, err := signKey(template, key, t.root)
	if err != nil {
		return Issued{}, err
	}
	if p, err := PrincipalOf(certificate); err != nil || p.Name != user || p.Login != login {
		return Issued{}, badRequest("%.32q cannot be the name of a user: a certificate does not give it back as it is; leave out slashes", user)
	}
	return t.issued(certificate), nil
}

func (t *trust) issued(certificate *x509.Certificate, between ...[]byte) Issued {
	return Issued{
		Chain: append([][]byte{certificate.Raw}, between...), Roots: t.rootsDER(), Root: pinOf(t.root.certificate), Expires: certificate.NotAfter,
	}
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
