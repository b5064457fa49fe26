package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// AuthResult is what Auth measured.
type AuthResult struct {
	HandshakesPerSecond  float64 `json:"handshakes_per_second"` // full ones, in which both sides prove who they are
	ServerHandshakeCPU   float64 `json:"server_cpu_us_per_handshake"`
	ConnectionsPerSecond float64 `json:"connections_per_second"` // of the Go client, with one small call each
	// GoHandshakesPerSecond is the limit: the same with crypto/tls alone at both ends, the same certificates and as many cores.
	GoHandshakesPerSecond float64 `json:"go_handshakes_per_second"`
	HandshakeRatio        float64 `json:"handshake_ratio"`
	OpenCallMicros        float64 `json:"open_call_p50_us"`  // a call that anybody may make, one after the other on one connection
	KnownCallMicros       float64 `json:"known_call_p50_us"` // one that needs a permission
	AuthorizationMicros   float64 `json:"authorization_us"`  // the difference, which is also what the calls themselves do
}

// Auth measures what it costs to prove who one is, and to be let do something.
func Auth(ctx context.Context, options Options) (*AuthResult, error) {
	w, err := OpenWorld(ctx, options)
	if err != nil {
		return nil, err
	}
	defer w.Close() //nolint:errcheck // the figures are what counts
	client, server, err := w.identities()
	if err != nil {
		return nil, err
	}
	r, dialers := new(AuthResult), 2*runtime.NumCPU()
	before, err := goHandshakes(client, server, dialers, options.Duration/2)
	if err != nil {
		return nil, err
	}
	spent, err := usageOf(w.server.pid())
	if err != nil {
		return nil, err
	}
	shook, err := repeat(ctx, dialers, options.Duration, func() error { return shake(w.Address(), client) })
	if err != nil {
		return nil, errors.Join(err, w.health())
	}
	after, err := usageOf(w.server.pid())
	if err != nil {
		return nil, err
	}
	r.HandshakesPerSecond, r.ServerHandshakeCPU = shook.rate, float64((after.cpu-spent.cpu).Microseconds())/float64(shook.n)
	again, err := goHandshakes(client, server, dialers, options.Duration/2)
	if err != nil {
		return nil, err
	}
	r.GoHandshakesPerSecond = (before + again) / 2
	r.HandshakeRatio = r.HandshakesPerSecond / r.GoHandshakesPerSecond
	connected, err := repeat(ctx, dialers, options.Duration, func() error { return w.connectAndAsk(ctx) })
	if err != nil {
		return nil, errors.Join(err, w.health())
	}
	r.ConnectionsPerSecond = connected.rate
	return r, w.timeCalls(ctx, options.Duration, r)
}

// identities are the settings of a client of the run, and of a server with the certificates of the run's.
func (w *World) identities() (client, server *tls.Config, err error) {
	own, err := tls.LoadX509KeyPair(w.config.Cert, w.config.Key)
	if err != nil {
		return nil, nil, err
	}
	folder := filepath.Dir(w.config.CA)
	theirs, err := tls.LoadX509KeyPair(filepath.Join(folder, "server.pem"), filepath.Join(folder, "server-key.pem"))
	if err != nil {
		return nil, nil, err
	}
	ca, err := os.ReadFile(w.config.CA)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, nil, fmt.Errorf("%s has no certificate", w.config.CA)
	}
	protocols := []string{"h2"}
	client = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, NextProtos: protocols, RootCAs: roots, ServerName: "localhost",
	}
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{theirs}, NextProtos: protocols, SessionTicketsDisabled: true,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
	}
	return client, server, nil
}

// connectAndAsk makes a client, which connects, and one call.
func (w *World) connectAndAsk(ctx context.Context) error {
	c, err := w.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Raw.Auth.GetLoginOptions(ctx, &hodeiv1.GetLoginOptionsRequest{})
	return err
}

// timeCalls times calls with and without authorisation, in turn.
func (w *World) timeCalls(ctx context.Context, d time.Duration, r *AuthResult) error {
	c, err := w.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	calls := []func(*hodei.Client) error{
		func(c *hodei.Client) error {
			_, err := c.Raw.Auth.GetLoginOptions(ctx, &hodeiv1.GetLoginOptionsRequest{})
			return err
		},
		func(c *hodei.Client) error {
			_, err := c.Raw.Logins.ListLogins(ctx, &adminv1.ListLoginsRequest{})
			return err
		},
	}
	took := make([][]time.Duration, len(calls))
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i, call := range calls {
			begin := time.Now()
			if err := call(c); err != nil {
				return err
			}
			took[i] = append(took[i], time.Since(begin))
		}
	}
	r.OpenCallMicros, r.KnownCallMicros = micros(took[0], 0.5), micros(took[1], 0.5)
	r.AuthorizationMicros = r.KnownCallMicros - r.OpenCallMicros
	return nil
}
