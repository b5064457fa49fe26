// Package issuer is what the server and its clients demand of an OIDC provider: that nobody in between can change what it
// says, and that it cannot make them read, or wait, without an end.
package issuer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
)

const (
	// maxAnswerBytes bounds what is read of an answer; a description and a set of keys have a few thousand bytes.
	maxAnswerBytes = 1 << 20
	// timeout is how long one answer may take.
	timeout = 10 * time.Second
	// maxRedirects is how often a provider may send a request elsewhere.
	maxRedirects = 5
	// maxTextBytes bounds what is repeated of an error: those of providers may hold a whole page of HTML.
	maxTextBytes = 300
)

// Check says what is wrong with the address of a provider or of one of its endpoints. It must be an absolute https address
// without user or fragment; http is good for this machine itself only.
func Check(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Opaque != "" || u.User != nil || u.Fragment != "" {
		return fmt.Errorf("%.200q is not the address of an OIDC provider; it looks like https://login.example.org", address)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return fmt.Errorf("the OIDC provider's address %.200q must begin with https://; http:// is for this machine itself only", address)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Client returns a client for requests to a provider, made from base or, when that is nil, from http.DefaultClient. It calls only
// addresses that Check is content with, also when it is sent elsewhere, reads at most 1 MiB of an answer, and waits for at most
// 10 seconds. Its errors are for Text.
func Client(base *http.Client) *http.Client {
	if base == nil {
		base = http.DefaultClient
	}
	client := *base
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	client.Transport = guarded{client.Transport}
	if client.Timeout <= 0 || client.Timeout > timeout {
		client.Timeout = timeout
	}
	client.CheckRedirect = func(_ *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("it redirects more than %d times", maxRedirects)
		}
		return nil
	}
	return &client
}

// guarded is a transport that calls good addresses only and ends answers that are too long.
type guarded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (g guarded) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := Check(request.URL.String()); err != nil {
		return nil, err
	}
	response, err := g.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	response.Body = &bounded{response.Body, maxAnswerBytes}
	return response, nil
}

var errTooLong = errors.New("the answer is too long")

// bounded is a body that fails where it has become too long.
type bounded struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLong
	}
	if len(p) > b.left+1 { // one more shows whether there is more
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}

// Text returns what an error says, made fit for one line of a message: at most 300 bytes, all of them printable.
func Text(err error) string {
	text := strings.ToValidUTF8(err.Error(), "?")
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if len(text) > maxTextBytes {
		text = strings.ToValidUTF8(text[:maxTextBytes], "") + "..."
	}
	return text
}
