package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/gen/hwp/v1/hwpv1connect"
)

// Bounds of when the access token of a session is renewed, whatever the agent's clock says of its end: the server's may be another one.
const (
	earliestRenewal = time.Minute
	latestRenewal   = 10 * time.Minute
)

// pass is the access token of a session, without which the server ends it.
type pass struct {
	mu  sync.Mutex
	due time.Time // when a fresh one is to be asked for
}

// open gets a token for a new session, by the certificate of the connection, and returns the context for the stream.
func (p *pass) open(ctx context.Context, client hwpv1connect.WorkerServiceClient) (context.Context, error) {
	answer, err := client.Authenticate(ctx, &hwpv1.AuthenticateRequest{})
	if err != nil {
		return nil, fmt.Errorf("getting an access token: %w", err)
	}
	p.take(answer.GetToken())
	ctx, info := connect.NewClientContext(ctx)
	info.RequestHeader().Set("Authorization", "Bearer "+answer.GetToken().GetToken())
	return ctx, nil
}

// take notes when the token ends: it is to be renewed when two thirds of its life are over.
func (p *pass) take(token *hwpv1.AccessToken) {
	life := time.Until(token.GetExpireTime().AsTime())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Now().Add(min(max(life*2/3, earliestRenewal), latestRenewal))
}

func (p *pass) untilDue() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(time.Until(p.due), 0)
}

// renewal returns the wish for a fresh token when it is due; it is due again if no answer comes.
func (p *pass) renewal() *hwpv1.AgentMessage {
	if p.untilDue() > 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = time.Now().Add(earliestRenewal)
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_TokenRequest{TokenRequest: &hwpv1.TokenRequest{}}}
}
