package identity

import (
	"context"
	"encoding/hex"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store/mirror"
)

// The kinds of the records of credentials. Keys are ids; of revocations, what is revoked.
const (
	apiTokenRecord   = "api-token"
	loginRecord      = "login"
	revocationRecord = "revocation"
	lastUseRecord    = "last-use"
)

// noteUses is how often it is written down who was seen.
const noteUses = time.Minute

// Credentials keeps what people and scripts prove themselves with, API tokens and logins, and what was revoked. The methods may be called
// from several goroutines at once.
type Credentials struct {
	certifier Certifier
	now       func() time.Time
	changed   func()
	logger    *slog.Logger

	mu      sync.Mutex // makes looking and changing one step
	tokens  *mirror.Mirror[APIToken]
	logins  *mirror.Mirror[Login]
	revoked *mirror.Mirror[Revocation]
	uses    *mirror.Mirror[time.Time] // by id of a token or login, and by user

	requests loginRequests

	seenMu sync.Mutex
	seen   map[string]time.Time // since uses were written down
}

// Certifier signs the certificates of users.
type Certifier interface {
	// SignUser signs a request (PKCS #10, DER) for a user's certificate that belongs to a login.
	SignUser(csrDER []byte, user string, groups []string, login string, life time.Duration) (Issued, error)
}

// OpenCredentials loads what is stored. changed is called whenever something has become useless that was good.
func OpenCredentials(
	ctx context.Context, db mirror.Store, certifier Certifier, now func() time.Time, changed func(), logger *slog.Logger,
) (*Credentials, error) {
	c := &Credentials{certifier: certifier, now: now, changed: changed, logger: logger, seen: make(map[string]time.Time)}
	c.requests.byCode = make(map[string]*LoginRequest)
	var err error
	if c.tokens, err = mirror.Open[APIToken](ctx, db, apiTokenRecord, logger); err != nil {
		return nil, err
	}
	if c.logins, err = mirror.Open[Login](ctx, db, loginRecord, logger); err != nil {
		return nil, err
	}
	if c.revoked, err = mirror.Open[Revocation](ctx, db, revocationRecord, logger); err != nil {
		return nil, err
	}
	c.uses, err = mirror.Open[time.Time](ctx, db, lastUseRecord, logger)
	return c, err
}

// Check returns why a proof of identity is good no more, a *job.Error with CodeUnauthenticated, or nil. The certificate is that of the
// connection, zero for none. It is quick: it is asked for every request.
func (c *Credentials) Check(p *Principal, certificate Fingerprint) error {
	if err := c.checkRevoked(p, certificate); err != nil {
		return err
	}
	now := c.now()
	if p.Token != "" {
		if t, ok := c.tokens.Get(p.Token); !ok || !now.Before(t.Expires) {
			return unproven("the API token %s has ended or was revoked; log in again with another one", p.Token)
		}
	}
	if p.Login != "" {
		if l, ok := c.logins.Get(p.Login); !ok || !now.Before(l.Expires) {
			return unproven("the login %s has ended; log in again with `hodei login`", p.Login)
		}
	}
	return nil
}

func (c *Credentials) checkRevoked(p *Principal, certificate Fingerprint) error {
	if c.revoked.Len() == 0 {
		return nil
	}
	subjects := [...]string{p.String(), CertificateSubject(certificate), "token/" + p.Token, "login/" + p.Login}
	for _, subject := range subjects {
		if r, ok := c.revoked.Get(subject); ok {
			return unproven("%s was revoked on %s; ask an administrator", r.Subject, r.Revoked.Format(time.RFC3339))
		}
	}
	return nil
}

// CertificateSubject names a certificate in revocations.
func CertificateSubject(f Fingerprint) string { return "certificate/" + hex.EncodeToString(f[:]) }

func unproven(format string, args ...any) error {
	return job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated, format, args...)
}

// Seen notes that somebody was seen, for LastUse.
func (c *Credentials) Seen(p *Principal) {
	if p.Kind != User {
		return
	}
	now := c.now()
	c.seenMu.Lock()
	defer c.seenMu.Unlock()
	for _, name := range [...]string{p.String(), p.Token, p.Login} {
		if name != "" {
			c.seen[name] = now
		}
	}
}

// LastUse returns when a token or login, by its id, or a user ("user/ada") was seen last, to about a minute; zero: never.
func (c *Credentials) LastUse(name string) time.Time {
	c.seenMu.Lock()
	at, ok := c.seen[name]
	c.seenMu.Unlock()
	if !ok {
		at, _ = c.uses.Get(name)
	}
	return at.UTC()
}

// Run writes down who was seen, and forgets what has ended, until the context ends.
func (c *Credentials) Run(ctx context.Context) error {
	ticker := time.NewTicker(noteUses)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := c.tidy(ctx); err != nil && ctx.Err() == nil {
			c.logger.Warn("the use of credentials was not written down", "error", err)
		}
	}
}

func (c *Credentials) tidy(ctx context.Context) error {
	c.seenMu.Lock()
	seen := maps.Clone(c.seen)
	clear(c.seen)
	c.seenMu.Unlock()
	if len(seen) > 0 {
		if err := c.uses.Change(ctx, seen); err != nil {
			return err
		}
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	tokens := c.tokens.Keys(func(t *APIToken) bool { return !now.Before(t.Expires) })
	logins := c.logins.Keys(func(l *Login) bool { return !now.Before(l.Expires) })
	if len(tokens)+len(logins) == 0 {
		return nil
	}
	defer c.changed()
	if err := c.tokens.Change(ctx, nil, tokens...); err != nil {
		return err
	}
	if err := c.logins.Change(ctx, nil, logins...); err != nil {
		return err
	}
	return c.uses.Change(ctx, nil, append(tokens, logins...)...)
}

// newID returns a new id: a prefix, an underscore and a ULID in lower case.
func newID(prefix string) string { return prefix + "_" + strings.ToLower(ulid.Make().String()) }
