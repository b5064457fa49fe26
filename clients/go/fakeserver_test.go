package hodei

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
)

// testCA is a certificate authority of a test.
type testCA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t *testing.T) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &testCA{t: t, key: key}
	ca.cert = ca.sign(authorityTemplate(), key.Public(), nil)
	return ca
}

func authorityTemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
}

// sign issues a certificate, for the authority itself when parent is nil.
func (ca *testCA) sign(template *x509.Certificate, public any, parent *x509.Certificate) *x509.Certificate {
	ca.t.Helper()
	var err error
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		ca.t.Fatal(err)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return certificate
}

// server issues a certificate for an address, good for an hour around now, shown with the certificates that follow it.
func (ca *testCA) server(host string, shown ...*x509.Certificate) tls.Certificate {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		ca.t.Fatal(err)
	}
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	pair := tls.Certificate{PrivateKey: key, Certificate: [][]byte{ca.sign(template, key.Public(), ca.cert).Raw}}
	for _, c := range shown {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	return pair
}

// fakeServer issues tokens and certificates, counts what it is asked for, and knows who asks.
type fakeServer struct {
	hodeiv1connect.UnimplementedAuthServiceHandler
	hodeiv1connect.UnimplementedJobServiceHandler
	hodeiv1connect.UnimplementedLogServiceHandler
	adminv1connect.UnimplementedAuditServiceHandler
	adminv1connect.UnimplementedTokenServiceHandler

	ca  *testCA
	url string

	mu        sync.Mutex
	exchanges int
	renewals  int
	refused   map[string]bool // access tokens that are good no more
	refuseAll bool
	failing   bool          // of renewals
	life      time.Duration // of certificates; two thirds of it are over already when old is set
	old       bool
	stale     bool // renewed ones are as old
	shared    bool // answers with certificates for another key
	states    []*hodeiv1.CollectLoginResponse
	certs     []string // the common names of the certificates that calls came with
	watches   int
}

// calledBy is how the handlers get the certificate of their connection.
type calledBy struct{}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	ca := newTestCA(t)
	s := &fakeServer{ca: ca, life: time.Hour, refused: make(map[string]bool)}
	server := connect.NewServer(s.access)
	hodeiv1connect.RegisterAuthServiceHandler(server, s)
	hodeiv1connect.RegisterJobServiceHandler(server, s)
	hodeiv1connect.RegisterLogServiceHandler(server, s)
	adminv1connect.RegisterAuditServiceHandler(server, s)
	adminv1connect.RegisterTokenServiceHandler(server, s)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := ""
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), calledBy{}, name)))
	}))
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	h.EnableHTTP2 = true
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{ca.server("127.0.0.1", ca.cert)},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
	}
	h.StartTLS()
	t.Cleanup(h.Close)
	s.url = h.URL
	return s
}

// count returns one of the server's numbers.
func (s *fakeServer) count(of *int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *of
}

// client returns one that knows the server, and proves itself with what is in config.
func (s *fakeServer) client(t *testing.T, config Config) *Client {
	t.Helper()
	config.URL, config.CAPin = s.url, pinOf(s.ca.cert)
	c, err := New(t.Context(), WithConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// access lets those in that have a token which is not refused, or a certificate.
func (s *fakeServer) access(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		token, has := strings.CutPrefix(info.RequestHeader().Get("Authorization"), "Bearer ")
		name, _ := ctx.Value(calledBy{}).(string)
		s.mu.Lock()
		refused := s.refuseAll || s.refused[token] || !has && name == ""
		s.certs = append(s.certs, name)
		s.mu.Unlock()
		if refused && !strings.HasPrefix(spec.Procedure, "/hodei.v1.AuthService/") {
			return connect.NewError(connect.CodeUnauthenticated, "the token is not good")
		}
		return next(ctx, spec, stream)
	}
}

// ExchangeToken knows the secret "good".
func (s *fakeServer) ExchangeToken(_ context.Context, req *hodeiv1.ExchangeTokenRequest) (*hodeiv1.ExchangeTokenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exchanges++
	if req.GetApiToken() != "good" && req.GetIdToken() != "good" {
		return nil, connect.NewError(connect.CodeUnauthenticated, "there is no such token")
	}
	res := &hodeiv1.ExchangeTokenResponse{
		AccessToken: fmt.Sprintf("access-%d", s.exchanges), ExpireTime: timestamppb.New(time.Now().Add(15 * time.Minute)), Principal: "user/ada",
	}
	var err error
	if len(req.GetCsrDer()) > 0 {
		res.Certificate, err = s.issue(req.GetCsrDer(), "login-0")
	}
	return res, err
}

func (s *fakeServer) issue(csr []byte, name string) (*hodeiv1.IssuedCertificate, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	public := request.PublicKey
	if s.shared {
		public = s.ca.key.Public()
	}
	from := time.Now().Add(-time.Second)
	if s.old {
		from = time.Now().Add(-s.life * 3 / 4)
	}
	certificate := s.ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: from, NotAfter: from.Add(s.life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public, s.ca.cert)
	return &hodeiv1.IssuedCertificate{
		ChainDer: [][]byte{certificate.Raw}, RootsDer: [][]byte{s.ca.cert.Raw}, LoginId: "lgn_1",
		RenewableUntil: timestamppb.New(time.Now().Add(24 * time.Hour)),
	}, nil
}

// RenewCertificate asks for the certificate of a login.
func (s *fakeServer) RenewCertificate(ctx context.Context, req *hodeiv1.RenewCertificateRequest) (*hodeiv1.RenewCertificateResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewals++
	if name, _ := ctx.Value(calledBy{}).(string); s.failing || !strings.HasPrefix(name, "login-") {
		return nil, connect.NewError(connect.CodeFailedPrecondition, "the login is over")
	}
	s.old = s.stale
	certificate, err := s.issue(req.GetCsrDer(), fmt.Sprintf("login-%d", s.renewals))
	return &hodeiv1.RenewCertificateResponse{Certificate: certificate}, err
}

// GetJob finds every job.
func (s *fakeServer) GetJob(_ context.Context, req *hodeiv1.GetJobRequest) (*hodeiv1.GetJobResponse, error) {
	return &hodeiv1.GetJobResponse{Job: &hodeiv1.Job{Id: req.GetId()}}, nil
}

// loggedIn is a folder with a login, and how to use it.
func (s *fakeServer) loggedIn(t *testing.T) Config {
	t.Helper()
	config, err := Login(t.Context(), LoginOptions{URL: s.url, CAPin: pinOf(s.ca.cert), APIToken: "good", Dir: filepath.Join(t.TempDir(), "login")})
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func writeFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
