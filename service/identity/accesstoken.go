package identity

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hodei-jobs/hodei/service/job"
)

const (
	// AccessTokenLife is how long an access token is good.
	AccessTokenLife = 15 * time.Minute
	// ClockSkew is for how much longer it is taken: clocks differ, and what replaces it may be on its way.
	ClockSkew = 30 * time.Second

	tokenIssuer, tokenAudience = "hodei", "hodei"
	// maxAccessToken bounds what is parsed; tokens of this server are far shorter.
	maxAccessToken = 8 << 10
	// rememberTokens bounds the tokens whose signatures need not be checked again.
	rememberTokens = 10_000
)

// Fingerprint is the SHA-256 of a certificate in DER.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate; of nil that of none, which is zero.
func FingerprintOf(c *x509.Certificate) Fingerprint {
	if c == nil {
		return Fingerprint{}
	}
	return sha256.Sum256(c.Raw)
}

// String encodes it as access tokens have it: base64 of URLs, without padding.
func (f Fingerprint) String() string { return base64.RawURLEncoding.EncodeToString(f[:]) }

// AccessTokens issues and verifies access tokens: JWTs that say for a quarter of an hour who somebody is. The methods may be called from
// several goroutines at once.
type AccessTokens struct {
	path   string
	now    func() time.Time
	parser *jwt.Parser

	mu       sync.RWMutex
	keys     []*signingKey // the newest, which signs, last
	verified map[string]*claims
}

// claims are what an access token says.
type claims struct {
	jwt.RegisteredClaims
	Groups       []string     `json:"groups,omitempty"`
	Login        string       `json:"login,omitempty"`
	Token        string       `json:"token,omitempty"` // the API token by which it was got
	Confirmation confirmation `json:"cnf,omitzero"`

	principal Principal // whom it is for
}

// confirmation names the certificate to which a token is bound (RFC 8705); empty: none.
type confirmation struct {
	Thumbprint string `json:"x5t#S256,omitempty"`
}

// OpenAccessTokens loads the keys that sign access tokens from the folder, or makes the first one. now is the clock by which tokens end.
func OpenAccessTokens(dir string, now func() time.Time) (*AccessTokens, error) {
	t := &AccessTokens{path: filepath.Join(dir, "token-keys.pem"), now: now, verified: make(map[string]*claims)}
	t.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithIssuer(tokenIssuer), jwt.WithAudience(tokenAudience), jwt.WithLeeway(ClockSkew), jwt.WithTimeFunc(now))
	var err error
	if t.keys, err = readSigningKeys(t.path); err != nil {
		return nil, err
	}
	_, err = t.signer()
	return t, err
}

// signer returns the key that signs now, a new one when the last is old.
func (t *AccessTokens) signer() (*signingKey, error) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.keys); n > 0 && now.Sub(t.keys[n-1].created) < signingKeyLife {
		return t.keys[n-1], nil
	}
	key, err := newSigningKey(now)
	if err != nil {
		return nil, err
	}
	var keys []*signingKey
	for i, k := range t.keys {
		// A key has signed until the one behind it was made.
		if i == len(t.keys)-1 || now.Sub(t.keys[i+1].created) < signingKeyRest {
			keys = append(keys, k)
		}
	}
	keys = append(keys, key)
	if err := writeSigningKeys(t.path, keys); err != nil {
		return nil, err
	}
	t.keys = keys
	return key, nil
}

// Issue makes an access token for somebody who has proved who they are. It is good only on connections with the certificate that binding
// names, when it is not zero, and no longer than until, when that is not zero.
func (t *AccessTokens) Issue(p Principal, binding Fingerprint, until time.Time) (token string, expires time.Time, err error) {
	key, err := t.signer()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("making a key for access tokens: %w", err)
	}
	now := t.now()
	expires = now.Add(AccessTokenLife)
	if !until.IsZero() && until.Before(expires) {
		expires = until
	}
	expires = expires.Truncate(time.Second)
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: tokenIssuer, Audience: jwt.ClaimStrings{tokenAudience}, Subject: p.String(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
		},
		Groups: p.Groups, Login: p.Login, Token: p.Token,
	}
	if binding != (Fingerprint{}) {
		c.Confirmation.Thumbprint = binding.String()
	}
	unsigned := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c)
	unsigned.Header["kid"] = key.id
	token, err = unsigned.SignedString(key.private)
	return token, expires, err
}

