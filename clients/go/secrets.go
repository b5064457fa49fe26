package hodei

import (
	"cmp"
	"context"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// SetSecret makes a secret of a namespace (empty: the client's, or "default"), or gives it another value of 1 to 65,536 bytes. The
// response has warnings for the owner.
func (c *Client) SetSecret(ctx context.Context, namespace, name string, value []byte) (*hodeiv1.SetSecretResponse, error) {
	request := &hodeiv1.SetSecretRequest{Namespace: cmp.Or(namespace, c.config.Namespace), Name: name, Value: value}
	var res *hodeiv1.SetSecretResponse
	err := c.retry(ctx, func() (err error) {
		res, err = c.Raw.Secrets.SetSecret(ctx, request)
		return err
	})
	return res, err
}

// ListSecrets returns the secrets of a namespace (empty: the client's, or "default") by name, without their values.
func (c *Client) ListSecrets(ctx context.Context, namespace string) ([]*hodeiv1.Secret, error) {
	request := &hodeiv1.ListSecretsRequest{Namespace: cmp.Or(namespace, c.config.Namespace)}
	var secrets []*hodeiv1.Secret
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Secrets.ListSecrets(ctx, request)
		secrets = res.GetSecrets()
		return err
	})
	return secrets, err
}

// DeleteSecret removes a secret of a namespace (empty: the client's, or "default"); ErrNotFound when there is none. It is not
// repeated when it fails: it may have been done.
func (c *Client) DeleteSecret(ctx context.Context, namespace, name string) error {
	_, err := c.Raw.Secrets.DeleteSecret(ctx, &hodeiv1.DeleteSecretRequest{Namespace: cmp.Or(namespace, c.config.Namespace), Name: name})
	return c.translate(err)
}
