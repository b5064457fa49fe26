package hodei

import (
	"cmp"
	"context"
	"iter"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// WhoAmI says who the server takes the caller for, and what they may do.
func (c *Client) WhoAmI(ctx context.Context) (*hodeiv1.WhoAmIResponse, error) {
	var res *hodeiv1.WhoAmIResponse
	err := c.retry(ctx, func() (err error) {
		res, err = c.Raw.Auth.WhoAmI(ctx, &hodeiv1.WhoAmIRequest{})
		return err
	})
	return res, err
}

// CheckAccess says whether the caller holds a permission, for example "jobs.submit", in a namespace (empty: the client's, or
// "default"; "*": all), and why, in a sentence.
func (c *Client) CheckAccess(ctx context.Context, permission, namespace string) (allowed bool, reason string, err error) {
	request := &hodeiv1.CheckAccessRequest{Permission: permission, Namespace: cmp.Or(namespace, c.config.Namespace)}
	err = c.retry(ctx, func() error {
		res, err := c.Raw.Auth.CheckAccess(ctx, request)
		allowed, reason = res.GetAllowed(), res.GetReason()
		return err
	})
	return allowed, reason, err
}

// Roles returns the roles, those that are built in first, and all permissions that there are.
func (c *Client) Roles(ctx context.Context) (*adminv1.ListRolesResponse, error) {
	var res *adminv1.ListRolesResponse
	err := c.retry(ctx, func() (err error) {
		res, err = c.Raw.Access.ListRoles(ctx, &adminv1.ListRolesRequest{})
		return err
	})
	return res, err
}

// SetRole makes a role, or gives it other permissions, and returns it as it stands then. ErrPermissionDenied when the caller does not
// hold all of them.
func (c *Client) SetRole(ctx context.Context, role *adminv1.Role) (*adminv1.Role, error) {
	var result *adminv1.Role
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Access.SetRole(ctx, &adminv1.SetRoleRequest{Role: role})
		result = res.GetRole()
		return err
	})
	return result, err
}

// DeleteRole removes a role; ErrNotFound when there is none, ErrFailedPrecondition while somebody has it. It is not repeated when it
// fails: it may have been done.
func (c *Client) DeleteRole(ctx context.Context, name string) error {
	_, err := c.Raw.Access.DeleteRole(ctx, &adminv1.DeleteRoleRequest{Name: name})
	return c.translate(err)
}

// Bindings yields who has which role where, by namespace, subject and role: of one namespace, of "*" for roles in all namespaces at
// once, or, with an empty one, all that the caller may read.
func (c *Client) Bindings(ctx context.Context, namespace string) iter.Seq2[*adminv1.Binding, error] {
	return pages(ctx, c, func(token string) ([]*adminv1.Binding, string, error) {
		res, err := c.Raw.Access.ListBindings(ctx,
			&adminv1.ListBindingsRequest{Namespace: namespace, PageSize: pageSize, PageToken: token})
		return res.GetBindings(), res.GetNextPageToken(), err
	})
}

// CreateBinding gives a role to "user/NAME" or "group/NAME" in a namespace, "*" for all, and returns it with who has granted it.
func (c *Client) CreateBinding(ctx context.Context, subject, role, namespace string) (*adminv1.Binding, error) {
	request := &adminv1.CreateBindingRequest{Binding: c.binding(subject, role, namespace)}
	var binding *adminv1.Binding
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Access.CreateBinding(ctx, request)
		binding = res.GetBinding()
		return err
	})
	return binding, err
}

// DeleteBinding takes a role away again; ErrNotFound when it was not given. It is not repeated when it fails: it may have been done.
func (c *Client) DeleteBinding(ctx context.Context, subject, role, namespace string) error {
	_, err := c.Raw.Access.DeleteBinding(ctx, &adminv1.DeleteBindingRequest{Binding: c.binding(subject, role, namespace)})
	return c.translate(err)
}

func (c *Client) binding(subject, role, namespace string) *adminv1.Binding {
	return &adminv1.Binding{Subject: subject, Role: role, Namespace: cmp.Or(namespace, c.config.Namespace, "default")}
}

// ReviewAccess yields who may do what, by subject: every binding, API token and login.
func (c *Client) ReviewAccess(ctx context.Context) iter.Seq2[*adminv1.AccessEntry, error] {
	return pages(ctx, c, func(token string) ([]*adminv1.AccessEntry, string, error) {
		res, err := c.Raw.Access.ReviewAccess(ctx, &adminv1.ReviewAccessRequest{PageSize: pageSize, PageToken: token})
		return res.GetEntries(), res.GetNextPageToken(), err
	})
}
