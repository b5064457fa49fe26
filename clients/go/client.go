// Package hodei is the Go client of Hodei Jobs.
//
// A Client submits jobs, follows their output from the first byte, waits for their end and manages workers. Calls that are
// safe to repeat are repeated when the connection or the server fails; following and waiting go on where they were, with
// nothing lost or doubled.
package hodei

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
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
	// Raw are the generated clients, for what the methods do not cover. They neither repeat calls nor translate errors, but prove
	// who the caller is like the methods.
	Raw       Raw
	config    Config
	transport *transport
	bare      hodeiv1connect.AuthServiceClient // sends no token, and renews nothing: for getting them
	token     *accessToken                     // nil: none
	login     *renewal                         // nil: the certificate does not renew itself
	forget    func() bool                      // the context that the client was made with
}

// transport remembers whether the server has ever answered.
type transport struct {
	current atomic.Pointer[h2.Transport] // changes with the certificate
	reached atomic.Bool
}

// Do makes a request. It does not follow redirects, which no server of jobs sends.
func (t *transport) Do(req *http.Request) (*http.Response, error) {
	req.Header[clientHeader] = clientName
	res, err := t.current.Load().RoundTrip(req)
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
	Auth      hodeiv1connect.AuthServiceClient
	Tokens    adminv1connect.TokenServiceClient
	Retention adminv1connect.RetentionServiceClient
	Access    adminv1connect.AccessServiceClient
	Logins    adminv1connect.LoginServiceClient
	Authority adminv1connect.AuthorityServiceClient
	Audit     adminv1connect.AuditServiceClient
}

// New makes a client, which connects with the first call, and is closed when the context ends. Without options it finds the server as
// the command line does: by HODEI_URL and the like, or by the current context. An error is ErrConfiguration.
func New(ctx context.Context, options ...Option) (*Client, error) {
	config, err := resolve(options)
	if err == nil {
		var c *Client
		if c, err = makeClient(config); err == nil {
			c.forget = context.AfterFunc(ctx, c.closeConnections)
			return c, nil
		}
	}
	return nil, &configurationError{err}
}

func makeClient(config Config) (*Client, error) {
	if u, err := url.Parse(config.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not the address of a server; it looks like https://host:7443", config.URL)
	}
	c := &Client{config: config, transport: new(transport)}
	if err := c.connectAs(config); err != nil {
		return nil, err
	}
	wire := connecthttp.NewTransport(c.transport, config.URL,
		connecthttp.WithCompressors(), connecthttp.WithReadMaxBytes(64<<20),
		connecthttp.WithCodecs(codec.New(&hodeiv1.SubmitJobRequest{}, &hodeiv1.SubmitJobResponse{},
			&hodeiv1.SubmitJobsRequest{}, &hodeiv1.SubmitJobsResponse{}, &hodeiv1.TailLogsResponse{})))
	c.bare = hodeiv1connect.NewAuthServiceClient(connect.NewClient(wire))
	var err error
	if c.token, err = newAccessToken(config, c.bare); err != nil {
		return nil, err
	}
	if c.login, err = newRenewal(c); err != nil {
		return nil, err
	}
	client := connect.NewClient(wire)
	if c.token != nil || c.login != nil {
		client = connect.NewClient(wire, c.authenticate)
	}
	c.Raw = Raw{
		Jobs: hodeiv1connect.NewJobServiceClient(client), Logs: hodeiv1connect.NewLogServiceClient(client),
		Workers: hodeiv1connect.NewWorkerServiceClient(client), Queues: hodeiv1connect.NewQueueServiceClient(client),
		Secrets: hodeiv1connect.NewSecretServiceClient(client), Auth: hodeiv1connect.NewAuthServiceClient(client),
		Tokens: adminv1connect.NewTokenServiceClient(client), Retention: adminv1connect.NewRetentionServiceClient(client),
		Access: adminv1connect.NewAccessServiceClient(client), Logins: adminv1connect.NewLoginServiceClient(client),
		Authority: adminv1connect.NewAuthorityServiceClient(client), Audit: adminv1connect.NewAuditServiceClient(client),
	}
	return c, nil
}

// connectAs has all further connections use the files of config as they are now. Calls under way end on the old ones.
func (c *Client) connectAs(config Config) error {
	security, err := security(config)
	if err != nil {
		return err
	}
	old := c.transport.current.Swap(h2.NewTransport(&http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     security,
		TLSHandshakeTimeout: 10 * time.Second,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: 15 * time.Second,
			PingTimeout:     10 * time.Second,
		},
	}))
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// Config returns the settings that the client was made with.
func (c *Client) Config() Config { return c.config }

// Close closes the connections; calls under way end first.
func (c *Client) Close() {
	if c.forget != nil {
		c.forget()
	}
	c.closeConnections()
}

func (c *Client) closeConnections() { c.transport.current.Load().CloseIdleConnections() }
