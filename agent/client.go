package agent

import (
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/proto/codec"
)

// connectClient is a connection to the server.
type connectClient struct {
	client    *connect.Client
	transport *http.Transport
}

// newConnectClient speaks HTTP/2 only: the stream needs it. Pings find a server that is gone without a word.
func newConnectClient(url string, security *tls.Config) *connectClient {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     security,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     time.Minute,
		Protocols:           protocols,
		HTTP2: &http.HTTP2Config{
			MaxReceiveBufferPerStream: 256 << 10,
			SendPingTimeout:           15 * time.Second,
			PingTimeout:               10 * time.Second,
		},
	}
	return &connectClient{
		client: connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, url,
			connecthttp.WithCompressors(), connecthttp.WithCodecs(codec.New(&hwpv1.ConnectRequest{}, &hwpv1.ConnectResponse{})))),
		transport: transport,
	}
}

func (c *connectClient) close() { c.transport.CloseIdleConnections() }

// explainRemote gives the server's own words where there are some.
func explainRemote(err error) error {
	var wire *connect.Error
	if errors.As(err, &wire) && wire.Message() != "" {
		return errors.New(wire.Message())
	}
	return err
}
