package identity

import (
	"context"
	"encoding/hex"
	"strings"
	"time"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/job"
)

// maxRevocations bounds what is revoked at the same time.
const maxRevocations = 100_000

// Revocation is something that is of no use any more.
type Revocation struct {
	Subject string    `json:"subject"` // "user/NAME", "agent/WORKER", "certificate/HEX", "token/ID" or "login/ID"
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by"`
	Revoked time.Time `json:"revoked"`
}

// Revoke makes a user, an agent, a certificate, a token or a login useless at once, until Reinstate. CodeInvalid when the subject is none of
// these. The administrator's user cannot be revoked: its certificate can.
func (c *Credentials) Revoke(ctx context.Context, subject, reason, by string) (Revocation, error) {
	if err := checkSubject(subject); err != nil {
		return Revocation{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.revoked.Get(subject); ok {
		return r, nil
	}
	if c.revoked.Len() >= maxRevocations {
		return Revocation{}, job.Errorf(job.CodeExhausted, job.ReasonLimitReached, "%d things are revoked, as many as there may be", maxRevocations)
	}
	r := Revocation{Subject: subject, Reason: reason, By: by, Revoked: c.now().UTC()}
	if err := c.revoked.Set(ctx, subject, r); err != nil {
		return r, err
	}
	c.changed()
	return r, nil
}

func checkSubject(subject string) error {
	kind, name, _ := strings.Cut(subject, "/")
	known := false
	switch kind {
	case "user":
		if subject == access.Administrator {
			return badRequest(
				"subject: %s is who would have to take that back; revoke its certificate instead, as certificate/ and its SHA-256", subject)
		}
		known = access.CheckName(name) == nil
	case "agent":
		known = strings.HasPrefix(name, "wkr_")
	case "token":
		known = strings.HasPrefix(name, "tok_")
	case "login":
		known = strings.HasPrefix(name, "lgn_")
	case "certificate":
		sum, err := hex.DecodeString(name)
		known = err == nil && len(sum) == len(Fingerprint{}) && name == strings.ToLower(name)
	}
	if !known || strings.ContainsAny(name, "/ \n") {
		return badRequest("subject: %.120q is none of user/NAME, agent/wkr_..., token/tok_..., login/lgn_... and certificate/ with 64 digits of a SHA-256 "+
			"in lower-case hexadecimal", subject)
	}
	return nil
}

// Reinstate takes a revocation back. CodeNotFound when there is none.
func (c *Credentials) Reinstate(ctx context.Context, subject string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.revoked.Get(subject); !ok {
		return job.Errorf(job.CodeNotFound, job.ReasonNotFound, "%.120q is not revoked; `hodei admin revocations` shows what is", subject)
	}
	return c.revoked.Change(ctx, nil, subject)
}

// Revocations returns what is revoked, by subject.
func (c *Credentials) Revocations() []Revocation { return c.revoked.All() }
