package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
)

func TestSignAgent(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	key := newKey(t)
	issued, err := a.SignAgent(request(t, &x509.CertificateRequest{}, key), "wkr_01arz3ndektsv4rrffq69g5fav", 7)
	if err != nil {
		t.Fatal(err)
	}
	c := checkAgents(t, root(t, a), issued, now.Now())
	if GenerationOf(c) != 7 {
		t.Errorf("the certificate says that it is number %d", GenerationOf(c))
	}
	if !key.PublicKey.Equal(c.PublicKey) {
		t.Error("the certificate is for another key")
	}
	if p, err := PrincipalOf(c); err != nil || !reflect.DeepEqual(p, Principal{Kind: Agent, Worker: "wkr_01arz3ndektsv4rrffq69g5fav"}) {
		t.Errorf("the certificate is of %v (error %v)", p, err)
	}
}

// TestSignAgentGrantsNothingElse asks for all that a request can ask for.
func TestSignAgentGrantsNothingElse(t *testing.T) {
	t.Parallel()
	a := openAuthority(t, t.TempDir(), newClock().Now)
	constraints, err := asn1.Marshal(struct{ IsCA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.SignAgent(request(t, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "admin", Organization: []string{"evil"}},
		DNSNames: []string{"localhost"}, EmailAddresses: []string{"root@localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		URIs: []*url.URL{{Scheme: "hodei", Host: "user", Path: "/admin"}},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: constraints}, // basic constraints
		},
	}, newKey(t)), "wkr_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, issued.Chain[0])
	if c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(c.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("the certificate may be used for more than an agent needs: %+v", c)
	}
	if len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) > 0 || c.Subject.String() != "SERIALNUMBER=1,CN=wkr_1" {
		t.Errorf("the certificate names what the request asked for: %s %v %v %v", c.Subject, c.DNSNames, c.EmailAddresses, c.IPAddresses)
	}
	if p, err := PrincipalOf(c); err != nil || p.Kind != Agent || p.Worker != "wkr_1" {
		t.Errorf("the certificate is of %v (error %v)", p, err)
	}
}

func TestSignAgentRefuses(t *testing.T) {
	t.Parallel()
	a := openAuthority(t, t.TempDir(), newClock().Now)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	plain := &x509.CertificateRequest{}
	good := request(t, plain, newKey(t))
	large := request(t, &x509.CertificateRequest{DNSNames: []string{strings.Repeat("a", maxRequestBytes)}}, newKey(t))
	tests := []struct {
		name string
		csr  []byte
		want string
	}{
		{"nothing", nil, "no certificate request"},
		{"noise", []byte("noise"), "no certificate request"},
		{"a certificate", a.Roots()[0], "no certificate request"},
		{"cut", good[:len(good)-1], "no certificate request"},
		{"with a tail", append(slices.Clone(good), 0), "no certificate request"},
		{"P-384", request(t, plain, p384), "not ECDSA P-256"},
		{"Ed25519", request(t, plain, ed), "not ECDSA P-256"},
		{"RSA", request(t, plain, rsaKey), "not ECDSA P-256"},
		{"a huge RSA key", hugeRSARequest(t), "not ECDSA P-256"},
		{"too large", large, "8192"},
		{"the signature of another key", resigned(t, good), "not signed by its own key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			issued, err := a.SignAgent(tt.csr, "wkr_1", 1)
			var e *job.Error
			if !errors.As(err, &e) || e.Code != job.CodeInvalid || e.Reason != job.ReasonInvalidArgument || issued.Chain != nil {
				t.Fatalf("SignAgent = %x, %v, want a refusal", issued.Chain, err)
			}
			if !strings.Contains(e.Message, tt.want) {
				t.Errorf("the message %q does not say %q", e.Message, tt.want)
			}
		})
	}
}

// signedRequest is the outer shape of a certificate request.
type signedRequest struct {
	Info      asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

// resigned replaces the signature of a request by one that another key made.
func resigned(t *testing.T, der []byte) []byte {
	t.Helper()
	var mine, other signedRequest
	if _, err := asn1.Unmarshal(der, &mine); err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(request(t, &x509.CertificateRequest{}, newKey(t)), &other); err != nil {
		t.Fatal(err)
	}
	mine.Signature = other.Signature
	out, err := asn1.Marshal(mine)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// hugeRSARequest makes a request, as large as may be, for an RSA key whose signature is costly to check. The signature is
// not good, because nobody could make it in the time of a test.
func hugeRSARequest(t *testing.T) []byte {
	t.Helper()
	modulus := make([]byte, maxRequestBytes-512)
	for i := range modulus {
		modulus[i] = 0xff
	}
	public, err := asn1.Marshal(struct{ N, E *big.Int }{new(big.Int).SetBytes(modulus), big.NewInt(1<<31 - 1)})
	if err != nil {
		t.Fatal(err)
	}
	null := asn1.RawValue{Tag: asn1.TagNull}
	type publicKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	info, err := asn1.Marshal(struct {
		Version    int
		Subject    asn1.RawValue
		Key        publicKey
		Attributes asn1.RawValue
	}{
		0, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true}, publicKey{
			pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, Parameters: null},
			asn1.BitString{Bytes: public, BitLength: 8 * len(public)},
		}, asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(signedRequest{
		asn1.RawValue{FullBytes: info},
		pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: null},
		asn1.BitString{Bytes: []byte{1}, BitLength: 8},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseCertificateRequest(der); err != nil {
		t.Fatalf("the request that the test made cannot be read: %v", err)
	}
	return der
}

// TestTamperedRequest flips every bit of a request.
func TestTamperedRequest(t *testing.T) {
	t.Parallel()
	a := openAuthority(t, t.TempDir(), newClock().Now)
	good := request(t, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "host-1"}}, newKey(t))
	for i := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := a.SignAgent(bad, "wkr_1", 1); job.CodeOf(err) != job.CodeInvalid {
			t.Fatalf("with bit %d of byte %d flipped, SignAgent gives %v", i%8, i/8, err)
		}
	}
}

// FuzzSignAgent checks that no request makes the CA fail, or sign more than an agent's identity.
func FuzzSignAgent(f *testing.F) {
	a := openAuthority(f, f.TempDir(), newClock().Now)
	f.Add([]byte(nil))
	f.Add(request(f, &x509.CertificateRequest{}, newKey(f)))
	f.Add(request(f, &x509.CertificateRequest{DNSNames: []string{"localhost"}}, newKey(f)))
	f.Add(a.Roots()[0])
	f.Fuzz(func(t *testing.T, csr []byte) {
		issued, err := a.SignAgent(csr, "wkr_1", 1)
		if err != nil {
			if job.CodeOf(err) != job.CodeInvalid {
				t.Fatalf("the error is not the request's: %v", err)
			}
			return
		}
		c := parse(t, issued.Chain[0])
		if p, err := PrincipalOf(c); err != nil || !reflect.DeepEqual(p, Principal{Kind: Agent, Worker: "wkr_1"}) || c.IsCA {
			t.Fatalf("the CA signed for %v (error %v)", p, err)
		}
	})
}
