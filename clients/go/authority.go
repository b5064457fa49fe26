package hodei

import (
	"context"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// Authority shows the server's certificate authority.
func (c *Client) Authority(ctx context.Context) (*adminv1.GetAuthorityResponse, error) {
	var authority *adminv1.GetAuthorityResponse
	err := c.retry(ctx, func() error {
		var err error
		authority, err = c.Raw.Authority.GetAuthority(ctx, &adminv1.GetAuthorityRequest{})
		return err
	})
	return authority, err
}

// RotateAuthority makes a new root. It is not repeated when it fails: it may have been made.
func (c *Client) RotateAuthority(ctx context.Context) (*adminv1.GetAuthorityResponse, error) {
	res, err := c.Raw.Authority.RotateAuthority(ctx, &adminv1.RotateAuthorityRequest{})
	return res.GetAuthority(), c.translate(err)
}

// RetireAuthority ends the trust in the old root, with force although workers depend on it. It is not repeated when it fails.
func (c *Client) RetireAuthority(ctx context.Context, force bool) (*adminv1.GetAuthorityResponse, error) {
	res, err := c.Raw.Authority.RetireAuthority(ctx, &adminv1.RetireAuthorityRequest{Force: force})
	return res.GetAuthority(), c.translate(err)
}
