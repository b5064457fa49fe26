package hodei

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
)

// recorder is a server without a wire: it remembers calls, and answers with what the test has put there.
type recorder struct {
	calls  []string
	answer func(method string, n int) (proto.Message, error) // nil: nothing is set; n counts the calls from 1
}

func (r *recorder) client() *Client {
	client := connect.NewClient(r)
	c := &Client{transport: new(transport), config: Config{Namespace: "mine"}}
	c.Raw = Raw{
		Auth: hodeiv1connect.NewAuthServiceClient(client), Tokens: adminv1connect.NewTokenServiceClient(client),
		Access: adminv1connect.NewAccessServiceClient(client), Logins: adminv1connect.NewLoginServiceClient(client),
		Authority: adminv1connect.NewAuthorityServiceClient(client), Audit: adminv1connect.NewAuditServiceClient(client),
	}
	return c
}

// NewClientStream implements connect.Transport.
func (r *recorder) NewClientStream(_ context.Context, spec connect.Spec) (connect.ClientStream, error) {
	return &recordedStream{recorder: r, method: path.Base(spec.Procedure)}, nil
}

type recordedStream struct {
	connect.ClientStream
	recorder *recorder
	method   string
	received bool
}

func (s *recordedStream) Send(msg any) error {
	text, err := protojson.Marshal(msg.(proto.Message))
	s.recorder.calls = append(s.recorder.calls, s.method+" "+strings.ReplaceAll(string(text), " ", ""))
	return err
}

func (s *recordedStream) Receive(dst any) error {
	if s.recorder.answer == nil || s.received {
		if s.received || s.method == "ExportAuditRecords" {
			return io.EOF
		}
		s.received = true
		return nil
	}
	s.received = true
	res, err := s.recorder.answer(s.method, len(s.recorder.calls))
	if res != nil {
		proto.Merge(dst.(proto.Message), res)
	}
	return err
}
func (s *recordedStream) CloseSend() error { return nil }
func (s *recordedStream) Close() error     { return nil }

