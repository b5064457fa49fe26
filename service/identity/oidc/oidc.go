// Package oidc checks the ID tokens of people who have logged in with an OIDC provider. The flows of a login run in the client;
// the server sees their result only, and trusts nothing of it but the provider's signature.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"

	"github.com/hodei-jobs/hodei/proto/issuer"
	"github.com/hodei-jobs/hodei/service/job"
)

// Config says which tokens are good.
type Config struct {
	// Issuer is the provider's address exactly as its tokens name it: https, or http on this machine.
	Issuer string
	// ClientID is as what the clients are known to the provider.
	ClientID string
	// Audience is for whom tokens must be made; the client's id when it is empty. With another audience, tokens must say (azp)
	// that this client has asked for them.
	Audience string
	// NameClaim is the claim that names a person. Claims.Name says what becomes of it, and of an empty one.
	NameClaim string
	// GroupsClaim is the claim with the list of a person's groups; "groups" when it is empty.
	GroupsClaim string
	// HTTPClient makes the requests to the provider; nil is http.DefaultClient. Timeouts and limits are added.
	HTTPClient *http.Client
	// Clock is by what tokens and keys begin and end; nil is time.Now.
	Clock func() time.Time
}

// maxTokenBytes bounds a token before anything looks at it; one with a hundred groups has about 4 KiB.
const maxTokenBytes = 16 << 10

// Verifier checks ID tokens of one provider. Its methods may be called from several goroutines at once.
type Verifier struct {
	config Config
	keys   *keyring
}

// New makes a Verifier. It asks the provider nothing yet, so that a server starts while the provider is away. The error says
// which setting is wrong.
func New(config Config) (*Verifier, error) {
	if err := issuer.Check(config.Issuer); err != nil {
		return nil, err
	}
	if config.ClientID == "" {
		return nil, errors.New("the OIDC client id is missing: without it, tokens that the provider made for other programs would be good here")
	}
	if config.Audience == "" {
		config.Audience = config.ClientID
	}
	if config.GroupsClaim == "" {
		config.GroupsClaim = "groups"
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	keys := &keyring{issuer: config.Issuer, client: issuer.Client(config.HTTPClient), now: config.Clock}
	return &Verifier{config: config, keys: keys}, nil
}

// Verify checks an ID token as it came from the provider and returns what it says. A token that is not good is a *job.Error with
// CodeUnauthenticated, which says why and does not repeat the token; a provider that does not answer is one with CodeUnavailable
// and RetryAfter. When ctx ends first, its error is returned.
//
// Keys of the provider that are not known yet are fetched, at most once in 10 seconds however many bad tokens arrive.
func (v *Verifier) Verify(ctx context.Context, rawIDToken string) (Claims, error) {
	if len(rawIDToken) > maxTokenBytes {
		return Claims{}, refused("it has %d bytes and may have %d", len(rawIDToken), maxTokenBytes)
	}
	// The other form of signed tokens, in JSON, may hold headers that nobody has signed.
	if strings.Count(rawIDToken, ".") != 2 || strings.HasPrefix(rawIDToken, "{") {
		return Claims{}, refused("it is no JWT, which has three parts with dots in between")
	}
	known, err := v.keys.current(ctx)
	if err != nil {
		return Claims{}, err
	}
	token, signed, err := v.check(ctx, rawIDToken, known)
	if err != nil && !signed {
		// The provider may have new keys, or a new algorithm, since it was asked.
		renewed, failure := v.keys.renew(ctx)
		if failure != nil {
			return Claims{}, failure
		}
		if renewed != known {
			token, _, err = v.check(ctx, rawIDToken, renewed)
		}
	}
	if err != nil {
		return Claims{}, explain(err)
	}
	return v.read(token)
}

// check checks all that the standard says of every ID token. signed tells whether the provider has signed it, good or not.
func (v *Verifier) check(ctx context.Context, raw string, by *published) (token *gooidc.IDToken, signed bool, err error) {
	signature := &signature{by: by}
	token, err = gooidc.NewVerifier(v.config.Issuer, signature, &gooidc.Config{
		ClientID: v.config.Audience, SupportedSigningAlgs: by.algorithms, Now: v.config.Clock,
	}).Verify(ctx, raw)
	return token, signature.good, err
}

// explain says why a token is not good.
func explain(err error) error {
	var expired *gooidc.TokenExpiredError
	switch {
	case errors.As(err, &expired) && expired.Expiry.IsZero():
		return refused("it does not say when it expires (exp)")
	case errors.As(err, &expired):
		return refused("it expired at %s", expired.Expiry.UTC().Format(time.RFC3339))
	default:
		return refused("%s", strings.TrimPrefix(issuer.Text(err), "oidc: "))
	}
}

// refused says that a token is not good.
func refused(format string, args ...any) error {
	return job.Errorf(job.CodeUnauthenticated, job.ReasonTokenRefused,
		"the ID token is not good: %s; log in again with `hodei login`", fmt.Sprintf(format, args...))
}
