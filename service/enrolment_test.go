package service

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
	"github.com/hodei-jobs/hodei/service/audit"
)

// rawAgent speaks the worker protocol word by word.
type rawAgent struct {
	key   *ecdsa.PrivateKey
	chain [][]byte
}

func (a *rawAgent) request(t *testing.T) []byte {
	t.Helper()
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// client connects anew.
func (a *rawAgent) client(t *testing.T, s *Server) hwpv1connect.WorkerServiceClient {
	t.Helper()
	ca, err := os.ReadFile(s.AdminCredentials().CA)
	if err != nil {
		t.Fatal(err)
	}
	security := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	security.RootCAs.AppendCertsFromPEM(ca)
	if len(a.chain) > 0 {
		certificate := &tls.Certificate{Certificate: a.chain, PrivateKey: a.key}
		security.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{TLSClientConfig: security, Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return hwpv1connect.NewWorkerServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, s.URL())))
}

func enrolledAgent(t *testing.T, s *Server) *rawAgent {
	t.Helper()
	secret, _, err := s.CreateAgentToken(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	a := new(rawAgent)
	answer, err := a.client(t, s).Enroll(t.Context(), &hwpv1.EnrollRequest{Token: secret, CsrDer: a.request(t), Name: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	a.chain = answer.GetChainDer()
	return a
}

// open begins a session and returns what the server says first, or why there is none.
func (a *rawAgent) open(
	t *testing.T, s *Server, boot string, dial uint64,
) (hwpv1connect.WorkerServiceConnectClientStream, *hwpv1.ConnectResponse, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	var stream hwpv1connect.WorkerServiceConnectClientStream
	client := a.client(t, s)
	answer, err := client.Authenticate(ctx, &hwpv1.AuthenticateRequest{})
	if err != nil {
		return stream, nil, err
	}
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set("Authorization", "Bearer "+answer.GetToken().GetToken())
	if stream, err = client.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_Register{Register: &hwpv1.Register{
		ProtocolVersion: 1, BootId: boot, Dial: dial, Capacity: &hwpv1.Capacity{Slots: 1},
	}}}}}) // whose failure the answer explains
	frame, err := stream.Receive()
	return stream, frame, err
}

// certificate waits for one on a stream.
func certificate(t *testing.T, stream hwpv1connect.WorkerServiceConnectClientStream) *hwpv1.Certificate {
	t.Helper()
	for {
		frame, err := stream.Receive()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range frame.GetMessages() {
			if c := m.GetCertificate(); c != nil {
				return c
			}
		}
	}
}

func wish(csr []byte) *hwpv1.ConnectRequest {
	return &hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_CertificateRequest{
		CertificateRequest: &hwpv1.CertificateRequest{CsrDer: csr},
	}}}}
}

// Of many that use a token for one agent at the same moment, each over a connection of its own, one enrols.
func TestTokenForOneAgent(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DiskReserve: -1, Limits: Limits{FailedLogins: -1}}).Server
	secret, _, err := s.CreateAgentToken(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	const agents = 50
	var won, refused atomic.Int32
	var ready, group sync.WaitGroup
	start := make(chan struct{})
	for range agents {
		a := new(rawAgent)
		client, csr := a.client(t, s), a.request(t)
		ready.Add(1)
		group.Go(func() {
			// Its connection is there before the race begins.
			_, err := client.Enroll(t.Context(), &hwpv1.EnrollRequest{Token: "hat_x", CsrDer: csr, Name: "x"})
			ready.Done()
			if connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("a wrong token gives %v", err)
			}
			<-start
			switch _, err := client.Enroll(t.Context(), &hwpv1.EnrollRequest{Token: secret, CsrDer: csr, Name: "x"}); {
			case err == nil:
				won.Add(1)
			case connect.CodeOf(err) == connect.CodeUnauthenticated:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	ready.Wait()
	close(start)
	group.Wait()
	if won.Load() != 1 || refused.Load() != agents-1 {
		t.Errorf("%d agents enrolled and %d were refused, want 1 and %d", won.Load(), refused.Load(), agents-1)
	}
}

// What was refused did not happen: the trail says that it was denied, and nothing else.
func TestRefusedEnrolmentsInTheTrail(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DiskReserve: -1}).Server
	secret, _, err := s.CreateAgentToken(t.Context(), time.Nanosecond)
	if err != nil {
		t.Fatal(err)
	}
	a := new(rawAgent)
	for _, token := range []string{secret, "hat_x", ""} {
		_, err := a.client(t, s).Enroll(t.Context(), &hwpv1.EnrollRequest{Token: token, CsrDer: a.request(t), Name: "x"})
		if connect.CodeOf(err) != connect.CodeUnauthenticated {
			t.Errorf("%q: %v", token, err)
		}
	}
	records, _, err := s.trail.List(t.Context(), audit.Filter{Action: "hwp.v1.WorkerService/Enroll"}, 0, 10, true)
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records: %v", len(records), err)
	}
	for _, r := range records {
		if r.Outcome != "denied" || r.Reason == "" {
			t.Errorf("the record is %+v", r)
		}
	}
}

