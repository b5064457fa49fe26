package api

import (
	"context"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	"github.com/hodei-jobs/hodei/service/identity"
)

// tokenService serves hodei.admin.v1.TokenService.
type tokenService struct {
	adminv1connect.UnimplementedTokenServiceHandler

	tokens *identity.Tokens
	pin    func() string // of the root that signs
}

func (s *tokenService) CreateToken(ctx context.Context, req *adminv1.CreateTokenRequest) (*adminv1.CreateTokenResponse, error) {
	token, secret, err := s.tokens.Create(ctx, identity.CreateOptions{
		TTL: duration(req.GetTtl()), MaxUses: int(req.GetMaxUses()), Labels: req.GetLabels(), Queues: req.GetQueues(),
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateTokenResponse{Id: token.ID, Secret: secret, ExpireTime: timestamp(token.Expires), CaPin: s.pin()}, nil
}
