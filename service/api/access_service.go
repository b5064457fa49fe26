package api

import (
	"cmp"
	"context"
	"slices"
	"strings"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
)

// accessService serves hodei.admin.v1.AccessService.
type accessService struct{ gate *gate }

func (s *accessService) ListRoles(context.Context, *adminv1.ListRolesRequest) (*adminv1.ListRolesResponse, error) {
	res := &adminv1.ListRolesResponse{Permissions: s.gate.access.Catalog()}
	for _, r := range s.gate.access.Policy().Roles() {
		res.Roles = append(res.Roles, roleToProto(&r))
	}
	return res, nil
}

func (s *accessService) SetRole(ctx context.Context, req *adminv1.SetRoleRequest) (*adminv1.SetRoleResponse, error) {
	p := req.GetRole()
	chain.About(ctx, "role/"+p.GetName())
	r, err := s.gate.access.SetRole(ctx, &callOf(ctx).who,
		access.Role{Name: p.GetName(), Permissions: slices.Clone(p.GetPermissions()), Description: p.GetDescription()})
	if err != nil {
		return nil, err
	}
	return &adminv1.SetRoleResponse{Role: roleToProto(&r)}, nil
}

func (s *accessService) DeleteRole(ctx context.Context, req *adminv1.DeleteRoleRequest) (*adminv1.DeleteRoleResponse, error) {
	chain.About(ctx, "role/"+req.GetName())
	return &adminv1.DeleteRoleResponse{}, s.gate.access.DeleteRole(ctx, &callOf(ctx).who, req.GetName())
}

func (s *accessService) ListBindings(ctx context.Context, req *adminv1.ListBindingsRequest) (*adminv1.ListBindingsResponse, error) {
	c, policy := callOf(ctx), s.gate.access.Policy()
	readable := policy.Reach(&c.who, c.rule.permission)
	all := policy.Bindings(func(b *access.Binding) bool {
		return readable.Includes(b.Namespace) && (req.GetNamespace() == "" || req.GetNamespace() == b.Namespace)
	})
	page, next, err := pageOf(all, req, (*access.Binding).Key)
	if err != nil {
		return nil, err
	}
	res := &adminv1.ListBindingsResponse{NextPageToken: next}
	for i := range page {
		res.Bindings = append(res.Bindings, bindingToProto(&page[i]))
	}
	return res, nil
}

func (s *accessService) CreateBinding(ctx context.Context, req *adminv1.CreateBindingRequest) (*adminv1.CreateBindingResponse, error) {
	b, err := s.binding(ctx, req.GetBinding())
	if err != nil {
		return nil, err
	}
	if b, err = s.gate.access.CreateBinding(ctx, &callOf(ctx).who, b); err != nil {
		return nil, err
	}
	return &adminv1.CreateBindingResponse{Binding: bindingToProto(&b)}, nil
}

func (s *accessService) DeleteBinding(ctx context.Context, req *adminv1.DeleteBindingRequest) (*adminv1.DeleteBindingResponse, error) {
	b, err := s.binding(ctx, req.GetBinding())
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteBindingResponse{}, s.gate.access.DeleteBinding(ctx, &callOf(ctx).who, b)
}

// binding is what a request names, if the caller may change bindings of its namespace.
func (s *accessService) binding(ctx context.Context, p *adminv1.Binding) (access.Binding, error) {
	chain.About(ctx, p.GetSubject(), "role/"+p.GetRole())
	_, err := within(ctx, p.GetNamespace())
	return access.Binding{
		Subject: p.GetSubject(), Role: p.GetRole(), Namespace: p.GetNamespace(), CreatedBy: principal(ctx).String(),
	}, err
}

func (s *accessService) ReviewAccess(_ context.Context, req *adminv1.ReviewAccessRequest) (*adminv1.ReviewAccessResponse, error) {
	all := s.review()
	page, next, err := pageOf(all, req, func(e **adminv1.AccessEntry) string { return reviewKey(*e) })
	if err != nil {
		return nil, err
	}
	return &adminv1.ReviewAccessResponse{Entries: page, NextPageToken: next}, nil
}

func reviewKey(e *adminv1.AccessEntry) string {
	return strings.Join([]string{e.GetSubject(), e.GetKind(), e.GetCredential(), e.GetNamespace(), e.GetRole()}, " ")
}

// review returns every right and every credential, by subject.
func (s *accessService) review() []*adminv1.AccessEntry {
	credentials, policy := s.gate.credentials, s.gate.access.Policy()
	var all []*adminv1.AccessEntry
	for _, b := range policy.Bindings(func(*access.Binding) bool { return true }) {
		role, _ := policy.Role(b.Role)
		all = append(all, &adminv1.AccessEntry{
			Subject: b.Subject, Kind: "binding", Role: b.Role, Namespace: b.Namespace, Permissions: role.Permissions, CreatedBy: b.CreatedBy,
			CreateTime: timestamp(b.Created), LastUseTime: timestamp(credentials.LastUse(b.Subject)),
		})
	}
	for _, t := range credentials.APITokens() {
		e := adminv1.AccessEntry{
			Subject: "user/" + t.User, Kind: "api-token", Credential: t.ID, CreatedBy: t.CreatedBy,
			CreateTime: timestamp(t.Created), ExpireTime: timestamp(t.Expires), LastUseTime: timestamp(credentials.LastUse(t.ID)),
		}
		if len(t.Bounds) == 0 {
			all = append(all, &e)
		}
		for _, b := range t.Bounds {
			role, _ := policy.Role(b.Role)
			all = append(all, &adminv1.AccessEntry{
				Subject: e.GetSubject(), Kind: e.GetKind(), Credential: e.GetCredential(), CreatedBy: e.GetCreatedBy(), CreateTime: e.GetCreateTime(),
				ExpireTime: e.GetExpireTime(), LastUseTime: e.GetLastUseTime(), Role: b.Role, Namespace: b.Namespace, Permissions: role.Permissions,
			})
		}
	}
	for _, l := range credentials.Logins() {
		all = append(all, &adminv1.AccessEntry{
			Subject: "user/" + l.User, Kind: "login", Credential: l.ID, CreatedBy: l.By, CreateTime: timestamp(l.Created),
			ExpireTime: timestamp(l.Expires), LastUseTime: timestamp(credentials.LastUse(l.ID)),
		})
	}
	slices.SortFunc(all, func(a, b *adminv1.AccessEntry) int { return cmp.Compare(reviewKey(a), reviewKey(b)) })
	return all
}

func roleToProto(r *access.Role) *adminv1.Role {
	return &adminv1.Role{Name: r.Name, Permissions: r.Permissions, Description: r.Description, BuiltIn: r.BuiltIn}
}

func bindingToProto(b *access.Binding) *adminv1.Binding {
	return &adminv1.Binding{
		Subject: b.Subject, Role: b.Role, Namespace: b.Namespace, CreatedBy: b.CreatedBy, CreateTime: timestamp(b.Created),
	}
}
