package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve runs a server of net/http over TLS on loopback, and returns what opens connections to it.
func serve(t testing.TB, handler http.HandlerFunc) (*httptest.Server, *http.Transport) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 20}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, dialer(s)
}

func dialer(s *httptest.Server) *http.Transport {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true}
}

// own is the transport of this package.
func own(t testing.TB, d *http.Transport) *Transport {
	transport := NewTransport(d)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// scene answers in the way that the path names.
func scene(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/echo":
		w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
		_, _ = io.Copy(w, r.Body)
	case "/headers":
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			fmt.Fprintln(w, name, r.Header[name])
		}
		fmt.Fprintln(w, r.Method, r.Host, r.RequestURI, r.ContentLength)
	case "/status":
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(http.StatusTemporaryRedirect)
	case "/none":
		w.WriteHeader(http.StatusNoContent)
	case "/large":
		w.Header()["X"] = []string{"1", "2", "3"}
		_, _ = w.Write(bytes.Repeat([]byte("0123456789abcdef"), 400_000))
	case "/flushed":
		for i := range 20 {
			fmt.Fprintln(w, i)
			_ = http.NewResponseController(w).Flush()
		}
	case "/trailers":
		w.Header().Set("Trailer", "A, B")
		_, _ = io.WriteString(w, "body")
		w.Header().Set("A", "1")
		w.Header().Set(http.TrailerPrefix+"C", "3")
	case "/early":
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "enough")
	case "/abort":
		_, _ = io.WriteString(w, "some")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case "/short":
		w.Header().Set("Content-Length", "9")
		_, _ = io.WriteString(w, "hello")
	}
}

// seen is what a caller got.
type seen struct {
	Status  string
	Length  int64
	Header  http.Header
	Trailer http.Header
	Body    string
	Failed  bool
}

func look(rt http.RoundTripper, req *http.Request) seen {
	res, err := rt.RoundTrip(req)
	if err != nil {
		return seen{Failed: true}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	delete(res.Header, "Date")
	got := seen{Status: res.Status, Length: res.ContentLength, Header: res.Header, Trailer: res.Trailer, Body: string(body), Failed: err != nil}
	if err != nil {
		got.Body = ""
	}
	return got
}

// Callers see what they would see of net/http.
func TestCallersSeeWhatTheyDidOfNetHTTP(t *testing.T) {
	t.Parallel()
	s, d := serve(t, scene)
	usual := dialer(s)
	usual.ForceAttemptHTTP2 = true
	t.Cleanup(usual.CloseIdleConnections)
	mine := own(t, d)
	large := strings.Repeat("0123456789abcdef", 100_000)
	for _, path := range []string{"/echo", "/headers?a=b&c", "/status", "/none", "/large", "/flushed", "/trailers", "/early", "/abort", "/short", "/nothing"} {
		for name, make := range map[string]func() (*http.Request, error){
			"GET":     func() (*http.Request, error) { return http.NewRequest("GET", s.URL+path, nil) },
			"HEAD":    func() (*http.Request, error) { return http.NewRequest("HEAD", s.URL+path, nil) },
			"nothing": func() (*http.Request, error) { return http.NewRequest("POST", s.URL+path, nil) },
			"small":   func() (*http.Request, error) { return http.NewRequest("POST", s.URL+path, strings.NewReader("body")) },
			"large":   func() (*http.Request, error) { return http.NewRequest("PUT", s.URL+path, strings.NewReader(large)) },
			"stream": func() (*http.Request, error) {
				return http.NewRequest("POST", s.URL+path, io.MultiReader(strings.NewReader(large), strings.NewReader("end")))
			},
		} {
			var got [2]seen
			for i, rt := range []http.RoundTripper{usual, mine} {
				req, err := make()
				if err != nil {
					t.Fatal(err)
				}
				req.Header = http.Header{"User-Agent": {"test"}, "X-Many": {"1", "2"}, "Accept-Encoding": {"identity"}}
				got[i] = look(rt, req)
			}
			if !reflect.DeepEqual(got[0], got[1]) {
				t.Errorf("%s %s: net/http got\n %.300v\nand this got\n %.300v", name, path, got[0], got[1])
			}
		}
	}
}

// echoed is what the server has made of a body. A server may count requests that have ended a little longer than its clients,
// and refuse one too many.
func echoed(rt http.RoundTripper, url string, body []byte, length bool) (string, error) {
	for {
		var reader io.Reader = bytes.NewReader(body)
		if !length {
			reader = io.MultiReader(reader)
		}
		req, err := http.NewRequest(http.MethodPost, url+"/echo", reader)
		if err != nil {
			return "", err
		}
		res, err := rt.RoundTrip(req)
		if err != nil && strings.Contains(err.Error(), "REFUSED_STREAM") {
			continue
		}
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		got, err := io.ReadAll(res.Body)
		return string(got), err
	}
}

// Many callers at once share what connections there are, and each gets its own answer.
func TestManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	s, d := serve(t, scene)
	mine := own(t, d)
	var group sync.WaitGroup
	for i := range 60 { // the server takes 20 on a connection
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range 20 {
				body := bytes.Repeat([]byte{byte(i)}, random.IntN(3)*random.IntN(60_000))
				if got, err := echoed(mine, s.URL, body, random.IntN(2) == 0); err != nil || got != string(body) {
					t.Errorf("sent %d bytes and got %d, %v", len(body), len(got), err)
				}
			}
		})
	}
	group.Wait()
}

