package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"syscall"
	"testing"
	"time"
)

// pretender shows a key that it does not have.
type pretender struct{ public *rsa.PublicKey }

func (p pretender) Public() crypto.PublicKey { return p.public }

func (p pretender) Sign(random io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	signature := make([]byte, p.public.Size())
	_, err := io.ReadFull(random, signature)
	return signature, err
}

// Certificates that are meant to cost the server time: each is refused, for little more than what a good handshake costs. The test is
// not parallel, because it measures what the process uses.
func TestCostlyCertificatesAreRefused(t *testing.T) {
	a := openAuthority(t, t.TempDir(), time.Now)
	const most = 2 * time.Second // a good handshake takes about a millisecond

	wide := &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 16383), 0, 1), E: 65537}
	chain := func(n int) tls.Certificate {
		// All have the same name and key, so that each may have signed each.
		key := newKey(t)
		all := certificate(claim(t, 0, &key.PublicKey, key), key)
		for i := range n - 1 {
			all.Certificate = append(all.Certificate, claim(t, i+1, &key.PublicKey, key))
		}
		return all
	}
	for _, c := range []struct {
		name string
		show tls.Certificate
	}{
		{"a chain of 100", chain(100)},
		{"a chain of 100, and the CA", func() tls.Certificate {
			c := chain(99)
			c.Certificate = append(c.Certificate, a.Roots()[0])
			return c
		}()},
		{"a chain that is larger than a handshake may be", chain(700)},
		{"a good one at the end of a chain", func() tls.Certificate {
			c := chain(99)
			c.Certificate = append(c.Certificate, agent(t, a).Certificate[0])
			return c
		}()},
		{"an RSA key of 16,384 bits", tls.Certificate{Certificate: [][]byte{claim(t, 0, wide, newKey(t))}, PrivateKey: pretender{wide}}},
		{"no certificate at all", tls.Certificate{Certificate: [][]byte{make([]byte, 10_000)}, PrivateKey: newKey(t)}},
	} {
		client := trusting(t, a, time.Now)
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.show, nil }
		before := used(t)
		m := meet(t, a.ServerTLS(nil), client)
		if m.serverErr == nil {
			t.Errorf("%s was taken, as of %v", c.name, m.server.VerifiedChains)
		}
		spent := used(t) - before
		t.Logf("%s: %v of processor time for both ends: %v", c.name, spent, m.serverErr)
		if spent > most {
			t.Errorf("%s took %v of processor time", c.name, spent)
		}
	}
}

// claim is a certificate that says to be the administrator's and of the CA, and is of whoever signs it.
func claim(t *testing.T, serial int, public crypto.PublicKey, signer *ecdsa.PrivateKey) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(serial + 1)), Subject: pkix.Name{CommonName: "Hodei Jobs CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	parent := *template
	der, err := x509.CreateCertificate(rand.Reader, template, &parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// used is the processor time that this process has used.
func used(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
