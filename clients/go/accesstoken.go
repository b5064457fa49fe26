package hodei

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
)

// jwtStart is how an access token begins; what begins so is used as it is.
const jwtStart = "eyJ"

// exchangeLimit bounds an exchange, which goes on without the call that began it.
const exchangeLimit = 30 * time.Second

// exchangePause is how long after a failed exchange the next one is tried, while the token is still good.
const exchangePause = 10 * time.Second

// leastLife is how long a token counts as good when the clocks differ so much that it seems to end before. The server says when it does.
const leastLife = time.Minute

// maxTokenBytes bounds what is read as a token.
const maxTokenBytes = 16 << 10

// accessToken gets access tokens for calls: one exchange serves all calls that wait for it.
type accessToken struct {
	secret func() (string, error)
	bare   hodeiv1connect.AuthServiceClient
	fixed  string // an access token that was given: there is nothing to exchange

	mu      sync.Mutex
	value   string
	renewAt time.Time
	expires time.Time
	running *exchange // nil: none
}

// exchange is one that is under way. Its results may be read when done is closed.
type exchange struct {
	done  chan struct{}
	value string
	err   error
}

// newAccessToken returns nil when there is no token.
func newAccessToken(config Config, bare hodeiv1connect.AuthServiceClient) (*accessToken, error) {
	a := &accessToken{bare: bare}
	switch {
	case config.Token != "":
		a.secret = func() (string, error) { return cleanToken(config.Token, "the token (HODEI_TOKEN)") }
	case config.TokenFile != "":
		a.secret = func() (string, error) { return readToken(config.TokenFile) }
	default:
		return nil, nil
	}
	secret, err := a.secret()
	if strings.HasPrefix(secret, jwtStart) && config.Token != "" {
		a.fixed = secret
	}
	return a, err
}

func readToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	return cleanToken(string(data), path)
}

// cleanToken takes away what surrounds a token, and refuses what is none before it is sent anywhere. No message repeats it.
func cleanToken(text, where string) (string, error) {
	text = strings.TrimSpace(text)
	strange := func(r rune) bool { return r <= ' ' || r > '~' }
	switch {
	case text == "":
		return "", fmt.Errorf("%s holds no token", where)
	case len(text) > maxTokenBytes:
		return "", fmt.Errorf("%s holds %d bytes, which is too much for a token", where, len(text))
	case strings.ContainsFunc(text, strange):
		return "", fmt.Errorf("%s holds something else than one token: there are spaces or special characters in it", where)
	}
	return text, nil
}

// get returns a token that is good now. When two thirds of its life are over, it has a fresh one made for later calls.
func (a *accessToken) get(ctx context.Context) (string, error) {
	if a.fixed != "" {
		return a.fixed, nil
	}
	a.mu.Lock()
	now := time.Now()
	if now.Before(a.renewAt) {
		defer a.mu.Unlock()
		return a.value, nil
	}
	value, good := a.value, now.Before(a.expires)
	if a.running == nil {
		a.running = &exchange{done: make(chan struct{})}
		go a.exchange(ctx, a.running)
	}
	running := a.running
	a.mu.Unlock()
	if good {
		return value, nil
	}
	select {
	case <-running.done:
		return running.value, running.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// discard forgets a token that the server has refused, and reports whether another one can be had.
func (a *accessToken) discard(value string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.value == value {
		a.renewAt, a.expires = time.Time{}, time.Time{}
	}
	return a.fixed == ""
}

func (a *accessToken) exchange(ctx context.Context, e *exchange) {
	ctx, cancel := ownCall(ctx, exchangeLimit)
	defer cancel()
	start := time.Now()
	value, expires, err := a.trade(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.value, e.err = value, err; err == nil {
		life := max(expires.Sub(start), leastLife)
		a.value, a.renewAt, a.expires = value, start.Add(life*2/3), start.Add(life)
	} else if a.expires.After(start) {
		a.renewAt = start.Add(min(exchangePause, a.expires.Sub(start)))
	}
	a.running = nil
	close(e.done)
}

// ownCall is for a call that is made on behalf of another one: it has headers of its own, and goes on without the other.
func ownCall(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, _ = connect.NewClientContext(context.WithoutCancel(ctx))
	return context.WithTimeout(ctx, limit)
}

// trade gets an access token for the secret. A file may hold an access token too, which somebody else renews.
func (a *accessToken) trade(ctx context.Context) (string, time.Time, error) {
	secret, err := a.secret()
	if err != nil {
		return "", time.Time{}, err
	}
	if strings.HasPrefix(secret, jwtStart) {
		return secret, time.Now().Add(exchangePause), nil
	}
	res, err := a.bare.ExchangeToken(ctx, &hodeiv1.ExchangeTokenRequest{Proof: &hodeiv1.ExchangeTokenRequest_ApiToken{ApiToken: secret}})
	if err != nil {
		return "", time.Time{}, err
	}
	if res.GetAccessToken() == "" || res.GetExpireTime() == nil {
		return "", time.Time{}, errors.New("the server has answered the exchange of the token without an access token")
	}
	return res.GetAccessToken(), res.GetExpireTime().AsTime(), nil
}