// A connection that has ended is replaced by the next request, and those under way go on.
func TestAServerThatIsStartedAgain(t *testing.T) {
	t.Parallel()
	s, d := serve(t, scene)
	mine := own(t, d)
	for range 3 {
		req, err := http.NewRequest(http.MethodPost, s.URL+"/echo", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		if got := look(mine, req); got.Body != "abc" {
			t.Fatalf("got %+v", got)
		}
		s.CloseClientConnections()
		for { // until the client has seen it
			mine.mu.RLock()
			n := len(mine.all)
			mine.mu.RUnlock()
			if n == 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// tunnel is a proxy that only connects. It counts what goes through it.
func tunnel(t *testing.T) (address *url.URL, connects *atomic.Int32) {
	t.Helper()
	connects = new(atomic.Int32)
	p := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		far, err := net.Dial("tcp", r.Host)
		if err != nil || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer far.Close()
		connects.Add(1)
		near, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer near.Close()
		_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(far, buffered) }()
		_, _ = io.Copy(near, far)
	}))
	t.Cleanup(p.Close)
	address, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return address, connects
}

func TestAProxy(t *testing.T) {
	t.Parallel()
	s, d := serve(t, scene)
	address, connects := tunnel(t)
	d.Proxy = http.ProxyURL(address)
	mine := own(t, d)
	for range 3 {
		req, err := http.NewRequest(http.MethodPost, s.URL+"/echo", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		if got := look(mine, req); got.Body != "abc" || connects.Load() != 1 {
			t.Fatalf("got %+v through %d connections", got, connects.Load())
		}
	}
	mine.CloseIdleConnections()
	s.Close() // which waits for connections that are not idle
}

// A server that takes the connection and then refuses the client's certificate says so, and is asked once.
func TestAServerThatWantsACertificate(t *testing.T) {
	t.Parallel()
	var dialed atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(scene))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	d := dialer(s)
	d.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	mine := own(t, d)
	req, err := http.NewRequest(http.MethodPost, s.URL+"/echo", strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = mine.RoundTrip(req)
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || dialed.Load() != 1 {
		t.Errorf("got %v after %d connections", err, dialed.Load())
	}
}

// A server without HTTP/2 is still understood, as net/http does it.
func TestAServerOfHTTP1(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(scene))
	t.Cleanup(s.Close)
	s.TLS.NextProtos = nil
	mine := own(t, dialer(s))
	req, err := http.NewRequest(http.MethodPost, s.URL+"/echo", strings.NewReader("abc"))
	if err != nil {
		t.Fatal(err)
	}
	if got := look(mine, req); got.Body != "abc" {
		t.Errorf("got %+v", got)
	}
}

func TestServersThatCannotBeReached(t *testing.T) {
	t.Parallel()
	s, d := serve(t, scene)
	mine := own(t, d)
	s.Close()
	req, err := http.NewRequest(http.MethodGet, s.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = mine.RoundTrip(req)
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" {
		t.Errorf("got %v", err)
	}
}

// A server that ends its first connections before it answers, being started say, is asked once for each call, and used when it is there.
func TestAServerThatEndsConnectionsAtOnce(t *testing.T) {
	t.Parallel()
	const ended = 5
	var left, dialed atomic.Int32
	left.Store(ended)
	s := httptest.NewUnstartedServer(http.HandlerFunc(scene))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateActive && left.Add(-1) >= 0 {
			_ = c.Close()
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	d := dialer(s)
	d.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed.Add(1)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	mine := own(t, d)
	for calls := int32(1); ; calls++ {
		req, err := http.NewRequest(http.MethodPost, s.URL+"/echo", strings.NewReader("abc"))
		if err != nil {
			t.Fatal(err)
		}
		got := look(mine, req)
		if dialed.Load() > calls {
			t.Fatalf("%d calls opened %d connections", calls, dialed.Load())
		}
		if got.Body == "abc" {
			return
		}
		if calls > 2*ended {
			t.Fatalf("after %d calls: %+v", calls, got)
		}
	}
}
