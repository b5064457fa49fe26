package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
	"github.com/hodei-jobs/hodei/service/identity"
)

// network serves a world with TLS over pipes, so that it has the clock of the test.
type network struct {
	*world
	t      *testing.T
	conns  chan net.Conn
	closed chan struct{}
	close  func()
	roots  *x509.CertPool
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{world: newWorld(t), t: t, conns: make(chan net.Conn), closed: make(chan struct{}), roots: x509.NewCertPool()}
	n.close = sync.OnceFunc(func() { close(n.closed) })
	ca, err := os.ReadFile(n.config.Authority.CACertificatePath())
	if err != nil || !n.roots.AppendCertsFromPEM(ca) {
		t.Fatalf("the CA: %v", err)
	}
	check := func(leaf *x509.Certificate) error { // as the server does it
		p, err := identity.PrincipalOf(leaf)
		if err != nil {
			return err
		}
		return n.config.Credentials.Check(&p, identity.FingerprintOf(leaf))
	}
	server := &http.Server{Handler: n.served, TLSConfig: n.config.Authority.ServerTLS(check), ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(n, "", "") }()
	t.Cleanup(func() {
		_ = server.Close() // the streams that are left
		<-ended
	})
	return n
}

// Accept implements net.Listener.
func (n *network) Accept() (net.Conn, error) {
	select {
	case conn := <-n.conns:
		return conn, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (n *network) Close() error {
	n.close()
	return nil
}

// Addr implements net.Listener.
func (n *network) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7443} }

// client makes a client that may have a certificate and a cache for TLS sessions.
func (n *network) client(certificate *tls.Certificate, cache tls.ClientSessionCache) *http.Client {
	security := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: n.roots, ClientSessionCache: cache, Time: time.Now}
	if certificate != nil {
		security.Certificates = []tls.Certificate{*certificate}
	}
	transport := &http.Transport{
		TLSClientConfig: security, ForceAttemptHTTP2: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			select {
			case n.conns <- buffer(there):
				return buffer(here), nil
			case <-n.closed:
				return nil, net.ErrClosed
			}
		},
	}
	n.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// buffered is an end of a pipe that takes in some of what is written, as sockets do: both sides may write before they read.
type buffered struct {
	net.Conn
	out    chan []byte
	closed chan struct{}
	close  func()
}

func buffer(conn net.Conn) *buffered {
	b := &buffered{Conn: conn, out: make(chan []byte, 64), closed: make(chan struct{})}
	b.close = sync.OnceFunc(func() { close(b.closed) })
	go b.forward()
	return b
}

// forward writes what was taken in, also after the end was closed.
func (b *buffered) forward() {
	defer b.Conn.Close()
	for {
		select {
		case p := <-b.out:
			if _, err := b.Conn.Write(p); err != nil {
				return
			}
		case <-b.closed:
			for len(b.out) > 0 {
				_, _ = b.Conn.Write(<-b.out) // the other side may be gone
			}
			return
		}
	}
}

// Write implements net.Conn.
func (b *buffered) Write(p []byte) (int, error) {
	select {
	case b.out <- bytes.Clone(p):
		return len(p), nil
	case <-b.closed:
		return 0, net.ErrClosed
	}
}

// Close implements net.Conn. What nobody reads is lost after a second.
func (b *buffered) Close() error {
	b.close()
	return b.SetDeadline(time.Now().Add(time.Second))
}

func (n *network) connect(certificate *tls.Certificate) *connect.Client {
	return connect.NewClient(connecthttp.NewTransport(n.client(certificate, nil), "https://localhost", connecthttp.WithCompressors()))
}

// certificate has a request signed.
func (n *network) certificate(sign func(csr []byte) (identity.Issued, error)) *tls.Certificate {
	n.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		n.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		n.t.Fatal(err)
	}
	issued, err := sign(csr)
	if err != nil {
		n.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(issued.Chain[0])
	if err != nil {
		n.t.Fatal(err)
	}
	return &tls.Certificate{Certificate: issued.Chain, PrivateKey: key, Leaf: leaf}
}

