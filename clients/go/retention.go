package hodei

import (
	"context"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// SetLogRetention gives a namespace limits for its logs; without any, it takes them away.
func (c *Client) SetLogRetention(ctx context.Context, retention *adminv1.LogRetention) error {
	return c.retry(ctx, func() error {
		_, err := c.Raw.Retention.SetLogRetention(ctx, &adminv1.SetLogRetentionRequest{Retention: retention})
		return err
	})
}

// LogRetentions returns the limits of namespaces that have some.
func (c *Client) LogRetentions(ctx context.Context) ([]*adminv1.LogRetention, error) {
	var retentions []*adminv1.LogRetention
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Retention.ListLogRetentions(ctx, &adminv1.ListLogRetentionsRequest{})
		retentions = res.GetRetentions()
		return err
	})
	return retentions, err
}