// An agent's wishes for certificates are answered on its stream; a flood of them is answered with the newest.
func TestCertificatesOverTheStream(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DiskReserve: -1}).Server
	a := enrolledAgent(t, s)
	stream, _, err := a.open(t, s, "A", 1)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	first, last := a.request(t), a.request(t)
	for n := range 1000 {
		csr := first
		if n == 999 {
			csr = last
		}
		if err := stream.Send(wish(csr)); err != nil {
			t.Fatal(err)
		}
	}
	for { // the first of them is answered and, after a pause, the last; the others only if they take long to arrive
		answer := certificate(t, stream)
		leaf, err := x509.ParseCertificate(answer.GetChainDer()[0])
		if err != nil || len(answer.GetRootsDer()) != 1 {
			t.Fatalf("the answer is %v (error %v)", answer, err)
		}
		n, err := strconv.Atoi(leaf.Subject.SerialNumber)
		if most := 4 + int(time.Since(began)/time.Second); err != nil || n > most {
			t.Fatalf("certificate %d was issued after %v, want one a second at most (error %v)", n, time.Since(began), err)
		}
		if a.key.PublicKey.Equal(leaf.PublicKey) {
			a.chain = answer.GetChainDer()
			if _, _, err := a.open(t, s, "A", 2); err != nil {
				t.Errorf("a session with the new certificate: %v", err)
			}
			return
		}
	}
}

// A wish that no agent may send ends the session, with the reason.
func TestBadCertificateRequest(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DiskReserve: -1}).Server
	stream, _, err := enrolledAgent(t, s).open(t, s, "A", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(wish([]byte("noise"))); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Receive()
	}
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "no certificate request") {
		t.Errorf("the session ended with %v", err)
	}
}

// A copy of an agent's folder is found out when both are in use. Nobody can tell which of them is the right one, so both are refused from
// then on, and operators are alarmed.
func TestCopiedAgent(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DiskReserve: -1}).Server
	a := enrolledAgent(t, s)
	if _, _, err := a.open(t, s, "A", 1); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.open(t, s, "B", 11); err != nil {
		t.Fatalf("an agent that was started anew: %v", err)
	}
	if _, _, err := a.open(t, s, "A", 2); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("a former life once: %v", err)
	}
	if _, _, err := a.open(t, s, "A", 3); connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "was revoked") {
		t.Errorf("a former life again: %v", err)
	}
	if _, _, err := a.open(t, s, "B", 12); err == nil {
		t.Error("the other one goes on")
	}
	revoked := s.identity.credentials.Revocations()
	if len(revoked) != 1 || !strings.HasPrefix(revoked[0].Subject, "agent/wkr_") || revoked[0].By != "server" {
		t.Errorf("revoked are %v", revoked)
	}
	alarms, _, err := s.trail.List(t.Context(), audit.Filter{Action: "alarm.identity-cloned"}, 0, 10, true)
	if err != nil || len(alarms) != 1 || alarms[0].Targets[0] != revoked[0].Subject {
		t.Errorf("the alarms are %v: %v", alarms, err)
	}
}

// A session that begins with a certificate of the old root is asked to renew it, and gets both roots.
func TestSessionAfterARotation(t *testing.T) {
	t.Parallel()
	s := start(t, Config{DiskReserve: -1}).Server
	a := enrolledAgent(t, s)
	if err := s.authority.Rotate(); err != nil {
		t.Fatal(err)
	}
	stream, frame, err := a.open(t, s, "A", 1)
	asked := false
	for err == nil && !asked {
		for _, m := range frame.GetMessages() {
			asked = asked || m.GetRenewCertificate() != nil
		}
		if !asked {
			frame, err = stream.Receive()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(wish(a.request(t))); err != nil {
		t.Fatal(err)
	}
	answer := certificate(t, stream)
	if a.chain = answer.GetChainDer(); len(answer.GetRootsDer()) != 2 {
		t.Errorf("the answer has %d roots, want 2", len(answer.GetRootsDer()))
	}
	if err := s.authority.Retire(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.open(t, s, "A", 2); err != nil {
		t.Errorf("a session with the new certificate after the end of the old root: %v", err)
	}
}