// Verify returns whom an access token is for and when it ends to be good. presented is the certificate of the connection, zero for none.
// The error, a *job.Error with CodeUnauthenticated, says what is wrong with it, and nothing of what it has.
func (t *AccessTokens) Verify(token string, presented Fingerprint) (Principal, time.Time, error) {
	if len(token) > maxAccessToken {
		return Principal{}, time.Time{}, refusedToken("it has %d bytes, more than any of this server has", len(token))
	}
	c, err := t.claims(token)
	if err != nil {
		return Principal{}, time.Time{}, err
	}
	expires := c.ExpiresAt.Time
	if !t.now().Before(expires.Add(ClockSkew)) {
		return Principal{}, time.Time{}, refusedToken("it expired on %s; fetch a new one", expires.UTC().Format(time.RFC3339))
	}
	if bound := c.Confirmation.Thumbprint; bound != "" && subtle.ConstantTimeCompare([]byte(bound), []byte(presented.String())) != 1 {
		return Principal{}, time.Time{}, refusedToken("it is bound to a client certificate that this connection does not have")
	}
	return c.principal, expires, nil
}

// claims verifies a token's signature, unless that was done before.
func (t *AccessTokens) claims(token string) (*claims, error) {
	t.mu.RLock()
	known := t.verified[token]
	t.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	c := new(claims)
	if _, err := t.parser.ParseWithClaims(token, c, t.key); err != nil {
		return nil, refusedToken("%s", whyRefused(err))
	}
	var err error
	if c.principal, err = principalOfSubject(c.Subject); err != nil || c.principal.Kind == Agent && c.Confirmation.Thumbprint == "" {
		return nil, refusedToken("its subject is none that this server knows")
	}
	c.principal.Groups, c.principal.Login, c.principal.Token = c.Groups, c.Login, c.Token
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.verified) >= rememberTokens {
		t.forget()
	}
	t.verified[strings.Clone(token)] = c
	return c, nil
}

// forget makes room for further tokens. t.mu is held.
func (t *AccessTokens) forget() {
	now := t.now()
	maps.DeleteFunc(t.verified, func(_ string, c *claims) bool { return now.After(c.ExpiresAt.Add(ClockSkew)) })
	for token := range t.verified {
		if len(t.verified) <= rememberTokens/2 {
			return
		}
		delete(t.verified, token)
	}
}

// key finds the key that a token says has signed it.
func (t *AccessTokens) key(token *jwt.Token) (any, error) {
	id, _ := token.Header["kid"].(string)
	t.mu.RLock()
	defer t.mu.RUnlock()
	at := slices.IndexFunc(t.keys, func(k *signingKey) bool { return k.id == id })
	if at < 0 {
		return nil, errUnknownKey
	}
	return t.keys[at].public(), nil
}

var errUnknownKey = errors.New("unknown key")

// whyRefused says in words what is wrong with a token, without what it has.
func whyRefused(err error) string {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return "it has expired; fetch a new one"
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return "it does not say when it expires, or for whom it is"
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return "it is meant for another service"
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return "it is another issuer's"
	case errors.Is(err, errUnknownKey):
		return "it was signed by a key that this server does not have, or has no more"
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return "it is not signed as this server signs"
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return "it is from the future; look at the clocks"
	}
	return "it is no JSON Web Token of this server"
}

func refusedToken(format string, args ...any) error {
	return job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated, "the access token is refused: "+format, args...)
}

// KeySet returns the public keys by which the tokens can be verified, as a JSON Web Key Set.
func (t *AccessTokens) KeySet() []byte {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return keySet(t.keys)
}
