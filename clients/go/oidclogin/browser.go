package oidclogin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/hodei-jobs/hodei/proto/issuer"
)

const (
	// browserTime is how long a person may take.
	browserTime = 5 * time.Minute
	// closeTime is how long the browser may take to receive the last page.
	closeTime = 2 * time.Second
	// callbackPath is where the provider sends the browser when the person is done.
	callbackPath = "/callback"
)

// page is what the browser shows at the end. It is the same whatever has happened, and runs nothing.
const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Hodei Jobs</title>
<p>You can close this page. The terminal says whether you are logged in.</p></html>
`

// Browser logs a person in by a browser on this machine: the authorization code flow with PKCE, and a callback on 127.0.0.1 at a free
// port (RFC 8252). open gets the address to open and should return once the browser has started; it is called once. It returns the
// ID token.
//
// The error is ErrDenied when the person declines, ErrExpired after 5 minutes, that of ctx when ctx ends, that of open, or says what
// the provider has answered or that it is away. The first callback ends the login, also one that does not belong to it.
func Browser(ctx context.Context, config Config, open func(url string) error) (string, error) {
	requests, l, err := begin(ctx, config)
	if err != nil {
		return "", err
	}
	if err := issuer.Check(l.oauth.Endpoint.AuthURL); err != nil {
		return "", fmt.Errorf("the OIDC provider %s offers no login by a browser: %w", config.Issuer, err)
	}
	return l.browse(ctx, requests, open, browserTime)
}

// browse is Browser once the provider's addresses are known. patience is how long a person may take.
func (l *login) browse(ctx, requests context.Context, open func(url string) error, patience time.Duration) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("the browser's answer cannot be received: %w", err)
	}
	callbacks := make(chan url.Values, 1)
	server := receive(listener, callbacks)
	defer shut(server)

	l.oauth.RedirectURL = "http://" + listener.Addr().String() + callbackPath
	// Each is 32 random bytes.
	state, nonce, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	failed := make(chan error, 1)
	go func() {
		if err := open(l.oauth.AuthCodeURL(state, gooidc.Nonce(nonce), oauth2.S256ChallengeOption(verifier))); err != nil {
			failed <- err
		}
	}()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	var callback url.Values
	select {
	case callback = <-callbacks:
	case err := <-failed:
		return "", fmt.Errorf("the browser cannot be opened: %w", err)
	case <-timeout.C:
		return "", fmt.Errorf("%w: the browser did not come back within %v; log in again", ErrExpired, patience)
	case <-ctx.Done():
		return "", ctx.Err()
	}
	code, err := l.code(callback, state)
	if err != nil {
		return "", err
	}
	token, err := l.oauth.Exchange(requests, code, oauth2.VerifierOption(verifier))
	if err != nil {
		return "", l.failed(ctx, "gives no token for the login", err)
	}
	return l.idToken(ctx, requests, token, nonce)
}

// receive serves the callback and puts the first one, and no other, into callbacks, which has room for it.
func receive(listener net.Listener, callbacks chan<- url.Values) *http.Server {
	var over atomic.Bool
	mux := http.NewServeMux()
	// With the host in the pattern, a page of elsewhere whose name leads here gets nothing.
	mux.HandleFunc("GET 127.0.0.1"+callbackPath, func(w http.ResponseWriter, r *http.Request) {
		if over.Swap(true) {
			http.Error(w, "The login is over.", http.StatusGone)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Referrer-Policy", "no-referrer") // the address holds the code
		h.Set("Cache-Control", "no-store")
		_, _ = io.WriteString(w, page) // a browser that is gone has what it wanted
		callbacks <- r.URL.Query()
	})
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10}
	go func() { _ = server.Serve(listener) }() // it ends when the login does
	return server
}

// shut lets the browser receive its page, and closes the port.
func shut(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		_ = server.Close()
	}
}

// code returns the code in a callback, which must belong to this login and come from its provider.
func (l *login) code(callback url.Values, state string) (string, error) {
	if callback.Get("state") != state {
		return "", errors.New("the browser came back from another login (state); close its other pages and log in again")
	}
	// A provider may name itself (RFC 9207), so that no other one's code is sent to this one.
	if by := callback.Get("iss"); by != "" && by != l.config.Issuer {
		return "", fmt.Errorf("the browser came back from %.100q instead of %s; log in again", by, l.config.Issuer)
	}
	if code := callback.Get("error"); code != "" {
		return "", l.answered(code, callback.Get("error_description"))
	}
	code := callback.Get("code")
	if code == "" {
		return "", errors.New("the browser came back without a code; log in again")
	}
	return code, nil
}