// all reads what yields to the end.
func all[T any](seq func(yield func(T, error) bool)) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestMethodsAskForWhatTheySay(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for want, call := range map[string]func(c *Client) error{
		`WhoAmI {}`: func(c *Client) error { _, err := c.WhoAmI(ctx); return err },
		`CheckAccess {"permission":"jobs.submit","namespace":"mine"}`: func(c *Client) error {
			_, _, err := c.CheckAccess(ctx, "jobs.submit", "")
			return err
		},
		`CheckAccess {"permission":"jobs.submit","namespace":"*"}`: func(c *Client) error {
			_, _, err := c.CheckAccess(ctx, "jobs.submit", "*")
			return err
		},
		`ListRoles {}`: func(c *Client) error { _, err := c.Roles(ctx); return err },
		`SetRole {"role":{"name":"r","permissions":["jobs.read"]}}`: func(c *Client) error {
			_, err := c.SetRole(ctx, &adminv1.Role{Name: "r", Permissions: []string{"jobs.read"}})
			return err
		},
		`DeleteRole {"name":"r"}`:          func(c *Client) error { return c.DeleteRole(ctx, "r") },
		`ListBindings {"pageSize":500}`:    func(c *Client) error { return all(c.Bindings(ctx, "")) },
		`ReviewAccess {"pageSize":500}`:    func(c *Client) error { return all(c.ReviewAccess(ctx)) },
		`ListTokens {"pageSize":500}`:      func(c *Client) error { return all(c.Tokens(ctx)) },
		`ListLogins {"pageSize":500}`:      func(c *Client) error { return all(c.Logins(ctx)) },
		`ListRevocations {"pageSize":500}`: func(c *Client) error { return all(c.Revocations(ctx)) },
		`CreateBinding {"binding":{"subject":"user/ada","role":"viewer","namespace":"mine"}}`: func(c *Client) error {
			_, err := c.CreateBinding(ctx, "user/ada", "viewer", "")
			return err
		},
		`DeleteBinding {"binding":{"subject":"user/ada","role":"viewer","namespace":"*"}}`: func(c *Client) error {
			return c.DeleteBinding(ctx, "user/ada", "viewer", "*")
		},
		`CreateApiToken {}`: func(c *Client) error { _, err := c.CreateAPIToken(ctx, APITokenOptions{}); return err },
		`CreateApiToken {"user":"ci","description":"d","ttl":"60s","grants":[{"role":"viewer","namespace":"web"}]}`: func(c *Client) error {
			_, err := c.CreateAPIToken(ctx, APITokenOptions{
				User: "ci", Description: "d", TTL: time.Minute, Grants: []*adminv1.TokenGrant{{Role: "viewer", Namespace: "web"}},
			})
			return err
		},
		`RevokeToken {"id":"tok_1"}`: func(c *Client) error { return c.RevokeToken(ctx, "tok_1") },
		`ListLoginRequests {}`:       func(c *Client) error { _, err := c.LoginRequests(ctx); return err },
		`ApproveLogin {"code":"X"}`:  func(c *Client) error { _, err := c.ApproveLogin(ctx, "X", 0); return err },
		`ApproveLogin {"code":"X","ttl":"3600s"}`: func(c *Client) error {
			_, err := c.ApproveLogin(ctx, "X", time.Hour)
			return err
		},
		`DenyLogin {"code":"X"}`: func(c *Client) error { return c.DenyLogin(ctx, "X") },
		`Revoke {"subject":"user/ada","reason":"left"}`: func(c *Client) error {
			_, err := c.Revoke(ctx, "user/ada", "left")
			return err
		},
		`Reinstate {"subject":"user/ada"}`: func(c *Client) error { return c.Reinstate(ctx, "user/ada") },
		`GetAuthority {}`:                  func(c *Client) error { _, err := c.Authority(ctx); return err },
		`RotateAuthority {}`:               func(c *Client) error { _, err := c.RotateAuthority(ctx); return err },
		`RetireAuthority {"force":true}`:   func(c *Client) error { _, err := c.RetireAuthority(ctx, true); return err },
		`GetAuditKey {}`:                   func(c *Client) error { _, err := c.AuditKey(ctx); return err },
		`ListAuditRecords {"namespace":"mine","actor":"user/ada","pageSize":500}`: func(c *Client) error {
			return all(c.AuditRecords(ctx, &adminv1.ListAuditRecordsRequest{Actor: "user/ada"}))
		},
		`ListAuditRecords {"namespace":"*","pageSize":5}`: func(c *Client) error {
			return all(c.AuditRecords(ctx, &adminv1.ListAuditRecordsRequest{Namespace: "*", PageSize: 5}))
		},
		`ExportAuditRecords {}`:                    func(c *Client) error { return c.ExportAudit(ctx, 0, io.Discard) },
		`ExportAuditRecords {"fromSequence":"17"}`: func(c *Client) error { return c.ExportAudit(ctx, 17, io.Discard) },
	} {
		r := new(recorder)
		if err := call(r.client()); err != nil || !slices.Equal(r.calls, []string{want}) {
			t.Errorf("got %v, %v; want %s", r.calls, err, want)
		}
	}
}

// What may have been done although it failed is not done again; the rest is.
func TestOnlyWhatMayBeRepeatedIsRepeated(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, c := range map[string]struct {
		call func(c *Client) error
		want int
	}{
		"SetRole":         {func(c *Client) error { _, err := c.SetRole(ctx, nil); return err }, 2},
		"CreateBinding":   {func(c *Client) error { _, err := c.CreateBinding(ctx, "user/ada", "viewer", ""); return err }, 2},
		"Revoke":          {func(c *Client) error { _, err := c.Revoke(ctx, "user/ada", ""); return err }, 2},
		"CreateAPIToken":  {func(c *Client) error { _, err := c.CreateAPIToken(ctx, APITokenOptions{}); return err }, 1},
		"RotateAuthority": {func(c *Client) error { _, err := c.RotateAuthority(ctx); return err }, 1},
		"ApproveLogin":    {func(c *Client) error { _, err := c.ApproveLogin(ctx, "X", 0); return err }, 1},
		"RevokeToken":     {func(c *Client) error { return c.RevokeToken(ctx, "tok_1") }, 1},
	} {
		r := &recorder{answer: func(_ string, n int) (proto.Message, error) {
			if n == 1 {
				return nil, connect.NewError(connect.CodeUnavailable, "the server stops").WithRemote()
			}
			return nil, nil
		}}
		err := c.call(r.client())
		if len(r.calls) != c.want || errors.Is(err, ErrUnavailable) != (c.want == 1) {
			t.Errorf("%s: %d calls, %v", name, len(r.calls), err)
		}
	}
}

