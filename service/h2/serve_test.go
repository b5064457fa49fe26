package h2_test

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/h2"
)

// serve runs a server over TLS on loopback, by this package or by net/http, and returns a client of net/http and the URL.
func serve(t testing.TB, own bool, handler http.Handler) (*http.Client, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.HTTP2 = &http.HTTP2Config{
		MaxConcurrentStreams: 1000, MaxReadFrameSize: 64 << 10, MaxReceiveBufferPerStream: 256 << 10,
		MaxReceiveBufferPerConnection: 4<<20 - 1, WriteByteTimeout: 30 * time.Second,
	}
	if own {
		h2.Configure(s.Config, h2.Strangers{})
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	client := s.Client()
	client.Transport.(*http.Transport).DisableCompression = true
	return client, s.URL
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("X-Proto", r.Proto)
	_, _ = w.Write(body)
}

func TestCallsOfTheUsualClient(t *testing.T) {
	t.Parallel()
	client, url := serve(t, true, http.HandlerFunc(echo))
	for _, size := range []int{0, 1, 4095, 4096, 4097, 16384, 32 << 10, 100_000, 1 << 20, 9 << 20} {
		want := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for _, declared := range []bool{true, false} {
			var body io.Reader = bytes.NewReader(want)
			if !declared {
				body = io.MultiReader(body)
			}
			answer, err := client.Post(url, "application/octet-stream", body)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			got, err := io.ReadAll(answer.Body)
			if err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if err := answer.Body.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) || answer.ProtoMajor != 2 || answer.Header.Get("X-Proto") != "HTTP/2.0" {
				t.Fatalf("%d bytes (declared %v): got %d bytes over %s: %.100s", size, declared, len(got), answer.Proto, got)
			}
		}
	}
}
