package api

import (
	"context"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// authorityService serves hodei.admin.v1.AuthorityService.
type authorityService struct {
	gate      *gate
	authority *identity.Authority
	enrolment *identity.Enrolment
	fleet     *fleet.Fleet
}

func (s *authorityService) GetAuthority(ctx context.Context, _ *adminv1.GetAuthorityRequest) (*adminv1.GetAuthorityResponse, error) {
	return s.state(ctx)
}

func (s *authorityService) state(ctx context.Context) (*adminv1.GetAuthorityResponse, error) {
	workers, err := s.enrolment.WorkersByRoot(ctx)
	if err != nil {
		return nil, err
	}
	state := s.authority.State()
	res := &adminv1.GetAuthorityResponse{Hosts: state.Hosts, ServerExpireTime: timestamp(state.ServerExpires)}
	for _, r := range state.Roots {
		res.Roots = append(res.Roots, &adminv1.Root{
			Pin: r.Pin, BeginTime: timestamp(r.Begins), ExpireTime: timestamp(r.Expires), Pem: r.PEM, Workers: int32(workers[r.Pin]),
		})
	}
	return res, nil
}

func (s *authorityService) RotateAuthority(ctx context.Context, _ *adminv1.RotateAuthorityRequest) (*adminv1.RotateAuthorityResponse, error) {
	if err := s.authority.Rotate(); err != nil {
		return nil, err
	}
	s.fleet.RenewCertificates()
	state, err := s.recorded(ctx)
	return &adminv1.RotateAuthorityResponse{Authority: state}, err
}

func (s *authorityService) RetireAuthority(ctx context.Context, req *adminv1.RetireAuthorityRequest) (*adminv1.RetireAuthorityResponse, error) {
	state, err := s.state(ctx)
	if err != nil {
		return nil, err
	}
	if roots := state.GetRoots(); len(roots) > 1 && roots[1].GetWorkers() > 0 && !req.GetForce() {
		return nil, job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
			"%d workers still depend on the old root and would have to enrol again; wait until they have connected, or force it", roots[1].GetWorkers())
	}
	if err := s.authority.Retire(); err != nil {
		return nil, err
	}
	state, err = s.recorded(ctx)
	return &adminv1.RetireAuthorityResponse{Authority: state}, err
}

// recorded records a change of the authority, which lies in files and not in the store, and returns how it stands.
func (s *authorityService) recorded(ctx context.Context) (*adminv1.GetAuthorityResponse, error) {
	for _, pin := range s.authority.Pins() {
		about(ctx, "root/"+pin)
	}
	if err := s.gate.jobs.Record(ctx, callOf(ctx).entry); err != nil {
		return nil, err
	}
	return s.state(ctx)
}
