package api

import (
	"cmp"
	"context"
	"math"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/retention"
)

// retentionService serves hodei.admin.v1.RetentionService.
type retentionService struct{ keeper *retention.Keeper }

func (s *retentionService) SetLogRetention(
	ctx context.Context, req *adminv1.SetLogRetentionRequest,
) (*adminv1.SetLogRetentionResponse, error) {
	p := req.GetRetention()
	chain.About(ctx, "namespace/"+cmp.Or(p.GetNamespace(), job.DefaultNamespace))
	return &adminv1.SetLogRetentionResponse{}, s.keeper.Set(ctx, retention.Policy{
		Namespace: cmp.Or(p.GetNamespace(), job.DefaultNamespace), MaxAge: duration(p.GetMaxAge()), MaxBytes: uint64(p.GetMaxMib()) << 20,
	})
}

func (s *retentionService) ListLogRetentions(
	ctx context.Context, _ *adminv1.ListLogRetentionsRequest,
) (*adminv1.ListLogRetentionsResponse, error) {
	policies, err := s.keeper.List(ctx)
	if err != nil {
		return nil, err
	}
	res := &adminv1.ListLogRetentionsResponse{}
	for _, p := range policies {
		res.Retentions = append(res.Retentions, &adminv1.LogRetention{
			Namespace: p.Namespace, MaxAge: optional(p.MaxAge), MaxMib: int32(min(p.MaxBytes>>20, math.MaxInt32)),
		})
	}
	return res, nil
}
