package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

func newCSR(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// journey makes one change after the other, as an administrator.
type journey struct {
	*world
	t       *testing.T
	token   string
	covered map[string]bool
}

// change makes a call that changes something, and expects one record of it, and returns the answer.
func change[T proto.Message](j *journey, procedure string, request proto.Message, namespace, target string) T {
	j.t.Helper()
	j.covered[procedure] = true
	before := len(j.trail(j.t))
	answers, err := j.call(j.t.Context(), j.token, procedure, request)
	if err != nil {
		j.t.Fatalf("%s: %v", procedure, err)
	}
	records := j.trail(j.t)[before:]
	if len(records) != 1 {
		j.t.Fatalf("%s left %d records: %v", procedure, len(records), records)
	}
	r := records[0]
	if r.Action != strings.TrimPrefix(procedure, "/") || r.Outcome != chain.OK || r.Namespace != namespace || r.Address != "192.0.2.1" {
		j.t.Errorf("%s: %+v", procedure, r)
	}
	if target != "" && !slices.Contains(r.Targets, target) {
		j.t.Errorf("%s names %q, not %q", procedure, r.Targets, target)
	}
	return answers[0].(T) //nolint:forcetypeassert // the caller knows
}

// Each method that changes something leaves one record, in the commit of the change; what changes nothing leaves none.
func TestEveryChangeLeavesOneRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	j := &journey{w, t, w.token(t, identity.Administrator), map[string]bool{}}
	const jobs, queues, secrets = "/hodei.v1.JobService/", "/hodei.v1.QueueService/", "/hodei.v1.SecretService/"
	const tokens, roles, logins = "/hodei.admin.v1.TokenService/", "/hodei.admin.v1.AccessService/", "/hodei.admin.v1.LoginService/"

	spec := newSpec(func(s *hodeiv1.JobSpec) { s.Namespace = "a" })
	submitted := change[*hodeiv1.SubmitJobResponse](j, jobs+"SubmitJob", &hodeiv1.SubmitJobRequest{Spec: spec, RequestId: "one"}, "a", "")
	id := submitted.GetJob().GetId()
	if last := w.trail(t)[0]; !slices.Equal(last.Targets, []string{id}) {
		t.Errorf("the record of a submit names %q", last.Targets)
	}
	many := &hodeiv1.SubmitJobsRequest{}
	for range 100 {
		many.Requests = append(many.Requests, &hodeiv1.SubmitJobRequest{Spec: spec})
	}
	results := change[*hodeiv1.SubmitJobsResponse](j, jobs+"SubmitJobs", many, "a", "")
	last := w.trail(t)[1]
	if want := []string{results.GetResults()[0].GetJobId(), results.GetResults()[99].GetJobId()}; !slices.Equal(last.Targets, want) || last.Details["first and last of"] != "100" {
		t.Errorf("the record of many: %+v", last)
	}
	change[*hodeiv1.CancelJobResponse](j, jobs+"CancelJob", &hodeiv1.CancelJobRequest{Id: id}, "a", id)
	w.unchanged(t, j.token, jobs+"SubmitJob", &hodeiv1.SubmitJobRequest{Spec: spec, RequestId: "one"}, nil)
	w.unchanged(t, j.token, jobs+"SubmitJob", &hodeiv1.SubmitJobRequest{Spec: spec, ValidateOnly: true}, nil)
	w.unchanged(t, j.token, jobs+"GetJob", &hodeiv1.GetJobRequest{Id: id}, nil)
	w.unchanged(t, j.token, jobs+"CancelJob", &hodeiv1.CancelJobRequest{Id: id}, connect.NewError(connect.CodeFailedPrecondition, ""))

	queue := &hodeiv1.Queue{Namespace: "a", Name: "q"}
	change[*hodeiv1.SetQueueResponse](j, queues+"SetQueue", &hodeiv1.SetQueueRequest{Queue: queue}, "a", "queue/q")
	change[*hodeiv1.PauseQueueResponse](j, queues+"PauseQueue", &hodeiv1.PauseQueueRequest{Namespace: "a", Name: "q"}, "a", "queue/q")
	change[*hodeiv1.ResumeQueueResponse](j, queues+"ResumeQueue", &hodeiv1.ResumeQueueRequest{Namespace: "a", Name: "q"}, "a", "queue/q")
	change[*hodeiv1.DeleteQueueResponse](j, queues+"DeleteQueue", &hodeiv1.DeleteQueueRequest{Namespace: "a", Name: "q"}, "a", "queue/q")
	change[*hodeiv1.SetNamespaceResponse](j, queues+"SetNamespace",
		&hodeiv1.SetNamespaceRequest{Namespace: &hodeiv1.Namespace{Name: "a"}}, "", "namespace/a")
	change[*hodeiv1.DeleteNamespaceResponse](j, queues+"DeleteNamespace", &hodeiv1.DeleteNamespaceRequest{Name: "a"}, "", "namespace/a")
	change[*hodeiv1.SetSecretResponse](j, secrets+"SetSecret",
		&hodeiv1.SetSecretRequest{Namespace: "a", Name: "S", Value: []byte("tell nobody")}, "a", "secret/S")
	change[*hodeiv1.DeleteSecretResponse](j, secrets+"DeleteSecret", &hodeiv1.DeleteSecretRequest{Namespace: "a", Name: "S"}, "a", "secret/S")
	for _, r := range w.trail(t) {
		if strings.Contains(strings.Join(r.Targets, " ")+r.Reason, "tell nobody") {
			t.Error("a secret is in the trail")
		}
	}
	if _, err := w.config.Jobs.Connect(t.Context(), job.Worker{ID: "wkr_1", Name: "w", Session: 1, Slots: 1}, nil, false); err != nil {
		t.Fatal(err)
	}
	change[*hodeiv1.DrainWorkerResponse](j, "/hodei.v1.WorkerService/DrainWorker", &hodeiv1.DrainWorkerRequest{Id: "w"}, "", "wkr_1")
	change[*adminv1.SetLogRetentionResponse](j, "/hodei.admin.v1.RetentionService/SetLogRetention",
		&adminv1.SetLogRetentionRequest{Retention: &adminv1.LogRetention{Namespace: "a", MaxMib: 1}}, "", "namespace/a")

	j.credentials(tokens, logins)

	role := &adminv1.Role{Name: "runner", Permissions: []string{"jobs.submit"}}
	binding := &adminv1.Binding{Subject: "user/ada", Role: "runner", Namespace: "a"}
	change[*adminv1.SetRoleResponse](j, roles+"SetRole", &adminv1.SetRoleRequest{Role: role}, "", "role/runner")
	change[*adminv1.CreateBindingResponse](j, roles+"CreateBinding", &adminv1.CreateBindingRequest{Binding: binding}, "a", "user/ada")
	w.unchanged(t, j.token, roles+"CreateBinding", &adminv1.CreateBindingRequest{Binding: binding}, nil)
	change[*adminv1.DeleteBindingResponse](j, roles+"DeleteBinding", &adminv1.DeleteBindingRequest{Binding: binding}, "a", "user/ada")
	change[*adminv1.DeleteRoleResponse](j, roles+"DeleteRole", &adminv1.DeleteRoleRequest{Name: "runner"}, "", "role/runner")
	rotated := change[*adminv1.RotateAuthorityResponse](j, "/hodei.admin.v1.AuthorityService/RotateAuthority", &adminv1.RotateAuthorityRequest{}, "", "")
	if len(rotated.GetAuthority().GetRoots()) != 2 {
		t.Errorf("after a rotation: %v", rotated)
	}
	change[*adminv1.RetireAuthorityResponse](j, "/hodei.admin.v1.AuthorityService/RetireAuthority", &adminv1.RetireAuthorityRequest{}, "", "")

	// Those that this test leaves to others: a job must be held to be released, and two need a certificate.
	elsewhere := []string{jobs + "ReleaseJob", "/hodei.v1.AuthService/RenewCertificate", "/hodei.v1.AuthService/Logout"}
	for _, m := range userMethods(t) {
		r, err := ruleOf(connect.Spec{Procedure: procedureOf(m), Schema: m})
		if err != nil {
			t.Fatal(err)
		}
		if !r.reads && !j.covered[procedureOf(m)] && !slices.Contains(elsewhere, procedureOf(m)) && r.action != "hodei.v1.AuthService/GetLoginOptions" &&
			r.action != "hodei.v1.AuthService/CollectLogin" {
			t.Errorf("%s changes something and is not tried here", procedureOf(m))
		}
	}
}

