package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
)

// apiTokenPrefix lets people and scanners see what a secret is for. The token's id follows, without its own prefix, and the secret part.
const apiTokenPrefix = "hodei_"

// Limits of API tokens.
const (
	defaultAPITokenTTL = 30 * 24 * time.Hour
	maxAPITokenTTL     = 366 * 24 * time.Hour
	maxAPITokens       = 10_000
)

// APIToken is what is stored of an API token: everything but its secret.
type APIToken struct {
	ID          string         `json:"id"`
	User        string         `json:"user"`
	Groups      []string       `json:"groups,omitempty"` // of the user, if they have made it themselves
	Description string         `json:"description,omitempty"`
	Bounds      []access.Bound `json:"bounds,omitempty"` // what it permits of what its user holds; none: all of that
	Created     time.Time      `json:"created"`
	CreatedBy   string         `json:"created_by"`
	Expires     time.Time      `json:"expires"`
	Hash        []byte         `json:"hash"` // SHA-256 of the secret
}

// CreateAPIToken makes an API token of what t says: its user, groups, description, bounds and maker. The secret is not kept. CodeInvalid
// when something is wrong.
func (c *Credentials) CreateAPIToken(ctx context.Context, t APIToken, ttl time.Duration) (APIToken, string, error) {
	if ttl == 0 {
		ttl = defaultAPITokenTTL
	}
	if ttl < 0 || ttl > maxAPITokenTTL {
		return t, "", badRequest("ttl: a token may live up to %v, not %v", maxAPITokenTTL, ttl)
	}
	if err := access.CheckName(t.User); err != nil {
		return t, "", err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return t, "", err
	}
	t.ID = newID("tok")
	text := apiTokenPrefix + strings.TrimPrefix(t.ID, "tok_") + "_" + base64.RawURLEncoding.EncodeToString(secret)
	hash := sha256.Sum256([]byte(text))
	t.Hash, t.Created = hash[:], c.now().UTC()
	t.Expires = t.Created.Add(ttl)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tokens.Len() >= maxAPITokens {
		return t, "", job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
			"there are %d API tokens, as many as there may be; revoke some first", maxAPITokens)
	}
	chain.About(ctx, "token/"+t.ID, "user/"+t.User)
	return t, text, c.tokens.Set(ctx, t.ID, t)
}

// RedeemAPIToken returns whom an API token is for. CodeUnauthenticated when it is unknown, has ended, or its user was revoked; which of
// these is not said.
func (c *Credentials) RedeemAPIToken(secret string) (Principal, APIToken, error) {
	refused := job.Errorf(job.CodeUnauthenticated, job.ReasonTokenRefused,
		"the API token is not known here, has expired or was revoked; make a new one with `hodei token create --api`")
	t, ok := c.tokens.Get(APITokenID(secret))
	hash := sha256.Sum256([]byte(secret))
	if !ok || subtle.ConstantTimeCompare(hash[:], t.Hash) != 1 {
		return Principal{}, t, refused
	}
	p := Principal{Kind: User, Name: t.User, Groups: t.Groups, Token: t.ID}
	if c.Check(&p, Fingerprint{}) != nil {
		return Principal{}, t, refused
	}
	return p, t, nil
}

// APITokenID returns the id of the token whose secret this may be; empty when it looks like none.
func APITokenID(secret string) string {
	rest, ok := strings.CutPrefix(secret, apiTokenPrefix)
	id, _, whole := strings.Cut(rest, "_")
	if !ok || !whole || len(id) > 32 {
		return ""
	}
	return "tok_" + id
}

// APIToken returns a token that is good still.
func (c *Credentials) APIToken(id string) (APIToken, bool) { return c.tokens.Get(id) }

// APITokens returns the tokens, the oldest first: ids grow with time.
func (c *Credentials) APITokens() []APIToken { return c.tokens.All() }

// RevokeAPIToken ends a token, and the logins that were begun with it. CodeNotFound when there is none.
func (c *Credentials) RevokeAPIToken(ctx context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.tokens.Get(id); !ok {
		return noToken(id)
	}
	logins := c.logins.Keys(func(l *Login) bool { return l.Token == id })
	if err := c.tokens.Change(ctx, nil, id); err != nil {
		return err
	}
	c.changed() // the logins are of no use without the token, whether they can be removed or not
	if len(logins) == 0 {
		return nil
	}
	return c.logins.Change(context.WithoutCancel(ctx), nil, logins...)
}

func noToken(id string) error {
	return job.Errorf(job.CodeNotFound, job.ReasonNotFound, "there is no token %.80q; `hodei token list` shows those that there are", id)
}
