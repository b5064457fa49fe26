package issuer

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"https://login.example.org", "https://login.example.org:8443/realms/x/", "http://localhost:1", "http://127.0.0.1:1/a",
		"http://127.9.9.9", "http://[::1]:80", "https://example.org/keys?v=2",
	} {
		if err := Check(good); err != nil {
			t.Errorf("Check(%q): %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "login.example.org", "https://", "https:login", "/path", "http://login.example.org", "http://localhost.example.org", "http://10.0.0.1",
		"ftp://127.0.0.1", "file:///etc/passwd", "https://user:word@example.org", "https://example.org/#x", "https://exa mple.org", "\x00",
	} {
		if err := Check(bad); err == nil || !strings.Contains(err.Error(), "https://") {
			t.Errorf("Check(%q) = %v, want an error that says how it should look", bad, err)
		}
	}
}

func TestClientBoundsAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size int
		want error
	}{{0, nil}, {maxAnswerBytes, nil}, {maxAnswerBytes + 1, errTooLong}, {3 * maxAnswerBytes, errTooLong}} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("x", tt.size)) // the client may hang up
		}))
		defer server.Close()
		response, err := Client(nil).Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if !errors.Is(err, tt.want) || err == nil && len(body) != tt.size {
			t.Errorf("of %d bytes, %d were read (error %v)", tt.size, len(body), err)
		}
	}
}

// redirects answers every request with another address.
func redirects(to func(*http.Request) string) *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: http.StatusFound, Header: http.Header{"Location": {to(r)}}, Body: http.NoBody, Request: r,
		}, nil
	})}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestClientRefusesToBeLedAstray(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ to, want string }{
		"to plain text": {"http://login.example.org/", "must begin with https://"},
		"in a circle":   {"https://login.example.org/", "redirects more than"},
	} {
		client := Client(redirects(func(*http.Request) string { return tt.to }))
		if client.Timeout != timeout {
			t.Errorf("an answer may take %v", client.Timeout)
		}
		response, err := client.Get("https://login.example.org/")
		if err == nil {
			response.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
		got := Text(errors.New(strings.Repeat(text, rapid.IntRange(1, 50).Draw(t, "times"))))
		if len(got) > maxTextBytes+3 || !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("Text gives %q", got)
		}
	})
	if got := Text(errors.New("401: <html>\n\x1b[2J")); got != "401: <html>  [2J" {
		t.Errorf("Text gives %q", got)
	}
}
