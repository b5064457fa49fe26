package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
)

// The scripts show the commands for access against a server that has nothing but answers: hostile ones, too.
func TestAccessScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/access",
		Setup: func(env *testscript.Env) error {
			api, err := startFakeAPI(env.Defer)
			if err != nil {
				return err
			}
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("SERVER", api.url)
			env.Setenv("TZ", "UTC")
			ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.root})
			return os.WriteFile(filepath.Join(env.WorkDir, "ca.pem"), ca, 0o600)
		},
	})
}

// fakeAPI answers the calls of the commands. It knows the API token "good", the ID token "id-good", and whoever has a certificate.
type fakeAPI struct {
	hodeiv1connect.UnimplementedAuthServiceHandler
	adminv1connect.UnimplementedTokenServiceHandler
	adminv1connect.UnimplementedAccessServiceHandler
	adminv1connect.UnimplementedLoginServiceHandler
	adminv1connect.UnimplementedAuditServiceHandler

	url  string
	root []byte
	key  *ecdsa.PrivateKey

	provider *hodeiv1.OidcProvider
}

type certified struct{}

func startFakeAPI(atEnd func(func())) (*fakeAPI, error) {
	api := new(fakeAPI)
	var err error
	if api.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	server := connect.NewServer(func(next connect.ServerFunc) connect.ServerFunc {
		return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
			info, _ := connect.CallInfoForServerContext(ctx)
			if ctx.Value(certified{}) == nil && info.RequestHeader().Get("Authorization") != "Bearer access" && !strings.Contains(spec.Procedure, "Login") &&
				!strings.HasSuffix(spec.Procedure, "/ExchangeToken") {
				return connect.NewError(connect.CodeUnauthenticated, "log in first")
			}
			return next(ctx, spec, stream)
		}
	})
	hodeiv1connect.RegisterAuthServiceHandler(server, api)
	adminv1connect.RegisterTokenServiceHandler(server, api)
	adminv1connect.RegisterAccessServiceHandler(server, api)
	adminv1connect.RegisterLoginServiceHandler(server, api)
	adminv1connect.RegisterAuditServiceHandler(server, api)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			r = r.WithContext(context.WithValue(r.Context(), certified{}, true))
		}
		mux.ServeHTTP(w, r)
	}))
	h.EnableHTTP2 = true
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	h.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS13}
	h.StartTLS()
	atEnd(h.Close)
	api.url, api.root = h.URL, h.Certificate().Raw
	return api, nil
}

func (api *fakeAPI) issue(csr []byte) (*hodeiv1.IssuedCertificate, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ada"}, NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, request.PublicKey, api.key)
	return &hodeiv1.IssuedCertificate{
		ChainDer: [][]byte{der}, RootsDer: [][]byte{api.root}, LoginId: "lgn_1", RenewableUntil: timestamp(2099),
	}, err
}

func timestamp(year int) *timestamppb.Timestamp {
	return timestamppb.New(time.Date(year, 1, 2, 3, 4, 5, 0, time.UTC))
}

func (api *fakeAPI) GetLoginOptions(context.Context, *hodeiv1.GetLoginOptionsRequest) (*hodeiv1.GetLoginOptionsResponse, error) {
	return &hodeiv1.GetLoginOptionsResponse{Oidc: api.provider}, nil
}

func (api *fakeAPI) ExchangeToken(_ context.Context, req *hodeiv1.ExchangeTokenRequest) (*hodeiv1.ExchangeTokenResponse, error) {
	if req.GetApiToken() != "good" && req.GetIdToken() != "id-good" {
		return nil, connect.NewError(connect.CodeUnauthenticated, "there is no such token")
	}
	res := &hodeiv1.ExchangeTokenResponse{AccessToken: "access", ExpireTime: timestamppb.New(time.Now().Add(15 * time.Minute))}
	var err error
	if len(req.GetCsrDer()) > 0 {
		res.Certificate, err = api.issue(req.GetCsrDer())
	}
	return res, err
}

func (api *fakeAPI) RequestLogin(_ context.Context, req *hodeiv1.RequestLoginRequest) (*hodeiv1.RequestLoginResponse, error) {
	return &hodeiv1.RequestLoginResponse{Secret: req.GetUser(), Code: "ABCD-EFGH", ExpireTime: timestamp(2099)}, nil
}

// CollectLogin has denied eve.
func (api *fakeAPI) CollectLogin(_ context.Context, req *hodeiv1.CollectLoginRequest) (*hodeiv1.CollectLoginResponse, error) {
	if req.GetSecret() != "eve" {
		return nil, connect.NewError(connect.CodeNotFound, "there is no such request")
	}
	return &hodeiv1.CollectLoginResponse{State: hodeiv1.LoginRequestState_LOGIN_REQUEST_STATE_DENIED}, nil
}

