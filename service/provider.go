package service

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/api"
	"github.com/hodei-jobs/hodei/service/identity/oidc"
	"github.com/hodei-jobs/hodei/service/job"
)

// OIDC says which OIDC provider people log in with. The zero value is none.
type OIDC struct {
	// Issuer is the address of the provider, https.
	Issuer string
	// ClientID is the public client that the provider knows for this server. It needs the device flow, or http://127.0.0.1/callback, with any
	// port, as an address to come back to.
	ClientID string
	// NameClaim names users. Default: their address if the provider has verified it, else "oidc:" and their subject.
	NameClaim string
	// GroupsClaim has their groups, for bindings of "group/NAME". Default "groups".
	GroupsClaim string
	// Scopes are what clients ask for. Default openid, email, profile and groups.
	Scopes []string
}

// provider lets people log in with an OIDC provider.
type provider struct {
	config   OIDC
	verifier *oidc.Verifier
}

// newProvider makes the provider that is configured; nil: none. It is not asked yet.
func newProvider(config OIDC) (api.Provider, error) {
	if config.Issuer == "" {
		return nil, nil //nolint:nilnil // none is configured
	}
	if len(config.Scopes) == 0 {
		config.Scopes = []string{"openid", "email", "profile", "groups"}
	}
	verifier, err := oidc.New(oidc.Config{
		Issuer: config.Issuer, ClientID: config.ClientID, NameClaim: config.NameClaim, GroupsClaim: config.GroupsClaim, Clock: time.Now,
	})
	if err != nil {
		return nil, fmt.Errorf("the OIDC provider: %w; set --oidc-issuer and --oidc-client-id", err)
	}
	return &provider{config, verifier}, nil
}

// Identify implements api.Provider. Groups whose names no binding can have are left out.
func (p *provider) Identify(ctx context.Context, idToken string) (user string, groups []string, err error) {
	claims, err := p.verifier.Verify(ctx, idToken)
	if err != nil {
		return "", nil, err
	}
	if access.CheckName(claims.Name) != nil {
		return "", nil, job.Errorf(job.CodeUnauthenticated, job.ReasonTokenRefused,
			"the OIDC provider names the user %.80q, which is no name for a user here; choose another claim with --oidc-name-claim", claims.Name)
	}
	return claims.Name, slices.DeleteFunc(claims.Groups, func(group string) bool { return access.CheckName(group) != nil }), nil
}

// Client implements api.Provider.
func (p *provider) Client() (issuer, clientID string, scopes []string) {
	return p.config.Issuer, p.config.ClientID, p.config.Scopes
}
