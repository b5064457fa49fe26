package hodei

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

func TestLoginStoresWhatNewNeeds(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.loggedIn(t)
	dir := filepath.Dir(config.Cert)
	if config.URL != s.url || config.Login != "lgn_1" || config.RenewableUntil == "" || config.CAPin != "" || config.Token != "" {
		t.Errorf("the configuration is %+v", config)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	c, err := New(t.Context(), WithConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Get(t.Context(), "job_1"); err != nil {
		t.Errorf("a call with the certificate: %v", err)
	}
	if last := s.certs[len(s.certs)-1]; last != "login-0" {
		t.Errorf("the call came with the certificate %q", last)
	}
	if _, err := Login(t.Context(), LoginOptions{URL: s.url, CA: config.CA, IDToken: "good", Dir: dir}); err != nil {
		t.Errorf("again, with the stored CA and an ID token: %v", err)
	}
}

func TestLoginThatFailsStoresNothing(t *testing.T) {
	t.Parallel()
	s, stranger := newFakeServer(t), newFakeServer(t)
	forger := newFakeServer(t)
	forger.shared = true
	for want, options := range map[string]LoginOptions{
		"takes one proof":           {URL: s.url},
		"one proof":                 {URL: s.url, APIToken: "good", IDToken: "good"},
		"there is no such token":    {URL: s.url, APIToken: "bad"},
		"is another one than":       {URL: s.url, CAPin: pinOf(stranger.ca.cert), APIToken: "good"},
		"those that this machine":   {URL: s.url, CA: "-", APIToken: "good"},
		"certificate for another":   {URL: forger.url, CAPin: pinOf(forger.ca.cert), APIToken: "good"},
		"no server answers at":      {URL: "https://127.0.0.1:1", CAPin: pinOf(s.ca.cert), APIToken: "good"},
		"not the address of a serv": {URL: "http://127.0.0.1:1", APIToken: "good"},
	} {
		options.Dir = filepath.Join(t.TempDir(), "login")
		switch {
		case options.CA == "-":
			options.CA = ""
		case options.CAPin == "":
			options.CAPin = pinOf(s.ca.cert)
		}
		if _, err := Login(t.Context(), options); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if files, _ := filepath.Glob(filepath.Join(options.Dir, "*")); len(files) > 0 {
			t.Errorf("%s: %v was stored", want, files)
		}
	}
}

// Whenever a process ends while it writes, what is there is whole: the file of a key and its certificate is replaced at once, and
// unfinished ones have other names.
func TestCrashWhileALoginIsWrittenLeavesAWholeOne(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.loggedIn(t)
	dir := filepath.Dir(config.Cert)
	good, err := os.ReadFile(config.Cert)
	if err != nil {
		t.Fatal(err)
	}
	works := func(when string) {
		t.Helper()
		c, err := New(t.Context(), WithConfig(config))
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer c.Close()
		if _, err := c.Get(t.Context(), "job_1"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	for n := range len(good) {
		if n%97 == 0 {
			writeFile(t, filepath.Join(dir, ".new-1"), string(good[:n]))
			works(fmt.Sprintf("after %d bytes of a new file", n))
		}
	}
	// The roots are new, and the certificate could not be written.
	key, csr, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := s.issue(csr, "login-9")
	if err != nil {
		t.Fatal(err)
	}
	issued.RootsDer = append(issued.RootsDer, newTestCA(t).cert.Raw)
	if err := os.Rename(config.Cert, config.Cert+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(config.Cert, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := storeLogin(dir, key, issued); err == nil {
		t.Fatal("a file that cannot be replaced is no error")
	}
	if err := errors.Join(os.RemoveAll(config.Cert), os.Rename(config.Cert+".kept", config.Cert)); err != nil {
		t.Fatal(err)
	}
	works("with new roots and the old certificate")
	if left, _ := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) != 1 {
		t.Errorf("files are left over: %v", left)
	}
	if err := storeLogin(dir, key, issued); err != nil {
		t.Fatal(err)
	}
	works("with all of it")
	if pair, err := tls.LoadX509KeyPair(config.Cert, config.Key); err != nil || pair.Leaf.Subject.CommonName != "login-9" {
		t.Errorf("the new certificate is %v, %v", pair.Leaf, err)
	}
}

func (s *fakeServer) RequestLogin(_ context.Context, req *hodeiv1.RequestLoginRequest) (*hodeiv1.RequestLoginResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	issued, err := s.issue(req.GetCsrDer(), "login-"+req.GetUser())
	if err != nil {
		return nil, err
	}
	for _, state := range s.states {
		if state.GetState() == hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_APPROVED {
			state.Certificate = issued
		}
	}
	return &hodeiv1.RequestLoginResponse{Secret: "secret", Code: "AB12CD34", ExpireTime: timestamppb.New(time.Now().Add(time.Minute))}, nil
}

// CollectLogin answers with the next of the states: none for a request that is forgotten, one without a state when asked too often.
func (s *fakeServer) CollectLogin(_ context.Context, req *hodeiv1.CollectLoginRequest) (*hodeiv1.CollectLoginResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.states) == 0 || req.GetSecret() != "secret" {
		return nil, connect.NewError(connect.CodeNotFound, "there is no such request")
	}
	state := s.states[0]
	s.states = s.states[1:]
	if state.GetState() == hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_UNSPECIFIED {
		detail := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)}
		value, err := proto.Marshal(detail)
		if err != nil {
			return nil, err
		}
		return nil, connect.NewError(connect.CodeResourceExhausted, "too often").
			WithDetail(&connect.ErrorDetail{Type: string(detail.ProtoReflect().Descriptor().FullName()), Value: value})
	}
	return state, nil
}

func TestRequestedLoginComesWhenItIsApproved(t *testing.T) {
	t.Parallel()
	const (
		often    = hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_UNSPECIFIED
		pending  = hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_PENDING
		approved = hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_APPROVED
		denied   = hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_DENIED
	)
	for want, states := range map[string][]hodeiv1.LoginRequestState{
		"":                      {pending, often, pending, approved},
		"has denied":            {pending, denied},
		"is forgotten":          {pending},
		"without a certificate": {approved}, // which was given before
	} {
		s := newFakeServer(t)
		for _, state := range states {
			s.states = append(s.states, &hodeiv1.CollectLoginResponse{State: state})
		}
		dir := filepath.Join(t.TempDir(), "login")
		p, err := RequestLogin(t.Context(), LoginOptions{URL: s.url, CAPin: pinOf(s.ca.cert), Dir: dir}, "ada")
		if err != nil || p.Code != "AB12CD34" || p.Expires.Before(time.Now()) {
			t.Fatalf("got %+v, %v", p, err)
		}
		if want == "without a certificate" {
			s.states[0].Certificate = nil
		}
		p.every = time.Millisecond
		config, err := p.CollectLogin(t.Context())
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
			continue
		}
		if err != nil || config.Login != "lgn_1" {
			t.Fatalf("got %+v, %v", config, err)
		}
		if pair, err := tls.LoadX509KeyPair(config.Cert, config.Key); err != nil || pair.Leaf.Subject.CommonName != "login-ada" {
			t.Errorf("the certificate is %v, %v", pair.Leaf, err)
		}
	}
}

func TestWaitingForAnApprovalCanBeEnded(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	p, err := RequestLogin(t.Context(), LoginOptions{URL: s.url, CAPin: pinOf(s.ca.cert), Dir: t.TempDir()}, "ada")
	if err != nil {
		t.Fatal(err)
	}
	s.states = []*hodeiv1.CollectLoginResponse{{State: hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_PENDING}}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.CollectLogin(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
