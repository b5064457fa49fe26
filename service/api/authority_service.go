package api

import (
	"context"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/identity"
)

// authorityService serves hodei.admin.v1.AuthorityService.
type authorityService struct {
	gate      *gate
	authority *identity.Authority
	enrolment *identity.Enrolment
	fleet     *fleet.Fleet
}

func (s *authorityService) GetAuthority(ctx context.Context, _ *adminv1.GetAuthorityRequest) (*adminv1.GetAuthorityResponse, error) {
	workers, err := s.enrolment.WorkersByRoot(ctx)
	if err != nil {
		return nil, err
	}
	state := s.authority.State()
	res := &adminv1.GetAuthorityResponse{Hosts: state.Hosts, ServerExpireTime: timestamp(state.ServerExpires)}
	for _, root := range state.Roots {
		res.Roots = append(res.Roots, &adminv1.Root{
			Pin: root.Pin, BeginTime: timestamp(root.Begins), ExpireTime: timestamp(root.Expires), Pem: root.PEM, Workers: int32(workers[root.Pin]),
		})
	}
	return res, nil
}

func (s *authorityService) RotateAuthority(
	ctx context.Context, _ *adminv1.RotateAuthorityRequest,
) (*adminv1.RotateAuthorityResponse, error) {
	if err := s.authority.Rotate(); err != nil {
		return nil, err
	}
	s.fleet.RenewCertificates()
	after, err := s.recorded(ctx)
	return &adminv1.RotateAuthorityResponse{Authority: after}, err
}

func (s *authorityService) RetireAuthority(
	ctx context.Context, req *adminv1.RetireAuthorityRequest,
) (*adminv1.RetireAuthorityResponse, error) {
	if err := s.enrolment.Retire(ctx, req.GetForce()); err != nil {
		return nil, err
	}
	after, err := s.recorded(ctx)
	return &adminv1.RetireAuthorityResponse{Authority: after}, err
}

// recorded records a change of the authority, which lies in files and not in the store, and returns how it stands.
func (s *authorityService) recorded(ctx context.Context) (*adminv1.GetAuthorityResponse, error) {
	for _, pin := range s.authority.Pins() {
		chain.About(ctx, "root/"+pin)
	}
	if err := s.gate.jobs.Record(ctx, callOf(ctx).entry); err != nil {
		return nil, err
	}
	return s.GetAuthority(ctx, nil)
}
