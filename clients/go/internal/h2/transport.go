package h2

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"

	"golang.org/x/net/http2"
)

// Transport makes requests to servers that speak HTTP/2 over TLS. It may be used from several goroutines at once.
//
// An http.Transport opens the connections: it knows proxies, names and TLS. Once there is one to a server, requests go straight
// to it. Redirects are not followed.
type Transport struct {
	dialer *http.Transport

	mu    sync.RWMutex
	conns map[string]*conn // by host and port: the one that takes requests
	all   map[*conn]struct{}
}

// NewTransport returns a transport whose connections t opens; t must not be used for anything else. The fields SendPingTimeout
// and PingTimeout of t.HTTP2 say how a silent server is found; what else it sets is not looked at.
func NewTransport(t *http.Transport) *Transport {
	transport := &Transport{dialer: t, conns: make(map[string]*conn), all: make(map[*conn]struct{})}
	if t.TLSClientConfig == nil {
		t.TLSClientConfig = new(tls.Config)
	}
	t.TLSClientConfig.NextProtos = []string{http2.NextProtoTLS}
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{http2.NextProtoTLS: transport.opened}
	return transport
}

// opened begins to use a connection, unless another caller was faster.
func (t *Transport) opened(authority string, connection *tls.Conn) http.RoundTripper {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.conns[authority]; c != nil {
		go connection.Close() //nolint:errcheck // nothing was said on it
		return &server{transport: t, authority: authority, conn: c}
	}
	c := newConn(connection, t.dialer.HTTP2, t.closed)
	t.conns[authority] = c
	t.all[c] = struct{}{}
	go c.serve()
	return &server{transport: t, authority: authority, conn: c}
}

// closed forgets a connection that has ended.
func (t *Transport) closed(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, c)
	for authority, known := range t.conns {
		if known == c {
			delete(t.conns, authority)
		}
	}
}

// server is what the http.Transport takes for a connection.
type server struct {
	transport *Transport
	authority string
	conn      *conn
	asked     atomic.Bool
}

// RoundTrip makes a request, the first one usually: others go to the connection without the http.Transport. That forgets a
// connection, and opens another, when it is told that a request was not sent. The first caller on a connection that was of no use to
// anybody is told why instead: another would be no better, and opening one after the other would never end.
func (s *server) RoundTrip(req *http.Request) (*http.Response, error) {
	again := s.asked.Swap(true)
	res, err := s.conn.roundTrip(req)
	var unsent *unsentError
	if !errors.As(err, &unsent) {
		return res, err
	}
	s.transport.drop(s.authority, s.conn)
	if unsent.useless && !again {
		return nil, unsent.cause
	}
	return nil, unsent
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	authority := authorityOf(req.URL)
	c := t.connTo(authority)
	if c == nil || req.URL.Scheme != "https" {
		return t.dialer.RoundTrip(req)
	}
	res, err := c.roundTrip(req)
	var unsent *unsentError
	if !errors.As(err, &unsent) {
		return res, err
	}
	t.drop(authority, c)
	if unsent.bodyUsed {
		if req, err = rewound(req); err != nil {
			return nil, err
		}
	}
	return t.dialer.RoundTrip(req)
}

func (t *Transport) connTo(authority string) *conn {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.conns[authority]
}

// drop has the next request open a connection in the place of one that takes no more.
func (t *Transport) drop(authority string, c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns[authority] == c {
		delete(t.conns, authority)
	}
}

// CloseIdleConnections closes the connections without requests now, and the others when their requests have ended.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	clear(t.conns)
	all := make([]*conn, 0, len(t.all))
	for c := range t.all {
		all = append(all, c)
	}
	t.mu.Unlock()
	for _, c := range all {
		c.retire()
	}
	t.dialer.CloseIdleConnections()
}

// authorityOf is the host and the port of an address, as the http.Transport names them.
func authorityOf(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), "443")
}

// rewound is a request with its body from the start.
func rewound(req *http.Request) (*http.Request, error) {
	if req.GetBody == nil {
		return nil, errors.New("h2: the server has left, and the body of the request cannot be sent to another")
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	again := *req
	again.Body = body
	return &again, nil
}

// unsentError says that the server has not begun a request, so that another connection may take it.
type unsentError struct {
	cause    error
	bodyUsed bool
	useless  bool // the connection has never brought an answer
}

func (e *unsentError) Error() string {
	return "h2: the server takes no more requests on this connection: " + e.cause.Error()
}
func (e *unsentError) Unwrap() error { return e.cause }

// IsHTTP2NoCachedConnError makes the http.Transport open another connection, for which it looks for this method.
func (e *unsentError) IsHTTP2NoCachedConnError() {}
