package hodei

import (
	"context"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// Authority returns the certificate authority: its roots, and how many workers still depend on each.
func (c *Client) Authority(ctx context.Context) (*adminv1.GetAuthorityResponse, error) {
	var authority *adminv1.GetAuthorityResponse
	err := c.retry(ctx, func() (err error) {
		authority, err = c.Raw.Authority.GetAuthority(ctx, &adminv1.GetAuthorityRequest{})
		return err
	})
	return authority, err
}

// RotateAuthority makes a new root; the old one is trusted on until RetireAuthority. ErrFailedPrecondition while there are two. It is
// not repeated when it fails: it may have been done.
func (c *Client) RotateAuthority(ctx context.Context) (*adminv1.GetAuthorityResponse, error) {
	res, err := c.Raw.Authority.RotateAuthority(ctx, &adminv1.RotateAuthorityRequest{})
	return res.GetAuthority(), c.translate(err)
}

// RetireAuthority ends the trust in the old root. ErrFailedPrecondition while workers depend on it; with force, these must enrol again.
// It is not repeated when it fails: it may have been done.
func (c *Client) RetireAuthority(ctx context.Context, force bool) (*adminv1.GetAuthorityResponse, error) {
	res, err := c.Raw.Authority.RetireAuthority(ctx, &adminv1.RetireAuthorityRequest{Force: force})
	return res.GetAuthority(), c.translate(err)
}