func (api *fakeAPI) WhoAmI(context.Context, *hodeiv1.WhoAmIRequest) (*hodeiv1.WhoAmIResponse, error) {
	return &hodeiv1.WhoAmIResponse{
		Principal: "user/ada", Groups: []string{"devs", "evil\x1b[2J"}, Proof: "certificate", ProofId: "lgn_1", ExpireTime: timestamp(2098),
		Grants: []*hodeiv1.Grant{{Role: "viewer", Namespace: "web", Subject: "group/devs", Permissions: []string{"jobs.read", "logs.read"}}},
	}, nil
}

func (api *fakeAPI) CheckAccess(_ context.Context, req *hodeiv1.CheckAccessRequest) (*hodeiv1.CheckAccessResponse, error) {
	if req.GetPermission() == "jobs.read" && req.GetNamespace() == "web" {
		return &hodeiv1.CheckAccessResponse{Allowed: true, Reason: "viewer in web permits it"}, nil
	}
	return &hodeiv1.CheckAccessResponse{Reason: "nothing permits it"}, nil
}

func (api *fakeAPI) Logout(context.Context, *hodeiv1.LogoutRequest) (*hodeiv1.LogoutResponse, error) {
	return &hodeiv1.LogoutResponse{}, nil
}

func (api *fakeAPI) CreateToken(context.Context, *adminv1.CreateTokenRequest) (*adminv1.CreateTokenResponse, error) {
	return &adminv1.CreateTokenResponse{Id: "tok_a", Secret: "agent-secret", ExpireTime: timestamp(2099), CaPin: "sha256:x"}, nil
}

//nolint:staticcheck // the name is that of the RPC
func (api *fakeAPI) CreateApiToken(_ context.Context, req *adminv1.CreateApiTokenRequest) (*adminv1.CreateApiTokenResponse, error) {
	return &adminv1.CreateApiTokenResponse{Secret: "api-secret", Token: &adminv1.Token{
		Id: "tok_1", Kind: adminv1.TokenKind_TOKEN_KIND_API, User: req.GetUser(), Description: req.GetDescription(), Grants: req.GetGrants(), ExpireTime: timestamp(2099),
	}}, nil
}

func (api *fakeAPI) ListTokens(context.Context, *adminv1.ListTokensRequest) (*adminv1.ListTokensResponse, error) {
	return &adminv1.ListTokensResponse{Tokens: []*adminv1.Token{
		{Id: "tok_1", Kind: adminv1.TokenKind_TOKEN_KIND_API, User: "ci", Description: "x\nFORGED LINE", CreatedBy: "user/ada", ExpireTime: timestamp(2099)},
		{Id: "tok_2", Kind: adminv1.TokenKind_TOKEN_KIND_AGENT, UsesLeft: 3, Queues: []string{"web/*"}, CreatedBy: "user/ada", ExpireTime: timestamp(2099)},
	}}, nil
}

func (api *fakeAPI) RevokeToken(_ context.Context, req *adminv1.RevokeTokenRequest) (*adminv1.RevokeTokenResponse, error) {
	if req.GetId() != "tok_1" {
		return nil, connect.NewError(connect.CodeNotFound, "there is no token "+req.GetId())
	}
	return &adminv1.RevokeTokenResponse{}, nil
}

func (api *fakeAPI) ListRoles(context.Context, *adminv1.ListRolesRequest) (*adminv1.ListRolesResponse, error) {
	return &adminv1.ListRolesResponse{Roles: []*adminv1.Role{
		{Name: "admin", BuiltIn: true, Permissions: []string{"jobs.read", "jobs.submit"}}, {Name: "own", Permissions: []string{"jobs.read"}},
	}, Permissions: []string{"jobs.read", "jobs.submit"}}, nil
}

func (api *fakeAPI) SetRole(_ context.Context, req *adminv1.SetRoleRequest) (*adminv1.SetRoleResponse, error) {
	return &adminv1.SetRoleResponse{Role: req.GetRole()}, nil
}

func (api *fakeAPI) ListBindings(_ context.Context, req *adminv1.ListBindingsRequest) (*adminv1.ListBindingsResponse, error) {
	if req.GetNamespace() == "" {
		req.Namespace = "any"
	}
	return &adminv1.ListBindingsResponse{Bindings: []*adminv1.Binding{
		{Subject: "group/devs", Role: "viewer", Namespace: req.GetNamespace(), CreatedBy: "user/root", CreateTime: timestamp(2026)},
	}}, nil
}

func (api *fakeAPI) CreateBinding(_ context.Context, req *adminv1.CreateBindingRequest) (*adminv1.CreateBindingResponse, error) {
	if req.GetBinding().GetRole() == "admin" {
		return nil, connect.NewError(connect.CodePermissionDenied, "nobody grants more than they hold")
	}
	return &adminv1.CreateBindingResponse{Binding: req.GetBinding()}, nil
}

