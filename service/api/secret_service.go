package api

import (
	"context"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/secrets"
)

// secretService serves hodei.v1.SecretService. No answer of it has a value.
type secretService struct{ secrets *secrets.Secrets }

func (s *secretService) SetSecret(ctx context.Context, req *hodeiv1.SetSecretRequest) (*hodeiv1.SetSecretResponse, error) {
	namespace, err := within(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	chain.About(ctx, "secret/"+req.GetName())
	secret, warnings, err := s.secrets.Set(ctx, namespace, req.GetName(), req.GetValue())
	if err != nil {
		return nil, err
	}
	return &hodeiv1.SetSecretResponse{Secret: secretToProto(&secret), Warnings: warnings}, nil
}

func (s *secretService) ListSecrets(ctx context.Context, req *hodeiv1.ListSecretsRequest) (*hodeiv1.ListSecretsResponse, error) {
	namespace, err := within(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	all, err := s.secrets.List(ctx, namespace)
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.ListSecretsResponse{}
	for i := range all {
		res.Secrets = append(res.Secrets, secretToProto(&all[i]))
	}
	return res, nil
}

func (s *secretService) DeleteSecret(ctx context.Context, req *hodeiv1.DeleteSecretRequest) (*hodeiv1.DeleteSecretResponse, error) {
	namespace, err := within(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	chain.About(ctx, "secret/"+req.GetName())
	return &hodeiv1.DeleteSecretResponse{}, s.secrets.Delete(ctx, namespace, req.GetName())
}

func secretToProto(s *secrets.Secret) *hodeiv1.Secret {
	return &hodeiv1.Secret{
		Namespace: s.Namespace, Name: s.Name, Version: s.Version, CreateTime: timestamp(s.Created), UpdateTime: timestamp(s.Updated),
	}
}
