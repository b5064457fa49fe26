package hodei

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
)

// A client that has never reached its server gives up at once, because the address is likely wrong; one that has, waits for
// the server to come back, also when the first call after a pause meets nobody.
func TestServerThatWasReachedIsWaitedFor(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	reset := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNRESET)}
	c := &Client{transport: &transport{}}
	for _, err := range []error{refused, reset} {
		if !c.hopeless(err, 0) {
			t.Errorf("a server that was never reached is called again after %v", err)
		}
	}
	c.transport.reached.Store(true)
	for _, err := range []error{refused, reset, syscall.EPIPE} {
		if c.hopeless(err, 0) || c.hopeless(err, 100) {
			t.Errorf("a server that was reached before is given up after %v", err)
		}
	}
	if !c.hopeless(errors.New("something else"), 0) {
		t.Error("any error is taken for one that passes")
	}
}

// The server may see a deadline pass a moment before the client does; callers need not know who was first.
func TestADeadlineIsOneWhoeverSeesItFirst(t *testing.T) {
	t.Parallel()
	c := &Client{transport: &transport{}}
	err := c.translate(connect.NewError(connect.CodeDeadlineExceeded, "the call took longer than its deadline"))
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, ErrNotFound) {
		t.Errorf("the error is %#v", err)
	}
	if err := c.translate(connect.NewError(connect.CodeNotFound, "there is none")); errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNotFound) {
		t.Errorf("the error is %#v", err)
	}
}

// writePEM writes a file of a test and returns its name.
func writePEM(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// stranger is a certificate that nobody has signed, and its key.
func stranger(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, "cert.pem", "CERTIFICATE", der), writePEM(t, "key.pem", "PRIVATE KEY", secret)
}

// With TLS 1.3 a server refuses a certificate after the client has begun to speak; the client still says why, and does not call
// again and again.
func TestAServerThatRefusesTheCertificateIsUnderstood(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := writePEM(t, "ca.pem", "CERTIFICATE", s.Certificate().Raw)
	cert, key := stranger(t)
	for want, config := range map[string]Config{
		"refused the client certificate " + cert: {URL: s.URL, CA: ca, Cert: cert, Key: key},
		"it may want a client certificate":       {URL: s.URL, CA: ca},
	} {
		c, err := New(t.Context(), WithConfig(config))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Get(t.Context(), "job_1"); !errors.Is(err, ErrUnauthenticated) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
