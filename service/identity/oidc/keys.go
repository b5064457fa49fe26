package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/hodei-jobs/hodei/proto/issuer"
	"github.com/hodei-jobs/hodei/service/job"
)

const (
	// maxAge is how long what the provider has published is good for: a key that it withdraws is refused after that time.
	maxAge = 10 * time.Minute
	// leastWait is the least time between two questions to the provider, whatever anybody sends.
	leastWait = 10 * time.Second
	// askTime is how long one question, which are two requests, may take.
	askTime = 15 * time.Second
	// maxKeys bounds how many keys are kept; providers have a handful.
	maxKeys = 64
)

// asymmetric are the algorithms that may sign. There is none among them whose key the server would have to keep secret: to
// such a one, the provider's public key could be given as the secret.
var asymmetric = []string{
	gooidc.RS256, gooidc.RS384, gooidc.RS512, gooidc.PS256, gooidc.PS384, gooidc.PS512,
	gooidc.ES256, gooidc.ES384, gooidc.ES512, gooidc.EdDSA,
}

// published is what a provider says of its signatures. It is never changed.
type published struct {
	algorithms []string
	keys       []jose.JSONWebKey // public ones
	at         time.Time
}

// keyring knows what the provider has published. Its methods may be called from several goroutines at once.
type keyring struct {
	issuer string
	client *http.Client
	now    func() time.Time
	asking singleflight.Group

	mu      sync.Mutex
	last    *published // what the last answer said; nil before the first
	failure error      // why the last question has no answer
	asked   time.Time
}

// current returns what the provider has published, which is not older than maxAge.
func (k *keyring) current(ctx context.Context) (*published, error) {
	k.mu.Lock()
	last := k.last
	k.mu.Unlock()
	if last != nil && k.now().Sub(last.at) < maxAge {
		return last, nil
	}
	return k.renew(ctx)
}

// renew asks the provider, or returns what it has answered a moment ago. All who wait share one question, which goes on when
// one of them gives up.
func (k *keyring) renew(ctx context.Context) (*published, error) {
	select {
	case result := <-k.asking.DoChan("", func() (any, error) { return k.ask() }):
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*published), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask asks the provider, unless it has been asked a moment ago. It runs only once at a time.
func (k *keyring) ask() (*published, error) {
	k.mu.Lock()
	last, failure, age := k.last, k.failure, k.now().Sub(k.asked)
	k.mu.Unlock()
	if (last != nil || failure != nil) && age >= 0 && age < leastWait {
		return last, failure
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	answer, err := k.fetch(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked, k.failure = k.now(), nil
	if err != nil {
		k.failure = unavailable(k.issuer, err)
		return nil, k.failure
	}
	k.last = answer
	return answer, nil
}

func unavailable(provider string, err error) error {
	e := job.Errorf(job.CodeUnavailable, job.ReasonUnavailable,
		"nobody can log in now, because the OIDC provider %s gives no keys to check tokens with: %s", provider, issuer.Text(err))
	e.RetryAfter = leastWait
	return e
}

// fetch reads what the provider has published.
func (k *keyring) fetch(ctx context.Context) (*published, error) {
	provider, err := gooidc.NewProvider(gooidc.ClientContext(ctx, k.client), k.issuer)
	if err != nil {
		return nil, err
	}
	var description struct {
		Keys       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&description); err != nil {
		return nil, err
	}
	p := &published{at: k.now(), algorithms: []string{gooidc.RS256}} // what the standard says of those who say nothing
	if len(description.Algorithms) > 0 {
		p.algorithms = slices.DeleteFunc(slices.Clone(asymmetric), func(a string) bool { return !slices.Contains(description.Algorithms, a) })
	}
	if len(p.algorithms) == 0 {
		return nil, fmt.Errorf("it signs ID tokens by none of %s", strings.Join(asymmetric, ", "))
	}
	if p.keys, err = k.fetchKeys(ctx, description.Keys); err != nil {
		return nil, err
	}
	return p, nil
}

func (k *keyring) fetchKeys(ctx context.Context, address string) ([]jose.JSONWebKey, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", address, response.Status)
	}
	return parseKeys(body)
}

// parseKeys reads a set of keys (RFC 7517). Keys that cannot check a signature here are left out, as the standard demands.
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("its keys cannot be read: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("it has %d keys, more than %d", len(set.Keys), maxKeys)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(raw) == nil && checks(&key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no key for signatures")
	}
	return keys, nil
}

// checks reports whether a key may check signatures.
func checks(key *jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" {
		return false
	}
	switch key.Key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	default:
		return false
	}
}
