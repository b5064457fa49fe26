package hodei

import (
	"context"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// APITokenOptions say whose a token is, and what it is good for.
type APITokenOptions struct {
	User        string                // whose it is; empty: the caller's
	Description string                // for people
	TTL         time.Duration         // how long it is good; 0: 30 days
	Grants      []*adminv1.TokenGrant // all that it permits, of what its user holds; empty: all of that
}

// CreateAPIToken makes a token with which a script or a person logs in. Its secret is in the answer and nowhere else. It is not repeated
// when it fails: the token may have been made.
func (c *Client) CreateAPIToken(ctx context.Context, options APITokenOptions) (*adminv1.CreateApiTokenResponse, error) {
	request := &adminv1.CreateApiTokenRequest{User: options.User, Description: options.Description, Grants: options.Grants}
	if options.TTL > 0 {
		request.Ttl = durationpb.New(options.TTL)
	}
	res, err := c.Raw.Tokens.CreateApiToken(ctx, request)
	return res, c.translate(err)
}

// Tokens yields the tokens that are good still, the oldest first: all of them, or the caller's own API tokens if they may not see others.
func (c *Client) Tokens(ctx context.Context) iter.Seq2[*adminv1.Token, error] {
	return pages(ctx, c, func(token string) ([]*adminv1.Token, string, error) {
		res, err := c.Raw.Tokens.ListTokens(ctx, &adminv1.ListTokensRequest{PageSize: pageSize, PageToken: token})
		return res.GetTokens(), res.GetNextPageToken(), err
	})
}

// RevokeToken makes a token, and what was got with it, useless at once; ErrNotFound when there is none. It is not repeated when it
// fails: it may have been done.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := c.Raw.Tokens.RevokeToken(ctx, &adminv1.RevokeTokenRequest{Id: id})
	return c.translate(err)
}
