package h2

import (
	"context"
	"crypto/tls"
	"log"
	"net/http"
	"sync"

	"golang.org/x/net/http2"
)

// server is what the connections of one http.Server share.
type server struct {
	http   *http.Server
	limits limits
	// strangers are the limits of connections without a client certificate.
	strangers limits
	workers   workers

	mu       sync.Mutex
	conns    map[*conn]struct{}
	stopping bool
}

// Configure makes s serve HTTP/2 over TLS by this package. The limits are those of s and of its HTTP2 field at the time of the
// call, and those for strangers where they are lower; call it before s serves. Shutdown and Close of s work as ever: Shutdown lets
// the calls under way end.
func Configure(s *http.Server, strangers Strangers) {
	srv := newServer(s)
	srv.strangers = srv.limits.lowered(strangers)
	if s.TLSNextProto == nil {
		s.TLSNextProto = make(map[string]func(*http.Server, *tls.Conn, http.Handler))
	}
	s.TLSNextProto[http2.NextProtoTLS] = srv.serveTLS
	s.RegisterOnShutdown(srv.shutdown)
}

func newServer(s *http.Server) *server {
	return &server{http: s, limits: limitsOf(s), conns: make(map[*conn]struct{})}
}

// serveTLS serves a connection until it ends; then net/http closes it.
func (s *server) serveTLS(_ *http.Server, connection *tls.Conn, handler http.Handler) {
	state := connection.ConnectionState()
	l := &s.limits
	if len(state.VerifiedChains) == 0 {
		l = &s.strangers
	}
	c := newConn(baseContext(handler), s, l, connection, handler)
	c.tls = &state
	if !s.limits.weakCiphers && !strong(&state) {
		c.refuse(http2.ErrCodeInadequateSecurity)
		return
	}
	s.serve(c)
}

func (s *server) serve(c *conn) {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	stopping := s.stopping
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	if stopping {
		c.leave()
	}
	c.serve()
}

// shutdown asks the peers of all connections to leave when their calls have ended.
func (s *server) shutdown() {
	s.mu.Lock()
	s.stopping = true
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		s.workers.run((*leaver)(c))
	}
}

func (s *server) logf(format string, args ...any) {
	if s.http.ErrorLog != nil {
		s.http.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}

// baseContext is the context that net/http has made for the connection; it comes with the handler.
func baseContext(handler http.Handler) context.Context {
	if h, ok := handler.(interface{ BaseContext() context.Context }); ok {
		return h.BaseContext()
	}
	return context.Background()
}

// strong says whether HTTP/2 may be spoken over a connection, by RFC 9113, 9.2.
func strong(state *tls.ConnectionState) bool {
	if state.Version != tls.VersionTLS12 {
		return state.Version > tls.VersionTLS12
	}
	switch state.CipherSuite {
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	}
	return false
}