func (api *fakeAPI) DeleteBinding(_ context.Context, req *adminv1.DeleteBindingRequest) (*adminv1.DeleteBindingResponse, error) {
	if req.GetBinding().GetNamespace() != "*" {
		return nil, connect.NewError(connect.CodeNotFound, "it was not given in "+req.GetBinding().GetNamespace())
	}
	return &adminv1.DeleteBindingResponse{}, nil
}

func (api *fakeAPI) ReviewAccess(context.Context, *adminv1.ReviewAccessRequest) (*adminv1.ReviewAccessResponse, error) {
	return &adminv1.ReviewAccessResponse{Entries: []*adminv1.AccessEntry{
		{Subject: "user/a,b", Kind: "binding", Role: "viewer", Namespace: "*", Permissions: []string{"jobs.read", "logs.read"}, CreatedBy: "=cmd()", CreateTime: timestamp(2026)},
		{Subject: "user/ci", Kind: "api-token", Credential: "tok_1", ExpireTime: timestamp(2099), LastUseTime: timestamp(2026)},
	}}, nil
}

func (api *fakeAPI) ListLoginRequests(context.Context, *adminv1.ListLoginRequestsRequest) (*adminv1.ListLoginRequestsResponse, error) {
	return &adminv1.ListLoginRequestsResponse{Requests: []*adminv1.LoginRequest{
		{Code: "ABCD-EFGH", User: "ada\x1b]0;title\a\u202e", Address: "192.0.2.1", ExpireTime: timestamp(2099)},
	}}, nil
}

func (api *fakeAPI) ApproveLogin(_ context.Context, req *adminv1.ApproveLoginRequest) (*adminv1.ApproveLoginResponse, error) {
	if req.GetCode() != "ABCD-EFGH" {
		return nil, connect.NewError(connect.CodeNotFound, "nobody waits with that code")
	}
	return &adminv1.ApproveLoginResponse{Login: &adminv1.Login{Id: "lgn_1", User: "ada", ExpireTime: timestamp(2099)}}, nil
}

func (api *fakeAPI) ListLogins(context.Context, *adminv1.ListLoginsRequest) (*adminv1.ListLoginsResponse, error) {
	return &adminv1.ListLoginsResponse{Logins: []*adminv1.Login{{Id: "lgn_1", User: "ada", By: "oidc", CreateTime: timestamp(2026), ExpireTime: timestamp(2099)}}}, nil
}

func (api *fakeAPI) Revoke(_ context.Context, req *adminv1.RevokeRequest) (*adminv1.RevokeResponse, error) {
	return &adminv1.RevokeResponse{Revocation: &adminv1.Revocation{Subject: req.GetSubject(), Reason: req.GetReason()}}, nil
}

func (api *fakeAPI) ListRevocations(context.Context, *adminv1.ListRevocationsRequest) (*adminv1.ListRevocationsResponse, error) {
	return &adminv1.ListRevocationsResponse{Revocations: []*adminv1.Revocation{
		{Subject: "user/eve", Reason: "left", RevokedBy: "user/root", RevokeTime: timestamp(2026)},
	}}, nil
}

func (api *fakeAPI) ListAuditRecords(_ context.Context, req *adminv1.ListAuditRecordsRequest) (*adminv1.ListAuditRecordsResponse, error) {
	return &adminv1.ListAuditRecordsResponse{Records: []*adminv1.AuditRecord{{
		Sequence: "7", Time: timestamp(2026), Actor: "anonymous", Action: req.GetAction(), Namespace: req.GetNamespace(), Targets: []string{"job_1", "job_2"},
		Outcome: "denied", Reason: "no proof\nFORGED LINE", Address: "192.0.2.1",
	}}}, nil
}

// ExportAuditRecords sends a line, unless it is asked to break in the middle.
func (api *fakeAPI) ExportAuditRecords(
	_ context.Context, req *adminv1.ExportAuditRecordsRequest, stream adminv1connect.AuditServiceExportAuditRecordsServerStream,
) error {
	line := `{"seq":5,"from":"` + req.GetFromSequence() + `"}` + "\n"
	if err := stream.Send(&adminv1.ExportAuditRecordsResponse{Lines: []byte(line)}); err != nil || req.GetFromSequence() != "666" {
		return err
	}
	return connect.NewError(connect.CodeInternal, "the store is damaged")
}

func (api *fakeAPI) GetAuditKey(context.Context, *adminv1.GetAuditKeyRequest) (*adminv1.GetAuditKeyResponse, error) {
	return &adminv1.GetAuditKeyResponse{PublicKeyPem: "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"}, nil
}
