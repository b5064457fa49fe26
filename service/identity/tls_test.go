package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
)

// patience is how long a handshake may take before a test gives up.
const patience = 30 * time.Second

// connection returns both ends of a connection over loopback.
func connection(t *testing.T) (server, client net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{server, client} {
		t.Cleanup(func() { _ = c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return server, client
}

// meeting is what became of a handshake.
type meeting struct {
	server, client       tls.ConnectionState
	serverErr, clientErr error
}

// meet lets a client shake hands with a server.
func meet(t *testing.T, server, client *tls.Config) meeting {
	t.Helper()
	serverConn, clientConn := connection(t)
	secure := tls.Client(clientConn, client)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, secure) // the server's word on the certificate comes after the client's handshake
		done <- err
	}()
	accepted := tls.Server(serverConn, server)
	var m meeting
	m.serverErr = accepted.HandshakeContext(t.Context())
	m.server = accepted.ConnectionState()
	_ = accepted.Close()
	m.clientErr = <-done
	m.client = secure.ConnectionState()
	return m
}

// trusting returns the settings of a client that trusts the authority and shows the given certificates.
func trusting(t testing.TB, a *Authority, now func() time.Time, show ...tls.Certificate) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(root(t, a))
	return &tls.Config{RootCAs: roots, ServerName: "localhost", Time: now, Certificates: show, NextProtos: []string{"h2"}}
}

func admin(t testing.TB, a *Authority) tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(a.AdminCertificatePath(), a.AdminKeyPath())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// agent enrols nobody: it only has a certificate signed.
func agent(t testing.TB, a *Authority) tls.Certificate {
	t.Helper()
	key := newKey(t)
	issued, err := a.SignAgent(request(t, &x509.CertificateRequest{}, key), "wkr_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: issued.Chain, PrivateKey: key}
}

func certificate(der []byte, key *ecdsa.PrivateKey) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// selfSigned makes a certificate for the administrator that no CA has signed.
func selfSigned(t *testing.T, now time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	pair, err := sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "admin"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		URIs: []*url.URL{{Scheme: "hodei", Host: "user", Path: "/admin"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, key, &keyPair{certificate: &x509.Certificate{Subject: pkix.Name{CommonName: "Hodei Jobs CA"}}, key: key})
	if err != nil {
		t.Fatal(err)
	}
	return certificate(pair.certificate.Raw, key)
}

func TestHandshakeWithClientCertificate(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	foreign := openAuthority(t, t.TempDir(), now.Now)
	old, person := agent(t, a), admin(t, a)
	early := agent(t, authorityAt(t, a, now.Now().Add(30*24*time.Hour)))
	now.advance(agentLife + time.Second)
	server, err := a.ServerTLS(nil).GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	chained := agent(t, a)
	chained.Certificate = append(chained.Certificate, a.Roots()[0])
	// An agent that plays CA: what its key signs must not count.
	fresh := agent(t, a)
	key := newKey(t)
	forged, err := sign(&x509.Certificate{
		NotBefore: now.Now().Add(-time.Hour), NotAfter: now.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs: []*url.URL{Principal{Kind: User, Name: Administrator}.uri()},
	}, key, &keyPair{certificate: parse(t, fresh.Certificate[0]), key: fresh.PrivateKey.(*ecdsa.PrivateKey)})
	if err != nil {
		t.Fatal(err)
	}
	underAgent := tls.Certificate{Certificate: [][]byte{forged.certificate.Raw, fresh.Certificate[0]}, PrivateKey: key}

	tests := []struct {
		name string
		show []tls.Certificate
		want string // the principal; empty: the handshake must fail
	}{
		{"none", nil, "anonymous"},
		{"the administrator's", []tls.Certificate{person}, "user/admin"},
		{"an agent's", []tls.Certificate{fresh}, "agent/wkr_1"},
		{"an agent's with the CA", []tls.Certificate{chained}, "agent/wkr_1"},
		{"expired", []tls.Certificate{old}, ""},
		{"not yet good", []tls.Certificate{early}, ""},
		{"of another CA", []tls.Certificate{admin(t, foreign)}, ""},
		{"self-signed", []tls.Certificate{selfSigned(t, now.Now())}, ""},
		{"the server's own", []tls.Certificate{*server}, ""},
		{"signed by an agent", []tls.Certificate{underAgent}, ""},
		{"without its key", []tls.Certificate{certificate(fresh.Certificate[0], key)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client := trusting(t, a, now.Now)
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(tt.show) == 0 {
					return &tls.Certificate{}, nil
				}
				return &tt.show[0], nil // also one that the server has not asked for
			}
			m := meet(t, a.ServerTLS(nil), client)
			if tt.want == "" {
				if m.serverErr == nil {
					t.Fatalf("the server took the certificate, as of %v", m.server.VerifiedChains)
				}
				return
			}
			if m.serverErr != nil || m.clientErr != nil {
				t.Fatalf("the handshake failed: server %v, client %v", m.serverErr, m.clientErr)
			}
			if got := caller(t, &m.server); got.String() != tt.want {
				t.Errorf("the caller is %s, want %s", got, tt.want)
			}
		})
	}
}

// authorityAt returns the authority as it signs at another time.
func authorityAt(t *testing.T, a *Authority, at time.Time) *Authority {
	t.Helper()
	later := &Authority{dir: a.dir, hosts: a.hosts, now: func() time.Time { return at }, agentLife: a.agentLife}
	later.trust.Store(a.trust.Load())
	return later
}

func caller(t *testing.T, state *tls.ConnectionState) Principal {
	t.Helper()
	if len(state.VerifiedChains) == 0 {
		return Principal{}
	}
	p, err := PrincipalOf(state.PeerCertificates[0])
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestServerProvesItself(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now, "jobs.example.org")
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "jobs.example.org"} {
		client := trusting(t, a, now.Now)
		client.ServerName = name
		m := meet(t, a.ServerTLS(nil), client)
		if m.clientErr != nil {
			t.Errorf("a client that asks for %s: %v", name, m.clientErr)
		}
		if m.client.Version != tls.VersionTLS13 || m.client.NegotiatedProtocol != "h2" {
			t.Errorf("the connection has version %x and protocol %q", m.client.Version, m.client.NegotiatedProtocol)
		}
	}
	wrong := trusting(t, a, now.Now)
	wrong.ServerName = "other.example.org"
	var nameErr x509.HostnameError
	if m := meet(t, a.ServerTLS(nil), wrong); !errors.As(m.clientErr, &nameErr) {
		t.Errorf("a client that asks for another name: %v", m.clientErr)
	}
	var authorityErr x509.UnknownAuthorityError
	stranger := trusting(t, openAuthority(t, t.TempDir(), now.Now), now.Now)
	if m := meet(t, a.ServerTLS(nil), stranger); !errors.As(m.clientErr, &authorityErr) {
		t.Errorf("a client of another CA: %v", m.clientErr)
	}
	// Half a year later the running server must still be good for a client: its certificate has renewed itself.
	now.advance(180 * 24 * time.Hour)
	if m := meet(t, a.ServerTLS(nil), trusting(t, a, now.Now)); m.clientErr != nil {
		t.Errorf("a client after half a year: %v", m.clientErr)
	}
}

