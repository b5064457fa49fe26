package api

import (
	"context"
	"strings"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// loginService serves hodei.admin.v1.LoginService.
type loginService struct {
	gate   *gate
	tokens *identity.Tokens
}

func (s *loginService) ListLoginRequests(context.Context, *adminv1.ListLoginRequestsRequest) (*adminv1.ListLoginRequestsResponse, error) {
	res := &adminv1.ListLoginRequestsResponse{}
	for _, r := range s.gate.credentials.LoginRequests() {
		res.Requests = append(res.Requests, &adminv1.LoginRequest{
			Code: r.Code, User: r.User, Address: r.Address, CreateTime: timestamp(r.Created), ExpireTime: timestamp(r.Expires),
		})
	}
	return res, nil
}

func (s *loginService) ApproveLogin(ctx context.Context, req *adminv1.ApproveLoginRequest) (*adminv1.ApproveLoginResponse, error) {
	request, err := s.gate.credentials.LoginRequest(req.GetCode())
	if err != nil {
		return nil, err
	}
	chain.About(ctx, "user/"+request.User, "login-request/"+request.Code)
	if err := mayBecome(ctx, "user/"+request.User); err != nil {
		return nil, err
	}
	l, err := s.gate.credentials.ApproveLogin(ctx, request.Code, principal(ctx).String(), duration(req.GetTtl()))
	if err != nil {
		return nil, err
	}
	return &adminv1.ApproveLoginResponse{Login: s.loginToProto(&l)}, nil
}

func (s *loginService) DenyLogin(ctx context.Context, req *adminv1.DenyLoginRequest) (*adminv1.DenyLoginResponse, error) {
	chain.About(ctx, "login-request/"+req.GetCode())
	if err := s.gate.credentials.DenyLogin(req.GetCode()); err != nil {
		return nil, err
	}
	return &adminv1.DenyLoginResponse{}, s.gate.jobs.Record(ctx, callOf(ctx).entry)
}

func (s *loginService) ListLogins(_ context.Context, req *adminv1.ListLoginsRequest) (*adminv1.ListLoginsResponse, error) {
	page, next, err := pageOf(s.gate.credentials.Logins(), req, func(l *identity.Login) string { return l.ID })
	if err != nil {
		return nil, err
	}
	res := &adminv1.ListLoginsResponse{NextPageToken: next}
	for i := range page {
		res.Logins = append(res.Logins, s.loginToProto(&page[i]))
	}
	return res, nil
}

func (s *loginService) loginToProto(l *identity.Login) *adminv1.Login {
	return &adminv1.Login{
		Id: l.ID, User: l.User, Groups: l.Groups, By: l.By, CreateTime: timestamp(l.Created), ExpireTime: timestamp(l.Expires),
		LastUseTime: timestamp(s.gate.credentials.LastUse(l.ID)),
	}
}

func (s *loginService) Revoke(ctx context.Context, req *adminv1.RevokeRequest) (*adminv1.RevokeResponse, error) {
	chain.About(ctx, req.GetSubject())
	r, err := s.gate.credentials.Revoke(ctx, req.GetSubject(), req.GetReason(), principal(ctx).String())
	if err != nil {
		return nil, err
	}
	// A token with which agents enrol is no proof of anybody's identity that could be checked later: it is removed.
	if id, ok := strings.CutPrefix(req.GetSubject(), "token/"); ok {
		if err := s.tokens.Revoke(ctx, id); err != nil && job.CodeOf(err) != job.CodeNotFound {
			return nil, err
		}
	}
	return &adminv1.RevokeResponse{Revocation: revocationToProto(&r)}, nil
}

func (s *loginService) Reinstate(ctx context.Context, req *adminv1.ReinstateRequest) (*adminv1.ReinstateResponse, error) {
	chain.About(ctx, req.GetSubject())
	return &adminv1.ReinstateResponse{}, s.gate.credentials.Reinstate(ctx, req.GetSubject())
}

func (s *loginService) ListRevocations(_ context.Context, req *adminv1.ListRevocationsRequest) (*adminv1.ListRevocationsResponse, error) {
	page, next, err := pageOf(s.gate.credentials.Revocations(), req, func(r *identity.Revocation) string { return r.Subject })
	if err != nil {
		return nil, err
	}
	res := &adminv1.ListRevocationsResponse{NextPageToken: next}
	for i := range page {
		res.Revocations = append(res.Revocations, revocationToProto(&page[i]))
	}
	return res, nil
}

func revocationToProto(r *identity.Revocation) *adminv1.Revocation {
	return &adminv1.Revocation{Subject: r.Subject, Reason: r.Reason, RevokedBy: r.By, RevokeTime: timestamp(r.Revoked)}
}
