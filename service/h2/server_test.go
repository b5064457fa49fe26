package h2_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/hodei-jobs/hodei/service/h2"
)

// start runs a server whose http.Server the test can change, and returns a way to make clients with a connection of their own.
func start(t *testing.T, handler http.HandlerFunc, change func(*http.Server)) (*httptest.Server, func() *http.Client) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	if change != nil {
		change(s.Config)
	}
	h2.Configure(s.Config, h2.Strangers{})
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, func() *http.Client {
		transport := s.Client().Transport.(*http.Transport).Clone()
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
}

func get(client *http.Client, url string) (string, error) {
	answer, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// Shutdown waits for the calls under way and closes idle connections; new calls are not taken any more.
func TestShutdownOfTheServer(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	s, newClient := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-release
		}
		_, _ = io.WriteString(w, "done")
	}, nil)
	idle, busy := newClient(), newClient()
	if _, err := get(idle, s.URL); err != nil {
		t.Fatal(err)
	}
	answers := make(chan string, 1)
	go func() {
		body, err := get(busy, s.URL+"/slow")
		answers <- fmt.Sprint(body, err)
	}()
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- s.Config.Shutdown(context.Background()) }()
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown did not wait: %v", err)
	case <-time.After(300 * time.Millisecond): // it cannot be seen otherwise that it waits
	}
	close(release)
	if got := <-answers; got != "done<nil>" {
		t.Fatalf("the call under way got %s", got)
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if _, err := get(idle, s.URL); err == nil {
		t.Fatal("a call was taken after the end")
	}
}

// Close ends everything at once, and handlers hear of it.
func TestCloseOfTheServer(t *testing.T) {
	t.Parallel()
	began, canceled := make(chan struct{}), make(chan struct{})
	s, newClient := start(t, func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		close(canceled)
	}, nil)
	failed := make(chan error, 1)
	go func() {
		_, err := get(newClient(), s.URL)
		failed <- err
	}()
	<-began
	if err := s.Config.Close(); err != nil {
		t.Fatal(err)
	}
	<-canceled
	if err := <-failed; err == nil {
		t.Fatal("the call was answered")
	}
}

// The context of the server ends its calls.
func TestTheBaseContextIsKept(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	type key struct{}
	canceled := make(chan any, 1)
	s, newClient := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
		canceled <- r.Context().Value(key{})
	}, func(s *http.Server) {
		s.BaseContext = func(net.Listener) context.Context { return context.WithValue(ctx, key{}, "value") }
	})
	_, _ = get(newClient(), s.URL)
	if got := <-canceled; got != "value" {
		t.Fatalf("the context has %v", got)
	}
}

func TestStatesOfConnections(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var states []http.ConnState
	closed := make(chan struct{})
	s, newClient := start(t, func(http.ResponseWriter, *http.Request) {}, func(s *http.Server) {
		s.ConnState = func(_ net.Conn, state http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			states = append(states, state)
			if state == http.StateClosed {
				close(closed)
			}
		}
	})
	client := newClient()
	if _, err := get(client, s.URL); err != nil {
		t.Fatal(err)
	}
	client.CloseIdleConnections()
	<-closed
	if got := fmt.Sprint(states); got != "[new active idle active idle closed]" {
		t.Fatal(got)
	}
}

// Ciphers that HTTP/2 forbids are refused, as RFC 9113 asks.
func TestWeakCiphersAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := start(t, func(http.ResponseWriter, *http.Request) {}, nil)
	connection, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"h2"}, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	frames := http2.NewFramer(connection, connection)
	for {
		f, err := frames.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if away, ok := f.(*http2.GoAwayFrame); ok {
			if away.ErrCode != http2.ErrCodeInadequateSecurity {
				t.Fatal(away)
			}
			return
		}
	}
}

// HTTP/1.1 stays with net/http.
func TestOlderClientsAreServed(t *testing.T) {
	t.Parallel()
	s, newClient := start(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }, nil)
	client := newClient()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	client.Transport.(*http.Transport).Protocols = protocols
	client.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
	if got, err := get(client, s.URL); err != nil || got != "HTTP/1.1" {
		t.Fatal(got, err)
	}
}

// Other clients than that of net/http understand the server.
func TestOtherClients(t *testing.T) {
	t.Parallel()
	s, newClient := start(t, echo, nil)
	t.Run("golang.org/x/net", func(t *testing.T) {
		transport := otherTransport(newClient().Transport.(*http.Transport).TLSClientConfig)
		answer, err := (&http.Client{Transport: transport}).Post(s.URL, "text/plain", strings.NewReader(strings.Repeat("x", 300_000)))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || len(body) != 300_000 {
			t.Fatal(len(body), err)
		}
	})
	t.Run("curl", func(t *testing.T) {
		curl, err := exec.LookPath("curl")
		if err != nil {
			t.Fatal("this test needs curl; install it (apt-get install curl): ", err)
		}
		command := exec.CommandContext(t.Context(), curl, "-sk", "--http2", "--data-binary", "@-", "-w", "%{http_version} %{http_code}", s.URL, s.URL)
		command.Stdin = strings.NewReader("hello")
		out, err := command.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) || !strings.Contains(string(out), "hello2 200") {
			t.Fatalf("%v: %s", err, out)
		}
	})
}

// otherTransport is the client that grew apart from net/http's, and is still in use.
func otherTransport(config *tls.Config) http.RoundTripper {
	return &http2.Transport{TLSClientConfig: config, ReadIdleTimeout: time.Second} //nolint:staticcheck // old clients exist
}

// Many streams on one connection, with large bodies both ways, all get what is theirs.
func TestManyStreamsOnOneConnection(t *testing.T) {
	t.Parallel()
	s, newClient := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		_, _ = io.Copy(w, r.Body)
	}, nil)
	client := newClient()
	var wait sync.WaitGroup
	for i := range 60 {
		wait.Go(func() {
			want := strings.Repeat(fmt.Sprintf("%05d", i), 20_000)
			answer, err := client.Post(s.URL, "text/plain", io.MultiReader(strings.NewReader(want)))
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if got, err := io.ReadAll(answer.Body); err != nil || string(got) != want {
				t.Errorf("stream %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	wait.Wait()
}
