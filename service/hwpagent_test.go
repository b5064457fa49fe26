package service

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
	"github.com/hodei-jobs/hodei/service/identity"
)

// patience is how long a test waits for something that normally comes at once. It is a limit for hanging, not a measure.
const patience = time.Minute

// await polls until the condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// hwpAgent is an enrolled agent of which a test says every message.
type hwpAgent struct {
	t           *testing.T
	id, name    string
	certificate *tls.Certificate
	client      hwpv1connect.WorkerServiceClient
	dial        uint64
}

// hwpClient calls the worker protocol with a certificate, or without.
func (r *running) hwpClient(t *testing.T, certificate *tls.Certificate) hwpv1connect.WorkerServiceClient {
	t.Helper()
	return hwpv1connect.NewWorkerServiceClient(connect.NewClient(connecthttp.NewTransport(r.client(t, certificate), r.URL(), connecthttp.WithCompressors())))
}

// enrol makes an agent with an identity of its own, as agents do: by a token.
func (r *running) enrol(t *testing.T, name string) *hwpAgent {
	t.Helper()
	_, secret, err := r.tokens.Create(t.Context(), identity.CreateOptions{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := r.hwpClient(t, nil).Enroll(t.Context(), &hwpv1.EnrollRequest{Token: secret, CsrDer: csr, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	a := &hwpAgent{t: t, id: answer.GetWorkerId(), name: name, certificate: &tls.Certificate{Certificate: answer.GetChainDer(), PrivateKey: key}, dial: 1000}
	a.client = r.hwpClient(t, a.certificate)
	return a
}

// register is what an agent of this name begins a session with.
func (a *hwpAgent) register(attempts ...*hwpv1.AttemptRef) *hwpv1.Register {
	a.dial++
	return &hwpv1.Register{
		ProtocolVersion: 1, Name: a.name, Labels: map[string]string{"on": a.name}, Capacity: &hwpv1.Capacity{MilliCpu: 8000, MemoryMib: 8000, Slots: 16},
		BootId: "the life of " + a.name, Dial: a.dial, Attempts: attempts,
	}
}

// stream opens a stream with an access token, as agents do, and says nothing yet.
func (a *hwpAgent) stream() *hwpStream {
	a.t.Helper()
	answer, err := a.client.Authenticate(a.t.Context(), &hwpv1.AuthenticateRequest{})
	if err != nil {
		a.t.Fatal(err)
	}
	return openStream(a.t, a.client, answer.GetToken().GetToken())
}

// session is a stream that has begun.
func (a *hwpAgent) session(attempts ...*hwpv1.AttemptRef) *hwpStream {
	a.t.Helper()
	s := a.stream()
	s.send(&hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{{Payload: &hwpv1.AgentMessage_Register{Register: a.register(attempts...)}}}})
	s.await("the welcome of "+a.name, func(h *heard) bool { return h.welcome != nil })
	return s
}

// hwpStream is one stream, and what was heard on it.
type hwpStream struct {
	t      *testing.T
	stream hwpv1connect.WorkerServiceConnectClientStream

	sending sync.Mutex
	beats   int // frames with a heartbeat that were sent; each is answered once

	mu sync.Mutex
	heard
}

// heard is what an agent has heard.
type heard struct {
	welcome    *hwpv1.Welcome
	assigned   map[string]*hwpv1.Assign // by the job's name
	logAcks    []*hwpv1.LogAck
	reports    int // acknowledged
	heartbeats int
	tokens     []*hwpv1.AccessToken
	chains     []*hwpv1.Certificate
	cancels    []*hwpv1.Cancel
	err        error // why the stream ended
}

func openStream(t *testing.T, client hwpv1connect.WorkerServiceClient, token string) *hwpStream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set("Authorization", "Bearer "+token)
	stream, err := client.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s := &hwpStream{t: t, stream: stream, heard: heard{assigned: make(map[string]*hwpv1.Assign)}}
	go s.listen()
	return s
}

func (s *hwpStream) listen() {
	for {
		frame, err := s.stream.Receive()
		s.mu.Lock()
		if err != nil {
			s.err = err
			s.mu.Unlock()
			return
		}
		for _, a := range frame.GetAssignments() {
			s.assigned[a.GetJobName()] = a
		}
		s.reports += int(frame.GetReportsAcknowledged())
		for _, m := range frame.GetMessages() {
			switch p := m.GetPayload().(type) {
			case *hwpv1.ServerMessage_Welcome:
				s.welcome = p.Welcome
			case *hwpv1.ServerMessage_LogAck:
				s.logAcks = append(s.logAcks, p.LogAck)
			case *hwpv1.ServerMessage_Heartbeat:
				s.heartbeats++
			case *hwpv1.ServerMessage_Token:
				s.tokens = append(s.tokens, p.Token)
			case *hwpv1.ServerMessage_Certificate:
				s.chains = append(s.chains, p.Certificate)
			case *hwpv1.ServerMessage_Cancel:
				s.cancels = append(s.cancels, p.Cancel)
			}
		}
		s.mu.Unlock()
	}
}

// send sends a frame. That it cannot be sent is no failure: why the stream has ended is heard.
func (s *hwpStream) send(frame *hwpv1.ConnectRequest) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if slices.ContainsFunc(frame.GetMessages(), func(m *hwpv1.AgentMessage) bool { return m.GetHeartbeat() != nil }) {
		s.beats++
	}
	_ = s.stream.Send(frame)
}

// say sends messages in a frame.
func (s *hwpStream) say(messages ...*hwpv1.AgentMessage) {
	s.send(&hwpv1.ConnectRequest{Messages: messages})
}

// know returns what was heard so far.
func (s *hwpStream) know() heard {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.heard
	h.assigned = maps.Clone(h.assigned)
	return h
}

func (s *hwpStream) await(what string, condition func(*heard) bool) {
	s.t.Helper()
	await(s.t, what, func() bool {
		h := s.know()
		if h.err != nil && !condition(&h) {
			s.t.Fatalf("the stream ended before %s: %v", what, h.err)
		}
		return condition(&h)
	})
}

// ends waits for the end of the stream and returns why it came.
func (s *hwpStream) ends(why string) error {
	s.t.Helper()
	await(s.t, "the end of the stream: "+why, func() bool { return s.know().err != nil })
	return s.know().err
}

// settle waits until everything that was said has been taken in: the answer to a heartbeat comes after it.
func (s *hwpStream) settle() {
	s.t.Helper()
	s.say(heartbeat())
	s.sending.Lock()
	beats := s.beats
	s.sending.Unlock()
	s.await("a heartbeat", func(h *heard) bool { return h.heartbeats >= beats })
}

// attempt waits for the assignment of a job, and returns its fencing token.
func (s *hwpStream) attempt(jobName string, number int32) *hwpv1.AttemptRef {
	s.t.Helper()
	s.await("attempt of "+jobName, func(h *heard) bool { return h.assigned[jobName].GetAttempt().GetAttempt() == number })
	return s.know().assigned[jobName].GetAttempt()
}

func heartbeat() *hwpv1.AgentMessage {
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_Heartbeat{Heartbeat: &hwpv1.Heartbeat{}}}
}
