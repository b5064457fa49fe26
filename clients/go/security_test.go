package hodei

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// shows starts a server with a certificate and returns its address.
func shows(t *testing.T, pair tls.Certificate) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

func TestServerIsKnownByThePinOfItsCA(t *testing.T) {
	t.Parallel()
	ca, other, next := newTestCA(t), newTestCA(t), newTestCA(t)
	crossed := ca.sign(authorityTemplate(), next.key.Public(), ca.cert) // the next authority, signed by the first
	forged := other.sign(authorityTemplate(), next.key.Public(), other.cert)
	client := ca.server("127.0.0.1", ca.cert)
	client.Certificate[0] = ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "127.0.0.1"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: leaf(t, client).IPAddresses, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, leaf(t, client).PublicKey, ca.cert).Raw
	expired := authorityTemplate()
	expired.NotAfter = time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		pair tls.Certificate
		pin  *testCA
		want string // of the error; empty: the server is the right one
	}{
		"the CA itself":                  {ca.server("127.0.0.1", ca.cert), ca, ""},
		"another CA":                     {other.server("127.0.0.1", other.cert), ca, "is another one than " + pinOf(ca.cert)},
		"no CA is shown":                 {ca.server("127.0.0.1"), ca, "it shows no CA"},
		"CA shown, but not the signer":   {other.server("127.0.0.1", other.cert, ca.cert), ca, "was not signed by that CA"},
		"another host":                   {ca.server("127.0.0.2", ca.cert), ca, "127.0.0.2"},
		"a name, and no address":         {ca.server("localhost", ca.cert), ca, "start it with --host"},
		"a certificate for clients":      {client, ca, "not valid"},
		"the old CA while it is rotated": {next.server("127.0.0.1", crossed, next.cert, ca.cert), ca, ""},
		"the new CA while it is rotated": {next.server("127.0.0.1", crossed, next.cert, ca.cert), next, ""},
		"the new CA, without the old":    {next.server("127.0.0.1", next.cert), ca, "is another one than"},
		"the key of the CA, not for CAs": {other.server("127.0.0.1", forgedLeaf(ca)), ca, "it shows no CA"},
		"signed on behalf of another":    {next.server("127.0.0.1", forged, ca.cert), ca, "was not signed by that CA"},
		"an expired CA":                  {ca.server("127.0.0.1", ca.sign(expired, ca.key.Public(), nil)), ca, "not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := New(t.Context(), WithConfig(Config{URL: shows(t, c.pair), CAPin: pinOf(c.pin.cert)}))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			_, err = client.Get(t.Context(), "job_1") // a server without jobs answers that it does not know the call
			if connected := connect.CodeOf(err) == connect.CodeUnimplemented; connected != (c.want == "") {
				t.Errorf("got %v", err)
			} else if c.want != "" && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// forgedLeaf has the key of an authority, but is none.
func forgedLeaf(ca *testCA) *x509.Certificate {
	template := authorityTemplate()
	template.IsCA, template.KeyUsage = false, x509.KeyUsageDigitalSignature
	return ca.sign(template, ca.key.Public(), nil)
}

func leaf(t *testing.T, pair tls.Certificate) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPinThatIsNoneIsRefused(t *testing.T) {
	t.Parallel()
	good := "sha256:" + strings.Repeat("ab", 32)
	if _, err := New(t.Context(), WithConfig(Config{URL: "https://x", CAPin: good})); err != nil {
		t.Error(err)
	}
	for _, pin := range []string{"ab", good[:70], good + "ab", "sha512" + good[6:], strings.ToUpper(good), "sha256:" + strings.Repeat("zz", 32)} {
		if _, err := New(t.Context(), WithConfig(Config{URL: "https://x", CAPin: pin})); err == nil || !strings.Contains(err.Error(), "hodei admin authority show") {
			t.Errorf("%q gave %v", pin, err)
		}
	}
}

func TestClientTellsThePinOfItsCA(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.loggedIn(t)
	empty := writeFile(t, filepath.Join(t.TempDir(), "empty"), "")
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{CA: config.CA}, pinOf(s.ca.cert)}, {Config{CAPin: "sha256:x"}, "sha256:x"}, {Config{}, ""}, {Config{CA: "none"}, ""}, {Config{CA: empty}, ""},
	} {
		if got := (&Client{config: c.config}).CAPin(); got != c.want {
			t.Errorf("%+v: got %q", c.config, got)
		}
	}
}

// A certificate that does not fit stays so: a call that tried again would try for ever.
func TestServerThatCannotBeVerifiedIsNotCalledAgain(t *testing.T) {
	t.Parallel()
	c := &Client{transport: &transport{}}
	c.transport.reached.Store(true)
	for _, cause := range []error{&pinError{}, x509.UnknownAuthorityError{}, x509.HostnameError{}, x509.CertificateInvalidError{Reason: x509.Expired}} {
		if err := error(&tls.CertificateVerificationError{Err: cause}); !c.hopeless(err, 3) {
			t.Errorf("%v is tried again", err)
		}
	}
	if c.hopeless(errCut, 3) {
		t.Error("a stream that was cut is not tried again")
	}
}
