package hodei

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// LoginRequests returns the requests for logins that wait for a decision, the oldest first.
func (c *Client) LoginRequests(ctx context.Context) ([]*adminv1.LoginRequest, error) {
	var requests []*adminv1.LoginRequest
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Logins.ListLoginRequests(ctx, &adminv1.ListLoginRequestsRequest{})
		requests = res.GetRequests()
		return err
	})
	return requests, err
}

// ApproveLogin lets the one who has asked with a code log in, for ttl (0: 30 days). ErrNotFound when nobody waits with it. It is not
// repeated when it fails: it may have been done.
func (c *Client) ApproveLogin(ctx context.Context, code string, ttl time.Duration) (*adminv1.Login, error) {
	request := &adminv1.ApproveLoginRequest{Code: code}
	if ttl > 0 {
		request.Ttl = durationpb.New(ttl)
	}
	res, err := c.Raw.Logins.ApproveLogin(ctx, request)
	return res.GetLogin(), c.translate(err)
}

// DenyLogin refuses the one who has asked with a code. ErrNotFound when nobody waits with it. It is not repeated when it fails.
func (c *Client) DenyLogin(ctx context.Context, code string) error {
	_, err := c.Raw.Logins.DenyLogin(ctx, &adminv1.DenyLoginRequest{Code: code})
	return c.translate(err)
}

// Logins yields the logins that last, the oldest first.
func (c *Client) Logins(ctx context.Context) iter.Seq2[*adminv1.Login, error] {
	return pages(ctx, c, func(token string) ([]*adminv1.Login, string, error) {
		res, err := c.Raw.Logins.ListLogins(ctx, &adminv1.ListLoginsRequest{PageSize: pageSize, PageToken: token})
		return res.GetLogins(), res.GetNextPageToken(), err
	})
}

// Revoke makes a subject useless at once: "user/NAME", "agent/WORKER", "certificate/" and the SHA-256 of its DER in hexadecimal, "token/ID"
// or "login/ID". What it has open is cut.
func (c *Client) Revoke(ctx context.Context, subject, reason string) (*adminv1.Revocation, error) {
	var revocation *adminv1.Revocation
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Logins.Revoke(ctx, &adminv1.RevokeRequest{Subject: subject, Reason: reason})
		revocation = res.GetRevocation()
		return err
	})
	return revocation, err
}

// Reinstate takes a revocation back; ErrNotFound when the subject was not revoked. It is not repeated when it fails: it may have been done.
func (c *Client) Reinstate(ctx context.Context, subject string) error {
	_, err := c.Raw.Logins.Reinstate(ctx, &adminv1.ReinstateRequest{Subject: subject})
	return c.translate(err)
}

// Revocations yields what is revoked, by subject.
func (c *Client) Revocations(ctx context.Context) iter.Seq2[*adminv1.Revocation, error] {
	return pages(ctx, c, func(token string) ([]*adminv1.Revocation, string, error) {
		res, err := c.Raw.Logins.ListRevocations(ctx, &adminv1.ListRevocationsRequest{PageSize: pageSize, PageToken: token})
		return res.GetRevocations(), res.GetNextPageToken(), err
	})
}
