package identity

import (
	"context"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
)

// Limits of logins.
const (
	loginCertificateLife = 24 * time.Hour
	oidcLoginLife        = 12 * time.Hour
	defaultLoginTTL      = 30 * 24 * time.Hour
	maxLoginTTL          = 366 * 24 * time.Hour
	maxLogins            = 100_000
)

// Login is a user on a machine, who proves it by certificates.
type Login struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	Groups  []string  `json:"groups,omitempty"`
	By      string    `json:"by"`              // how it came to be, for people
	Token   string    `json:"token,omitempty"` // the API token that it lasts with
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// LoginCertificate is a certificate of a login.
type LoginCertificate struct {
	Issued
	Login Login
}

// BeginLogin begins the login of somebody who has proved who they are by an API token, which it lasts as long as, or by the OIDC provider, for half a
// day, and signs a request for its first certificate.
func (c *Credentials) BeginLogin(ctx context.Context, p Principal, csrDER []byte) (LoginCertificate, error) {
	l := Login{User: p.Name, Groups: p.Groups, By: "oidc", Token: p.Token, Expires: c.now().Add(oidcLoginLife)}
	if p.Token != "" {
		t, ok := c.tokens.Get(p.Token)
		if !ok {
			return LoginCertificate{}, noToken(p.Token)
		}
		l.By, l.Expires = "api-token "+p.Token, t.Expires
	}
	return c.begin(ctx, l, csrDER)
}

func (c *Credentials) begin(ctx context.Context, l Login, csrDER []byte) (LoginCertificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logins.Len() >= maxLogins {
		return LoginCertificate{}, job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
			"there are %d logins, as many as there may be; revoke some first", maxLogins)
	}
	l.ID, l.Created, l.Expires = newID("lgn"), c.now().UTC(), l.Expires.UTC()
	issued, err := c.sign(&l, csrDER)
	if err != nil {
		return LoginCertificate{}, err
	}
	chain.About(ctx, "login/"+l.ID)
	return LoginCertificate{issued, l}, c.logins.Set(ctx, l.ID, l)
}

func (c *Credentials) sign(l *Login, csrDER []byte) (Issued, error) {
	return c.certifier.SignUser(csrDER, l.User, l.Groups, l.ID, min(loginCertificateLife, l.Expires.Sub(c.now())))
}

// Renew signs a request for a fresh certificate of the caller's login. CodePrecondition when their certificate belongs to none.
func (c *Credentials) Renew(p *Principal, csrDER []byte) (LoginCertificate, error) {
	l, ok := c.logins.Get(p.Login)
	if !ok || l.User != p.Name {
		return LoginCertificate{}, job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"the certificate of %s belongs to no login that could be renewed; log in with `hodei login`", p)
	}
	issued, err := c.sign(&l, csrDER)
	return LoginCertificate{issued, l}, err
}

// Logins returns the logins that last, the oldest first.
func (c *Credentials) Logins() []Login { return c.logins.All() }

// EndLogin ends a login. CodeNotFound when there is none.
func (c *Credentials) EndLogin(ctx context.Context, id string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.logins.Get(id); !ok {
		return job.Errorf(job.CodeNotFound, job.ReasonNotFound, "there is no login %.80q; `hodei admin login list` shows those that there are", id)
	}
	defer c.changed()
	return c.logins.Change(ctx, nil, id)
}