func (n *network) userCertificate(user string, life time.Duration) *tls.Certificate {
	n.t.Helper()
	return n.certificate(func(csr []byte) (identity.Issued, error) {
		return n.config.Authority.SignUser(csr, user, nil, "", life)
	})
}

// agentCertificate enrols an agent, whose certificates live for a time.
func (n *network) agentCertificate(life time.Duration) *tls.Certificate {
	n.t.Helper()
	authority, err := identity.OpenAuthority(n.dir, identity.AuthorityConfig{Now: time.Now, AgentLife: life})
	if err != nil {
		n.t.Fatal(err)
	}
	_, secret, err := n.config.Tokens.Create(n.t.Context(), identity.CreateOptions{TTL: time.Minute})
	if err != nil {
		n.t.Fatal(err)
	}
	enrolment := identity.NewEnrolment(identity.EnrolmentConfig{Authority: authority, Tokens: n.config.Tokens})
	return n.certificate(func(csr []byte) (identity.Issued, error) {
		_, issued, err := enrolment.Enroll(n.t.Context(), identity.EnrollRequest{Token: secret, CSR: csr, Name: "agent"})
		return issued, err
	})
}

// follower is a stream that is open, and how it has ended.
type follower struct {
	name  string
	ended chan struct{}
	at    time.Time
	err   error
	agent hwpv1connect.WorkerServiceConnectClientStream
}

// follow receives from a stream until it ends.
func (n *network) follow(name string, receive func() error) *follower {
	f := &follower{name: name, ended: make(chan struct{})}
	go func() {
		defer close(f.ended)
		for f.err == nil {
			f.err = receive()
		}
		f.at = time.Now()
	}()
	return f
}

// over reports whether the stream has ended, when everything has happened that can.
func (f *follower) over() bool {
	synctest.Wait()
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

// authorized is a context for calls with an access token; empty: none.
func (n *network) authorized(token string) context.Context {
	ctx, info := connect.NewClientContext(n.t.Context())
	if token != "" {
		info.RequestHeader().Set("Authorization", "Bearer "+token)
	}
	return ctx
}

// watch follows the jobs of a namespace, and tail the log of a job.
func (n *network) watch(name string, certificate *tls.Certificate, token, namespace string) *follower {
	n.t.Helper()
	client := hodeiv1connect.NewJobServiceClient(n.connect(certificate))
	stream, err := client.WatchJobs(n.authorized(token), &hodeiv1.WatchJobsRequest{Filter: &hodeiv1.JobFilter{Namespace: namespace}})
	if err != nil {
		n.t.Fatal(err)
	}
	return n.follow(name, func() error { _, err := stream.Receive(); return err })
}

func (n *network) tail(name string, certificate *tls.Certificate, token, job string) *follower {
	n.t.Helper()
	client := hodeiv1connect.NewLogServiceClient(n.connect(certificate))
	stream, err := client.TailLogs(n.authorized(token), &hodeiv1.TailLogsRequest{JobId: job, Follow: true})
	if err != nil {
		n.t.Fatal(err)
	}
	return n.follow(name, func() error { _, err := stream.Receive(); return err })
}

// session is the stream of an agent, which says nothing after its first message, and when its token ends.
func (n *network) session(name string, certificate *tls.Certificate) (*follower, time.Time) {
	n.t.Helper()
	client := hwpv1connect.NewWorkerServiceClient(n.connect(certificate))
	answer, err := client.Authenticate(n.t.Context(), &hwpv1.AuthenticateRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	stream, err := client.Connect(n.authorized(answer.GetToken().GetToken()))
	if err != nil {
		n.t.Fatal(err)
	}
	err = stream.Send(&hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_Register{
		Register: &hwpv1.Register{ProtocolVersion: 1, BootId: name, Dial: 1, Capacity: &hwpv1.Capacity{Slots: 1}},
	}}}})
	if err != nil {
		n.t.Fatal(err)
	}
	f := n.follow(name, func() error { _, err := stream.Receive(); return err })
	f.agent = stream
	return f, answer.GetToken().GetExpireTime().AsTime()
}