func TestListsAreReadPageAfterPage(t *testing.T) {
	t.Parallel()
	three := func(_ string, n int) (proto.Message, error) {
		res := &adminv1.ListTokensResponse{Tokens: []*adminv1.Token{{Id: fmt.Sprint("a", n)}, {Id: fmt.Sprint("b", n)}}}
		if n < 3 {
			res.NextPageToken = fmt.Sprint("page", n+1)
		}
		return res, nil
	}
	for name, c := range map[string]struct {
		answer func(string, int) (proto.Message, error)
		stopAt string
		want   string
		calls  int
	}{
		"to the end":      {three, "", "a1 b1 a2 b2 a3 b3", 3},
		"to the wish":     {three, "a2", "a1 b1 a2", 2},
		"until it fails":  {failsAt(2, three), "", "a1 b1 <nil>: no more", 2},
		"none at all":     {func(string, int) (proto.Message, error) { return nil, nil }, "", "", 1},
		"an empty page":   {func(_ string, n int) (proto.Message, error) { return emptyPage(n), nil }, "", "x", 2},
		"fails at first":  {failsAt(1, three), "", "<nil>: no more", 1},
		"the first alone": {three, "a1", "a1", 1},
	} {
		r := &recorder{answer: c.answer}
		var got []string
		for token, err := range r.client().Tokens(t.Context()) {
			switch {
			case err != nil:
				got = append(got, fmt.Sprintf("<nil>: %v", err))
				if token != nil {
					t.Errorf("%s: an error comes with a token", name)
				}
			default:
				got = append(got, token.GetId())
			}
			if token.GetId() == c.stopAt && c.stopAt != "" {
				break
			}
		}
		if strings.Join(got, " ") != c.want || len(r.calls) != c.calls {
			t.Errorf("%s: got %v by %v", name, got, r.calls)
		}
	}
}

func failsAt(call int, otherwise func(string, int) (proto.Message, error)) func(string, int) (proto.Message, error) {
	return func(method string, n int) (proto.Message, error) {
		if n == call {
			return nil, connect.NewError(connect.CodePermissionDenied, "no more").WithRemote()
		}
		return otherwise(method, n)
	}
}

func emptyPage(n int) proto.Message {
	if n == 1 {
		return &adminv1.ListTokensResponse{NextPageToken: "page2"}
	}
	return &adminv1.ListTokensResponse{Tokens: []*adminv1.Token{{Id: "x"}}}
}

func TestExportStopsAtWhatCannotBeRight(t *testing.T) {
	t.Parallel()
	for lines, want := range map[string]string{
		`{"seq":1}`:               "a part of a line",
		"":                        "a part of a line",
		"{\"seq\":1}\nnonsense\n": "without the number",
		"{\"seq\":-1}\n":          "without the number",
		"{}\n":                    "without the number",
	} {
		r := &recorder{answer: func(string, int) (proto.Message, error) {
			return &adminv1.ExportAuditRecordsResponse{Lines: []byte(lines)}, nil
		}}
		if err := r.client().ExportAudit(t.Context(), 0, io.Discard); err == nil || !strings.Contains(err.Error(), want) || len(r.calls) != 1 {
			t.Errorf("%q: %v after %d calls", lines, err, len(r.calls))
		}
	}
	full := errors.New("the disk is full")
	r := &recorder{answer: func(string, int) (proto.Message, error) {
		return &adminv1.ExportAuditRecordsResponse{Lines: []byte("{\"seq\":1}\n")}, nil
	}}
	if err := r.client().ExportAudit(t.Context(), 0, failingWriter{full}); !errors.Is(err, full) || len(r.calls) != 1 {
		t.Errorf("got %v after %d calls", err, len(r.calls))
	}
	var out bytes.Buffer
	if err := r.client().ExportAudit(t.Context(), 0, &out); err != nil || out.String() != "{\"seq\":1}\n" {
		t.Errorf("wrote %q, %v", out.String(), err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestCheckAccessReturnsTheReason(t *testing.T) {
	t.Parallel()
	r := &recorder{answer: func(string, int) (proto.Message, error) {
		return &hodeiv1.CheckAccessResponse{Allowed: true, Reason: "by viewer"}, nil
	}}
	if allowed, reason, err := r.client().CheckAccess(t.Context(), "jobs.read", ""); !allowed || reason != "by viewer" || err != nil {
		t.Errorf("got %t, %q, %v", allowed, reason, err)
	}
}