// unchanged makes a call that changes nothing, and expects no record of it.
func (w *world) unchanged(t *testing.T, token, procedure string, request proto.Message, want *connect.Error) {
	t.Helper()
	before := len(w.trail(t))
	_, err := w.call(t.Context(), token, procedure, request)
	if want == nil && err != nil || want != nil && connect.CodeOf(err) != want.Code() {
		t.Errorf("%s: %v", procedure, err)
	}
	if more := w.trail(t)[before:]; len(more) != 0 {
		t.Errorf("%s left %v", procedure, more)
	}
}

// credentials is the part of the journey with tokens and logins.
func (j *journey) credentials(tokens, logins string) {
	t := j.t
	agents := change[*adminv1.CreateTokenResponse](j, tokens+"CreateToken", &adminv1.CreateTokenRequest{}, "", "")
	change[*adminv1.RevokeTokenResponse](j, tokens+"RevokeToken", &adminv1.RevokeTokenRequest{Id: agents.GetId()}, "", "token/"+agents.GetId())
	created := change[*adminv1.CreateApiTokenResponse](j, tokens+"CreateApiToken", &adminv1.CreateApiTokenRequest{User: "ci"}, "", "user/ci")
	auth := "/hodei.v1.AuthService/"
	exchange := &hodeiv1.ExchangeTokenRequest{Proof: &hodeiv1.ExchangeTokenRequest_ApiToken{ApiToken: created.GetSecret()}}
	j.unchanged(t, "", auth+"ExchangeToken", exchange, nil) // an access token is kept by nobody
	exchange.CsrDer = newCSR(t)
	j.token, exchange = "", proto.Clone(exchange).(*hodeiv1.ExchangeTokenRequest) //nolint:forcetypeassert // it is one
	began := change[*hodeiv1.ExchangeTokenResponse](j, auth+"ExchangeToken", exchange, "", "")
	last := j.trail(t)
	if r := last[len(last)-1]; r.Actor != "user/ci" || r.Credential != "token:"+created.GetToken().GetId() {
		t.Errorf("the record of a login: %+v", r)
	}
	asked := change[*hodeiv1.RequestLoginResponse](j, auth+"RequestLogin", &hodeiv1.RequestLoginRequest{User: "eve", CsrDer: newCSR(t)}, "", "user/eve")
	other := change[*hodeiv1.RequestLoginResponse](j, auth+"RequestLogin", &hodeiv1.RequestLoginRequest{User: "bob", CsrDer: newCSR(t)}, "", "user/bob")
	j.token = j.world.token(t, identity.Administrator)
	change[*adminv1.DenyLoginResponse](j, logins+"DenyLogin", &adminv1.DenyLoginRequest{Code: asked.GetCode()}, "", "")
	change[*adminv1.ApproveLoginResponse](j, logins+"ApproveLogin", &adminv1.ApproveLoginRequest{Code: other.GetCode()}, "", "user/bob")
	subject := "login/" + began.GetCertificate().GetLoginId()
	change[*adminv1.RevokeResponse](j, logins+"Revoke", &adminv1.RevokeRequest{Subject: subject}, "", subject)
	j.unchanged(t, j.token, logins+"Revoke", &adminv1.RevokeRequest{Subject: subject}, nil)
	change[*adminv1.ReinstateResponse](j, logins+"Reinstate", &adminv1.ReinstateRequest{Subject: subject}, "", subject)
	change[*adminv1.RevokeTokenResponse](j, tokens+"RevokeToken", &adminv1.RevokeTokenRequest{Id: created.GetToken().GetId()}, "", "")
}
