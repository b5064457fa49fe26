package hodei

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// callVariable makes the test's program a process that makes one call, with the configuration that it holds.
const callVariable = "HODEI_TEST_CALL"

func TestMain(m *testing.M) {
	text := os.Getenv(callVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var config Config
	err := json.Unmarshal([]byte(text), &config)
	if err == nil {
		var c *Client
		if c, err = makeClient(config); err == nil {
			_, err = c.Get(context.Background(), "job_1")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// oldLogin is a login whose certificate has passed two thirds of its life.
func (s *fakeServer) oldLogin(t *testing.T) Config {
	t.Helper()
	s.mu.Lock()
	s.old = true
	s.mu.Unlock()
	return s.loggedIn(t)
}

func call(t *testing.T, c *Client) {
	t.Helper()
	if _, err := c.Get(t.Context(), "job_1"); err != nil {
		t.Error(err)
	}
}

func newClient(t *testing.T, config Config) *Client {
	t.Helper()
	c, err := New(t.Context(), WithConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCertificateOfALoginRenewsItself(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.oldLogin(t)
	before, err := os.ReadFile(config.Cert)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, config)
	for range 3 {
		call(t, c)
	}
	if n := s.count(&s.renewals); n != 1 {
		t.Errorf("%d renewals", n)
	}
	if got, want := s.certs, []string{"", "login-0", "login-1", "login-1", "login-1"}; !slices.Equal(got, want) {
		t.Errorf("the calls came with %v, want %v: the login, the renewal, and the calls with the new certificate", got, want)
	}
	after, err := os.ReadFile(config.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if _, old, _ := strings.Cut(string(before), "PRIVATE KEY"); strings.Contains(string(after), old) {
		t.Error("the new certificate is for the old key")
	}
	if info, err := os.Stat(config.Cert); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
}

func TestCertificateThatAnotherProcessHasRenewedIsUsed(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.oldLogin(t)
	first, second := newClient(t, config), newClient(t, config)
	call(t, first)
	call(t, second)
	if got, want := s.certs, []string{"", "login-0", "login-1", "login-1"}; !slices.Equal(got, want) {
		t.Errorf("the calls came with %v, want %v: the login, one renewal, and the calls", got, want)
	}
}

func TestFreshCertificateIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.loggedIn(t)
	call(t, newClient(t, config))
	other := s.oldLogin(t)
	over, byHand, combined := other, other, other
	over.RenewableUntil = time.Now().Add(-time.Minute).Format(time.RFC3339)
	byHand.Key = filepath.Join(filepath.Dir(other.Key), "key.pem")
	data, err := os.ReadFile(other.Key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, byHand.Key, string(data))
	combined.Key = filepath.Join(t.TempDir(), "both.pem")
	combined.Cert = writeFile(t, combined.Key, string(data))
	for _, config := range []Config{over, byHand, combined} {
		call(t, newClient(t, config))
	}
	if n := s.count(&s.renewals); n != 0 {
		t.Errorf("%d renewals of a fresh one, one whose login ends, and one in files of somebody's own", n)
	}
	over.RenewableUntil = "soon"
	if _, err := New(t.Context(), WithConfig(over)); err == nil || !strings.Contains(err.Error(), "renewable_until") {
		t.Errorf("a time that is none gave %v", err)
	}
}

func TestRenewalThatFailsHurtsNobody(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.oldLogin(t)
	s.failing = true
	c := newClient(t, config)
	for range 5 {
		call(t, c)
	}
	if n := s.count(&s.renewals); n != 1 {
		t.Errorf("%d renewals were tried within a minute", n)
	}
	// A lock that somebody keeps, who was stopped in the middle.
	s.failing = false
	unlock, err := tryLock(filepath.Join(filepath.Dir(config.Cert), lockFile))
	if err != nil {
		t.Fatal(err)
	}
	call(t, newClient(t, config))
	if n := s.count(&s.renewals); n != 1 {
		t.Errorf("%d renewals: a locked login was renewed", n)
	}
	unlock()
	call(t, newClient(t, config))
	if n := s.count(&s.renewals); n != 2 {
		t.Errorf("%d renewals: the lock does not end", n)
	}
}

// The clock of this machine may go so far ahead that every certificate seems to be old.
func TestCertificateThatStaysOldIsNotRenewedWithEveryCall(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.oldLogin(t)
	s.stale = true
	c := newClient(t, config)
	c.login.keepFresh(t.Context())
	c.login.keepFresh(t.Context())
	if n := s.count(&s.renewals); n != 1 || c.login.isDue() {
		t.Errorf("%d renewals", n)
	}
}

func TestManyProcessesRenewOnce(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.oldLogin(t)
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var processes sync.WaitGroup
	for range 8 {
		processes.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), callVariable+"="+string(text))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	processes.Wait()
	if n := s.count(&s.renewals); n != 1 {
		t.Errorf("8 processes made %d renewals", n)
	}
}

// Nobody ever sees a key without its certificate, whenever they look.
func TestReadersSeeAWholeLoginWhileItIsRenewed(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	config := s.loggedIn(t)
	c := newClient(t, config)
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		for {
			if _, err := loadPair(config); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for range 50 {
		if err := c.login.fetch(t.Context(), filepath.Dir(config.Cert)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	reader.Wait()
	if n := s.count(&s.renewals); n != 50 {
		t.Errorf("%d renewals", n)
	}
}

// Whoever only follows makes no further calls: the certificate is renewed as the stream goes on.
func TestCertificateIsRenewedWhileAStreamLasts(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.watches = 2 // the next one says that a job has ended
	c := newClient(t, s.oldLogin(t))
	c.login.due.Store(time.Now().Add(time.Hour).UnixNano())
	stream, err := c.Raw.Jobs.WatchJobs(t.Context(), &hodeiv1.WatchJobsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	c.login.due.Store(0) // time passes
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	for c.login.isDue() {
		runtime.Gosched() // it goes on behind the stream
	}
	if n := s.count(&s.renewals); n != 1 {
		t.Errorf("%d renewals", n)
	}
}
