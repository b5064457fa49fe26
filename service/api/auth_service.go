package api

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"

	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
)

// Provider verifies the ID tokens of an OIDC provider.
type Provider interface {
	// Identify returns whom an ID token is for, with their groups. A *job.Error with CodeUnauthenticated says what is wrong with it, one with
	// CodeUnavailable that the provider cannot be asked.
	Identify(ctx context.Context, idToken string) (user string, groups []string, err error)
	// Client returns how clients log in: the provider's address, the id of the client, and what it asks for.
	Client() (issuer, clientID string, scopes []string)
}

// authService serves hodei.v1.AuthService.
type authService struct {
	gate     *gate
	provider Provider // nil: none
}

func (s *authService) GetLoginOptions(context.Context, *hodeiv1.GetLoginOptionsRequest) (*hodeiv1.GetLoginOptionsResponse, error) {
	res := &hodeiv1.GetLoginOptionsResponse{}
	if s.provider != nil {
		issuer, client, scopes := s.provider.Client()
		res.Oidc = &hodeiv1.OidcProvider{Issuer: issuer, ClientId: client, Scopes: scopes}
	}
	return res, nil
}

func (s *authService) ExchangeToken(ctx context.Context, req *hodeiv1.ExchangeTokenRequest) (*hodeiv1.ExchangeTokenResponse, error) {
	c := callOf(ctx)
	var p identity.Principal
	err := s.gate.tryLogin(c, identity.APITokenID(req.GetApiToken()), func() (err error) {
		p, err = s.prove(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	// From here on the caller is known.
	c.caller, c.entry.Actor = p, p.String()
	c.entry.Credential = c.credential()
	res := &hodeiv1.ExchangeTokenResponse{Principal: p.String()}
	if len(req.GetCsrDer()) > 0 {
		issued, err := s.gate.credentials.BeginLogin(ctx, p, req.GetCsrDer())
		if err != nil {
			return nil, err
		}
		res.Certificate = issuedToProto(&issued)
	}
	token, expires, err := s.gate.accessTokens.Issue(p, c.certificate, c.certificateEnds)
	if err != nil {
		return nil, err
	}
	s.gate.credentials.Seen(&p)
	res.AccessToken, res.ExpireTime = token, timestamppb.New(expires)
	return res, nil
}

// prove returns who has given a proof of identity.
func (s *authService) prove(ctx context.Context, req *hodeiv1.ExchangeTokenRequest) (identity.Principal, error) {
	if secret := req.GetApiToken(); secret != "" {
		p, _, err := s.gate.credentials.RedeemAPIToken(secret)
		return p, err
	}
	if s.provider == nil {
		return identity.Principal{}, job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"this server has no OIDC provider; log in with an API token, or ask an administrator for a login")
	}
	user, groups, err := s.provider.Identify(ctx, req.GetIdToken())
	if err != nil {
		return identity.Principal{}, err
	}
	p := identity.Principal{Kind: identity.User, Name: user, Groups: groups}
	if p.String() == access.Administrator {
		return p, job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"%s is the user of the server's own folder and cannot log in elsewhere; give another user the role admin", access.Administrator)
	}
	return p, s.gate.credentials.Check(&p, identity.Fingerprint{})
}

func issuedToProto(issued *identity.LoginCertificate) *hodeiv1.IssuedCertificate {
	return &hodeiv1.IssuedCertificate{
		ChainDer: issued.Chain, RootsDer: issued.Roots, LoginId: issued.Login.ID, RenewableUntil: timestamp(issued.Login.Expires),
	}
}

func (s *authService) RequestLogin(ctx context.Context, req *hodeiv1.RequestLoginRequest) (*hodeiv1.RequestLoginResponse, error) {
	c := callOf(ctx)
	if wait, ok := s.gate.limits.Logins.Allow(c.origin(), s.gate.now()); !ok {
		return nil, s.gate.tooMany("login", "requests for logins", wait)
	}
	request, secret, err := s.gate.credentials.RequestLogin(req.GetUser(), c.address, req.GetCsrDer())
	if err != nil {
		return nil, err
	}
	chain.About(ctx, "user/"+req.GetUser(), "login-request/"+request.Code)
	if err := s.gate.jobs.Record(ctx, c.entry); err != nil {
		return nil, err
	}
	return &hodeiv1.RequestLoginResponse{Secret: secret, Code: request.Code, ExpireTime: timestamppb.New(request.Expires)}, nil
}

func (s *authService) CollectLogin(ctx context.Context, req *hodeiv1.CollectLoginRequest) (*hodeiv1.CollectLoginResponse, error) {
	var issued *identity.LoginCertificate
	var denied bool
	err := s.gate.tryLogin(callOf(ctx), "", func() (err error) {
		issued, denied, err = s.gate.credentials.CollectLogin(req.GetSecret())
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case denied:
		return &hodeiv1.CollectLoginResponse{State: hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_DENIED}, nil
	case issued == nil:
		return &hodeiv1.CollectLoginResponse{State: hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_PENDING}, nil
	}
	return &hodeiv1.CollectLoginResponse{
		State: hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_APPROVED, Certificate: issuedToProto(issued),
	}, nil
}

func (s *authService) RenewCertificate(ctx context.Context, req *hodeiv1.RenewCertificateRequest) (*hodeiv1.RenewCertificateResponse, error) {
	c := callOf(ctx)
	issued, err := s.gate.credentials.Renew(&c.caller, req.GetCsrDer())
	if err != nil {
		return nil, err
	}
	chain.About(ctx, "login/"+issued.Login.ID)
	if err := s.gate.jobs.Record(ctx, c.entry); err != nil {
		return nil, err
	}
	return &hodeiv1.RenewCertificateResponse{Certificate: issuedToProto(&issued)}, nil
}

func (s *authService) WhoAmI(ctx context.Context, _ *hodeiv1.WhoAmIRequest) (*hodeiv1.WhoAmIResponse, error) {
	c := callOf(ctx)
	res := &hodeiv1.WhoAmIResponse{
		Principal: c.caller.String(), Groups: c.caller.Groups, Proof: "certificate", ProofId: c.caller.Login, ExpireTime: timestamp(c.expires),
	}
	switch {
	case c.caller.Token != "" && c.caller.Login == "":
		res.Proof, res.ProofId = "api-token", c.caller.Token
	case c.proof == policyv1.Authentication_AUTHENTICATION_USER_TOKEN && c.caller.Login == "":
		res.Proof = "oidc"
	}
	policy := s.gate.access.Policy()
	for _, b := range policy.Of(&c.who) {
		role, _ := policy.Role(b.Role)
		res.Grants = append(res.Grants, &hodeiv1.Grant{Role: b.Role, Namespace: b.Namespace, Subject: b.Subject, Permissions: role.Permissions})
	}
	return res, nil
}

func (s *authService) CheckAccess(ctx context.Context, req *hodeiv1.CheckAccessRequest) (*hodeiv1.CheckAccessResponse, error) {
	c := callOf(ctx)
	allowed, reason, err := s.gate.access.Explain(&c.who, req.GetPermission(), req.GetNamespace())
	return &hodeiv1.CheckAccessResponse{Allowed: allowed, Reason: reason}, err
}

func (s *authService) Logout(ctx context.Context, _ *hodeiv1.LogoutRequest) (*hodeiv1.LogoutResponse, error) {
	login := callOf(ctx).caller.Login
	if login == "" {
		return nil, job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"the certificate of %s belongs to no login that could be ended", &callOf(ctx).caller)
	}
	chain.About(ctx, "login/"+login)
	return &hodeiv1.LogoutResponse{}, s.gate.credentials.EndLogin(ctx, login)
}
