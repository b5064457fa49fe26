package api

import (
	"cmp"
	"context"
	"slices"
	"strings"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// tokenService serves hodei.admin.v1.TokenService.
type tokenService struct {
	gate   *gate
	tokens *identity.Tokens
	pin    func() string // of the CA
}

func (s *tokenService) CreateToken(ctx context.Context, req *adminv1.CreateTokenRequest) (*adminv1.CreateTokenResponse, error) {
	token, secret, err := s.tokens.Create(ctx, identity.CreateOptions{
		TTL: duration(req.GetTtl()), MaxUses: int(req.GetMaxUses()), Labels: req.GetLabels(), Queues: req.GetQueues(),
		CreatedBy: principal(ctx).String(),
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateTokenResponse{Id: token.ID, Secret: secret, ExpireTime: timestamp(token.Expires), CaPin: s.pin()}, nil
}

//nolint:staticcheck // the name is the proto's
func (s *tokenService) CreateApiToken(
	ctx context.Context, req *adminv1.CreateApiTokenRequest,
) (*adminv1.CreateApiTokenResponse, error) {
	c, policy := callOf(ctx), s.gate.access.Policy()
	t := identity.APIToken{
		User: cmp.Or(req.GetUser(), c.caller.Name), Description: req.GetDescription(), CreatedBy: c.caller.String(),
	}
	if t.User == c.caller.Name {
		t.Groups = c.caller.Groups
	} else if err := s.mayActFor(ctx, "user/"+t.User); err != nil {
		return nil, err
	}
	for _, g := range req.GetGrants() {
		if _, ok := policy.Role(g.GetRole()); !ok {
			return nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
				"grants: there is no role %q; `hodei admin role list` shows those that there are", g.GetRole())
		}
		t.Bounds = append(t.Bounds, access.Bound{Role: g.GetRole(), Namespace: g.GetNamespace()})
	}
	if len(t.Bounds) == 0 { // what binds the token of the caller binds those that are made with it
		t.Bounds = c.who.Bounds
	} else if len(c.who.Bounds) > 0 {
		for _, b := range t.Bounds {
			if missing := policy.HoldsAll(&c.who, b.Role, b.Namespace); missing != "" {
				return nil, job.Errorf(job.CodeDenied, job.ReasonPermissionDenied,
					"grants: the token with which you have logged in does not permit %s in %s, so no token that is made with it can", missing, b.Namespace)
			}
		}
	}
	t, secret, err := s.gate.credentials.CreateAPIToken(ctx, t, duration(req.GetTtl()))
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateApiTokenResponse{Token: s.apiTokenToProto(&t), Secret: secret}, nil
}

// mayActFor refuses to give a proof of somebody's identity to whoever holds less than they do.
func (s *tokenService) mayActFor(ctx context.Context, user string) error {
	if !holds(ctx, "tokens.create") {
		return job.Errorf(job.CodeDenied, job.ReasonPermissionDenied,
			"%s may make tokens for themselves only; for others the permission \"tokens.create\" in all namespaces is needed", principal(ctx))
	}
	return mayBecome(ctx, user)
}

// mayBecome refuses when a user holds what the caller does not.
func mayBecome(ctx context.Context, user string) error {
	c := callOf(ctx)
	if more := c.gate.access.Policy().Exceeds(&c.who, user); more != "" {
		return job.Errorf(job.CodeDenied, job.ReasonPermissionDenied, "%s holds %s, which you do not: you may not let anybody act as them", user, more)
	}
	return nil
}

func (s *tokenService) ListTokens(ctx context.Context, req *adminv1.ListTokensRequest) (*adminv1.ListTokensResponse, error) {
	all, name := holds(ctx, "tokens.list"), principal(ctx).Name
	var list []*adminv1.Token
	for _, t := range s.gate.credentials.APITokens() {
		if all || t.User == name {
			list = append(list, s.apiTokenToProto(&t))
		}
	}
	if all {
		tokens, err := s.tokens.List(ctx)
		if err != nil {
			return nil, err
		}
		for i := range tokens {
			list = append(list, agentTokenToProto(&tokens[i]))
		}
	}
	slices.SortFunc(list, func(a, b *adminv1.Token) int { return strings.Compare(a.GetId(), b.GetId()) })
	page, next, err := pageOf(list, req, func(t **adminv1.Token) string { return (*t).GetId() })
	if err != nil {
		return nil, err
	}
	return &adminv1.ListTokensResponse{Tokens: page, NextPageToken: next}, nil
}

func (s *tokenService) RevokeToken(ctx context.Context, req *adminv1.RevokeTokenRequest) (*adminv1.RevokeTokenResponse, error) {
	chain.About(ctx, "token/"+req.GetId())
	t, ok := s.gate.credentials.APIToken(req.GetId())
	all := holds(ctx, "tokens.revoke")
	switch {
	case ok && (all || t.User == principal(ctx).Name):
		return &adminv1.RevokeTokenResponse{}, s.gate.credentials.RevokeAPIToken(ctx, req.GetId())
	case all:
		return &adminv1.RevokeTokenResponse{}, s.tokens.Revoke(ctx, req.GetId())
	}
	// Whether others have such a token is not said.
	return nil, job.Errorf(job.CodeNotFound, job.ReasonNotFound, "you have no token %.80q; `hodei token list` shows yours", req.GetId())
}

func (s *tokenService) apiTokenToProto(t *identity.APIToken) *adminv1.Token {
	p := &adminv1.Token{
		Id: t.ID, Kind: adminv1.TokenKind_TOKEN_KIND_API, User: t.User, Description: t.Description, CreateTime: timestamp(t.Created),
		CreatedBy: t.CreatedBy, ExpireTime: timestamp(t.Expires), LastUseTime: timestamp(s.gate.credentials.LastUse(t.ID)),
	}
	for _, b := range t.Bounds {
		p.Grants = append(p.Grants, &adminv1.TokenGrant{Role: b.Role, Namespace: b.Namespace})
	}
	return p
}

func agentTokenToProto(t *identity.Token) *adminv1.Token {
	return &adminv1.Token{
		Id: t.ID, Kind: adminv1.TokenKind_TOKEN_KIND_AGENT, ExpireTime: timestamp(t.Expires), UsesLeft: int32(t.UsesLeft),
		Labels: t.Labels, Queues: t.Queues, CreateTime: timestamp(t.Created), CreatedBy: t.CreatedBy,
	}
}