// TestPinIsInTheChain does what an agent does that knows only the pin.
func TestPinIsInTheChain(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	m := meet(t, a.ServerTLS(nil), &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
	if m.serverErr != nil || len(m.client.PeerCertificates) != 2 {
		t.Fatalf("the server sent %d certificates (error %v), want its own and the CA's", len(m.client.PeerCertificates), m.serverErr)
	}
	sent := m.client.PeerCertificates[1]
	sum := sha256.Sum256(sent.RawSubjectPublicKeyInfo)
	if "sha256:"+hex.EncodeToString(sum[:]) != a.Pin() || !bytes.Equal(sent.Raw, a.Roots()[0]) {
		t.Error("the certificate beside the server's is not the CA's")
	}
	roots := x509.NewCertPool()
	roots.AddCert(sent)
	options := x509.VerifyOptions{Roots: roots, DNSName: "localhost", CurrentTime: now.Now()}
	if _, err := m.client.PeerCertificates[0].Verify(options); err != nil {
		t.Errorf("the server's certificate does not verify with the pinned CA: %v", err)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	client := trusting(t, a, now.Now, admin(t, a))
	client.MaxVersion = tls.VersionTLS12
	if m := meet(t, a.ServerTLS(nil), client); m.serverErr == nil || m.clientErr == nil {
		t.Error("TLS 1.2 was accepted")
	}
}

// TestNoResumption shows that every connection checks the client's certificate anew.
func TestNoResumption(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	client := trusting(t, a, now.Now, agent(t, a))
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	server := a.ServerTLS(nil)
	for range 3 {
		if m := meet(t, server, client); m.serverErr != nil || m.server.DidResume {
			t.Fatalf("resumed: %v, error %v", m.server.DidResume, m.serverErr)
		}
	}
	now.advance(agentLife + time.Second)
	if m := meet(t, server, client); m.serverErr == nil {
		t.Error("an agent whose certificate expired came in with its old session")
	}
}

// TestRenewedAgentMeetsServer renews an agent's certificate for as long as a server's lives.
func TestRenewedAgentMeetsServer(t *testing.T) {
	t.Parallel()
	now := newClock()
	a := openAuthority(t, t.TempDir(), now.Now)
	server := a.ServerTLS(nil)
	for range 10 {
		m := meet(t, server, trusting(t, a, now.Now, agent(t, a)))
		if m.serverErr != nil || m.clientErr != nil {
			t.Fatalf("on %v: server %v, client %v", now.Now(), m.serverErr, m.clientErr)
		}
		if got := caller(t, &m.server).Worker; got != job.WorkerID("wkr_1") {
			t.Fatalf("the caller is %q", got)
		}
		now.advance(10 * 24 * time.Hour)
	}
}
