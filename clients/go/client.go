// Package hodei is the Go client of Hodei Jobs.
//
// A Client submits jobs, follows their output from the first byte, waits for their end and manages workers. Calls that are
// safe to repeat are repeated when the connection or the server fails; following and waiting go on where they were, with
// nothing lost or doubled.
package hodei

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/hodei-jobs/hodei/clients/go/internal/h2"
	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/proto/codec"
)

// Client talks to one server. Its methods may be called from several goroutines at once.
type Client struct {
	// Raw are the generated clients, for what the methods do not cover. They neither repeat calls nor translate errors.
	Raw       Raw
	config    Config
	transport *transport
}

// transport remembers whether the server has ever answered.
type transport struct {
	*h2.Transport
	reached atomic.Bool
}

// Do makes a request. It does not follow redirects, which no server of jobs sends.
func (t *transport) Do(req *http.Request) (*http.Response, error) {
	res, err := t.RoundTrip(req)
	if err == nil && !t.reached.Load() {
		t.reached.Store(true)
	}
	return res, err
}

// Raw are the generated clients.
type Raw struct {
	Jobs      hodeiv1connect.JobServiceClient
	Logs      hodeiv1connect.LogServiceClient
	Workers   hodeiv1connect.WorkerServiceClient
	Secrets   hodeiv1connect.SecretServiceClient
	Queues    hodeiv1connect.QueueServiceClient
	Tokens    adminv1connect.TokenServiceClient
	Retention adminv1connect.RetentionServiceClient
	Authority adminv1connect.AuthorityServiceClient
}

// New makes a client; it connects with the first call. Use ResolveConfig for the settings that the command line uses.
func New(config Config) (*Client, error) {
	if u, err := url.Parse(config.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not the address of a server; it looks like https://host:7443", config.URL)
	}
	security, err := security(config)
	if err != nil {
		return nil, err
	}
	c := &Client{config: config, transport: &transport{Transport: h2.NewTransport(&http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     security,
		TLSHandshakeTimeout: 10 * time.Second,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second,
			PingTimeout:     10 * time.Second,
		},
	})}}
	client := connect.NewClient(connecthttp.NewTransport(c.transport, config.URL,
		connecthttp.WithCompressors(), connecthttp.WithReadMaxBytes(64<<20),
		connecthttp.WithCodecs(codec.New(&hodeiv1.SubmitJobRequest{}, &hodeiv1.SubmitJobResponse{},
			&hodeiv1.SubmitJobsRequest{}, &hodeiv1.SubmitJobsResponse{}, &hodeiv1.TailLogsResponse{}))))
	c.Raw = Raw{
		Jobs: hodeiv1connect.NewJobServiceClient(client), Logs: hodeiv1connect.NewLogServiceClient(client),
		Workers: hodeiv1connect.NewWorkerServiceClient(client), Queues: hodeiv1connect.NewQueueServiceClient(client),
		Secrets: hodeiv1connect.NewSecretServiceClient(client), Tokens: adminv1connect.NewTokenServiceClient(client),
		Retention: adminv1connect.NewRetentionServiceClient(client), Authority: adminv1connect.NewAuthorityServiceClient(client),
	}
	return c, nil
}

// Config returns the settings that the client was made with.
func (c *Client) Config() Config { return c.config }

// Close closes the connections; calls under way end first.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

func security(config Config) (*tls.Config, error) {
	s := &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	if config.CA != "" {
		data, err := os.ReadFile(config.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the server's CA: %w", err)
		}
		s.RootCAs = x509.NewCertPool()
		if !s.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s holds no PEM certificate", config.CA)
		}
	}
	if config.Cert == "" && config.Key == "" {
		return s, nil
	}
	pair, err := tls.LoadX509KeyPair(config.Cert, config.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the client certificate %s and its key %s: %w", config.Cert, config.Key, err)
	}
	s.Certificates = []tls.Certificate{pair}
	return s, nil
}
