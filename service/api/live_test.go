package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

var admin = &access.Caller{Subjects: []string{access.Administrator}}

// waiting is a job of a namespace that nobody runs.
func (n *network) waiting(namespace string) string {
	n.t.Helper()
	results, err := n.config.Jobs.Submit(n.t.Context(), orchestrator.Submission{Specs: []job.Spec{{
		Namespace: namespace, Steps: []job.Step{{Argv: []string{"true"}}}, Constraints: []job.Constraint{{Label: "nobody", Operator: job.OperatorExists}},
	}}})
	if err != nil || results[0].Err != nil {
		n.t.Fatal(err, results)
	}
	return results[0].Job.ID.String()
}

// denials counts the records of what was denied.
func (n *network) denials() (count int) {
	n.t.Helper()
	for _, r := range n.trail(n.t) {
		if r.Outcome == chain.Denied {
			count++
		}
	}
	return count
}

// endsAt checks that streams end at a moment, and not a second earlier, and that each leaves a record of it.
func (n *network) endsAt(at time.Time, code connect.Code, streams ...*follower) {
	n.t.Helper()
	before := n.denials()
	time.Sleep(time.Until(at) - time.Second)
	for _, f := range streams {
		if f.over() {
			n.t.Fatalf("%s ended at %v with %v, before %v", f.name, f.at, f.err, at)
		}
	}
	time.Sleep(time.Second)
	for _, f := range streams {
		if !f.over() || !f.at.Equal(at) || connect.CodeOf(f.err) != code {
			n.t.Errorf("%s: over %v, at %v with %v; want %v with %v", f.name, f.over(), f.at, f.err, at, code)
		}
	}
	if got := n.denials() - before; got != len(streams) {
		n.t.Errorf("%d streams were cut, and %d records say so", len(streams), got)
	}
}

// A stream lasts for as long as what its caller has proved their identity by, and half a minute, whatever that is.
func TestStreamsEndWithTheProof(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		id := n.waiting("default")
		n.grant(t, "user/ada", "viewer", "default")
		agent, agentsToken := n.session("agent", n.agentCertificate(24*time.Hour))
		token, expires, err := n.config.AccessTokens.Issue(identity.Principal{Kind: identity.User, Name: "ada"}, identity.Fingerprint{}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		byToken := []*follower{n.watch("watch by token", nil, token, "default"), n.tail("tail by token", nil, token, id)}
		certificate := n.userCertificate("ada", time.Hour)
		byCertificate := []*follower{n.watch("watch by certificate", certificate, "", "default"), n.tail("tail by certificate", certificate, "", id)}
		time.Sleep(time.Second) // so that what is next was opened later, and ends at the same time
		byToken = append(byToken, n.watch("a later watch", nil, token, "default"))

		if !agentsToken.Equal(expires) || time.Until(expires) > identity.AccessTokenLife {
			t.Fatalf("tokens end at %v and %v, and it is %v", agentsToken, expires, time.Now())
		}
		n.endsAt(expires.Add(identity.ClockSkew), connect.CodeUnauthenticated, append(byToken, agent)...)
		n.endsAt(certificate.Leaf.NotAfter.Add(identity.ClockSkew), connect.CodeUnauthenticated, byCertificate...)
	})
}

// An agent that asks for tokens in time keeps its stream, but not for longer than the certificate of the connection is good.
func TestTokensExtendAnAgentsStreamToTheEndOfItsCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		certificate := n.agentCertificate(40 * time.Minute)
		lazy, lazysToken := n.session("an agent that asks once", n.agentCertificate(24*time.Hour))
		agent, _ := n.session("an agent that asks in time", certificate)
		ask := func(f *follower) {
			t.Helper()
			if err := f.agent.Send(&hwpv1.ConnectRequest{Messages: []*hwpv1.AgentMessage{
				{Payload: &hwpv1.AgentMessage_TokenRequest{TokenRequest: &hwpv1.TokenRequest{}}},
			}}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(10 * time.Minute)
		ask(lazy)
		for range 3 {
			ask(agent)
			time.Sleep(9 * time.Minute)
		}
		n.endsAt(certificate.Leaf.NotAfter.Add(identity.ClockSkew), connect.CodeUnauthenticated, agent)
		if want := lazysToken.Add(10*time.Minute + identity.ClockSkew); !lazy.over() || !lazy.at.Equal(want) {
			t.Errorf("after one more token a stream ended at %v, want %v", lazy.at, want)
		}
	})
}

// An API token that has come to its end takes the streams with it that it was exchanged for, when the server next looks.
func TestStreamsEndWithTheAPIToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- n.config.Credentials.Run(ctx) }()
		defer func() { stop(); <-ended }()
		n.grant(t, "user/ada", "viewer", "default")
		short, _ := n.apiToken("ada", 5*time.Minute)
		long, _ := n.apiToken("ada", time.Hour)
		ends, goesOn := n.watch("of the short one", nil, short, "default"), n.watch("of the long one", nil, long, "default")
		time.Sleep(6 * time.Minute)
		if !ends.over() || connect.CodeOf(ends.err) != connect.CodeUnauthenticated || goesOn.over() {
			t.Errorf("%s: %v with %v; %s: %v with %v", ends.name, ends.over(), ends.err, goesOn.name, goesOn.over(), goesOn.err)
		}
	})
}

// apiToken makes an API token, and returns an access token for it and its id.
func (n *network) apiToken(user string, ttl time.Duration) (token, id string) {
	n.t.Helper()
	_, secret, err := n.config.Credentials.CreateAPIToken(n.t.Context(), identity.APIToken{User: user}, ttl)
	if err != nil {
		n.t.Fatal(err)
	}
	p, stored, err := n.config.Credentials.RedeemAPIToken(secret)
	if err == nil {
		token, _, err = n.config.AccessTokens.Issue(p, identity.Fingerprint{}, time.Time{})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return token, stored.ID
}

// cutting is something that ends streams: it opens them, and returns how they are to be cut.
type cutting struct {
	code connect.Code
	open func(n *network) (streams []*follower, cut func(ctx context.Context) error)
}

func (n *network) revokes(subject string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := n.config.Credentials.Revoke(ctx, subject, "test", "user/admin")
		return err
	}
}

// unbinds takes a role away from ada.
func (n *network) unbinds(role, namespace string) func(context.Context) error {
	return func(ctx context.Context) error {
		return n.config.Access.DeleteBinding(ctx, admin, access.Binding{Subject: "user/ada", Role: role, Namespace: namespace})
	}
}

var cuttings = map[string]cutting{
	"a user is revoked": {connect.CodeUnauthenticated, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		token := n.token(n.t, "ada")
		return []*follower{
			n.watch("watch", nil, token, "default"), n.tail("tail", nil, token, n.waiting("default")),
			n.watch("watch by certificate", n.userCertificate("ada", time.Hour), "", "default"),
		}, n.revokes("user/ada")
	}},
	"an agent is revoked": {connect.CodeUnauthenticated, func(n *network) ([]*follower, func(context.Context) error) {
		certificate := n.agentCertificate(time.Hour)
		f, _ := n.session("agent", certificate)
		return []*follower{f}, n.revokes("agent/" + certificate.Leaf.Subject.CommonName)
	}},
	"a certificate is revoked": {connect.CodeUnauthenticated, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		certificate := n.userCertificate("ada", time.Hour)
		bound, _, err := n.config.AccessTokens.Issue(identity.Principal{Kind: identity.User, Name: "ada"}, identity.FingerprintOf(certificate.Leaf), time.Time{})
		if err != nil {
			n.t.Fatal(err)
		}
		return []*follower{n.watch("by certificate", certificate, "", "default"), n.watch("by a token on its connection", certificate, bound, "default")},
			n.revokes(identity.CertificateSubject(identity.FingerprintOf(certificate.Leaf)))
	}},
	"an API token is revoked": {connect.CodeUnauthenticated, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		token, id := n.apiToken("ada", time.Hour)
		return []*follower{n.watch("watch", nil, token, "default")}, func(ctx context.Context) error { return n.config.Credentials.RevokeAPIToken(ctx, id) }
	}},
	"an API token is revoked by its name": {connect.CodeUnauthenticated, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		token, id := n.apiToken("ada", time.Hour)
		return []*follower{n.watch("watch", nil, token, "default")}, n.revokes("token/" + id)
	}},
	"a login is ended": {connect.CodeUnauthenticated, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		certificate, id := n.login("ada")
		return []*follower{n.watch("watch", certificate, "", "default")}, func(ctx context.Context) error { return n.config.Credentials.EndLogin(ctx, id) }
	}},
	"a login is revoked": {connect.CodeUnauthenticated, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		certificate, id := n.login("ada")
		return []*follower{n.watch("watch", certificate, "", "default")}, n.revokes("login/" + id)
	}},
	"a role is taken away": {connect.CodePermissionDenied, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		token := n.token(n.t, "ada")
		return []*follower{n.watch("watch", nil, token, "default"), n.tail("tail", nil, token, n.waiting("default")), n.watch("of all", nil, token, "*")},
			n.unbinds("viewer", "default")
	}},
	"a role is taken away in one of two namespaces": {connect.CodePermissionDenied, func(n *network) ([]*follower, func(context.Context) error) {
		n.grant(n.t, "user/ada", "viewer", "default")
		n.grant(n.t, "user/ada", "viewer", "second")
		token := n.token(n.t, "ada")
		n.watch("of the first one", nil, token, "default")
		n.tail("of the first one", nil, token, n.waiting("default"))
		return []*follower{n.watch("of the second one", nil, token, "second"), n.tail("of the second one", nil, token, n.waiting("second")), n.watch("of all", nil, token, "*")},
			n.unbinds("viewer", "second")
	}},
	"a role loses a permission": {connect.CodePermissionDenied, func(n *network) ([]*follower, func(context.Context) error) {
		set := func(ctx context.Context, permissions ...string) error {
			_, err := n.config.Access.SetRole(ctx, admin, access.Role{Name: "reader", Permissions: permissions})
			return err
		}
		if err := set(n.t.Context(), "jobs.read", "logs.read"); err != nil {
			n.t.Fatal(err)
		}
		n.grant(n.t, "user/ada", "reader", "default")
		token := n.token(n.t, "ada")
		n.watch("what is left", nil, token, "default")
		return []*follower{n.tail("tail", nil, token, n.waiting("default"))}, func(ctx context.Context) error { return set(ctx, "jobs.read") }
	}},
}

// login begins a login of a user, and returns its certificate and id.
func (n *network) login(user string) (certificate *tls.Certificate, id string) {
	n.t.Helper()
	certificate = n.certificate(func(csr []byte) (identity.Issued, error) {
		begun, err := n.config.Credentials.BeginLogin(n.t.Context(), identity.Principal{Kind: identity.User, Name: user}, csr)
		id = begun.Login.ID
		return begun.Issued, err
	})
	return certificate, id
}

// What is revoked or taken away cuts the streams that it let in, at once, and no others. Each is told why, and leaves one record.
func TestRevocationsCutTheirStreamsAndNoOthers(t *testing.T) {
	t.Parallel()
	for name, c := range cuttings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(t)
				n.grant(t, "user/bob", "viewer", "default")
				n.grant(t, "user/bob", "viewer", "second")
				bob, certificate := n.token(t, "bob"), n.userCertificate("bob", time.Hour)
				var others []*follower
				for i := range 4 {
					namespace := [...]string{"default", "second", "*", "default"}[i]
					others = append(others, n.watch(fmt.Sprint("by token ", i), nil, bob, namespace), n.watch(fmt.Sprint("by certificate ", i), certificate, "", namespace))
				}
				agent, _ := n.session("another agent", n.agentCertificate(time.Hour))
				others = append(others, n.tail("tail", nil, bob, n.waiting("second")), agent)

				streams, cut := c.open(n)
				for _, f := range streams {
					if f.over() {
						t.Fatalf("%s ended with %v before anything was taken away", f.name, f.err)
					}
				}
				denied, begin, open := n.denials(), time.Now(), n.open()
				if err := cut(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, f := range streams {
					if !f.over() || connect.CodeOf(f.err) != c.code || !f.at.Equal(begin) {
						t.Errorf("%s: over %v after %v with %v", f.name, f.over(), f.at.Sub(begin), f.err)
					}
				}
				for _, f := range others {
					if f.over() {
						t.Errorf("%s of somebody else ended with %v", f.name, f.err)
					}
				}
				if got := open - n.open(); got != len(streams) {
					t.Errorf("%d streams were cut instead of %d", got, len(streams))
				}
				if got := n.denials() - denied; got != len(streams) {
					t.Errorf("%d streams were cut, and %d records say so", len(streams), got)
				}
			})
		})
	}
}

// open is how many streams are open.
func (n *network) open() int {
	synctest.Wait()
	n.gate.live.mu.Lock()
	defer n.gate.live.mu.Unlock()
	return len(n.gate.live.calls)
}

// A certificate that is revoked opens no connection from that moment on, also for a client that keeps TLS sessions to resume, and its open
// connection is of no use.
func TestRevokedCertificatesNeitherConnectNorResume(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		certificate := n.userCertificate("ada", time.Hour)
		cache := tls.NewLRUClientSessionCache(8)
		try := func(client *http.Client) error {
			t.Helper()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://localhost/hodei.v1.AuthService/WhoAmI", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			defer response.Body.Close()
			if response.TLS.DidResume {
				t.Error("a TLS session was resumed")
			}
			if response.StatusCode != http.StatusOK {
				return errors.New(response.Status)
			}
			return nil
		}
		open := n.client(certificate, cache)
		for _, client := range []*http.Client{open, n.client(certificate, cache)} {
			if err := try(client); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if err := n.revokes(identity.CertificateSubject(identity.FingerprintOf(certificate.Leaf)))(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := try(open); err == nil || err.Error() != "401 Unauthorized" {
			t.Errorf("the open connection gave %v", err)
		}
		for range 3 {
			if err := try(n.client(certificate, cache)); err == nil || !strings.HasPrefix(err.Error(), "Post ") { // there was an answer
				t.Errorf("a new connection gave %v", err)
			}
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %v until everything was refused", took)
		}
		if err := try(n.client(n.userCertificate("ada", time.Hour), cache)); err != nil {
			t.Errorf("another certificate of the same user gave %v", err)
		}
	})
}

// Who follows the log of a job that has ended without writing anything need not wait to be told.
func TestFollowersOfASilentJobWaitForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		id, err := job.ParseID(n.waiting("default"))
		if err != nil {
			t.Fatal(err)
		}
		n.grant(t, "user/ada", "viewer", "default")
		certificate := n.userCertificate("ada", time.Hour)
		early := n.tail("one that was there before", certificate, "", id.String())
		if early.over() {
			t.Errorf("a follower of a job that waits ended with %v", early.err)
		}
		if _, err := n.config.Jobs.Cancel(t.Context(), id, "", job.CancelRequest{}); err != nil {
			t.Fatal(err)
		}
		came := time.Now()
		if late := n.tail("one that came later", certificate, "", id.String()); !late.over() || !errors.Is(late.err, io.EOF) || !late.at.Equal(came) {
			t.Errorf("a follower of a job that has ended came at %v and got %v at %v", came, late.err, late.at)
		}
		time.Sleep(tailCheck)
		if !early.over() || !errors.Is(early.err, io.EOF) {
			t.Errorf("a follower of a job that was canceled got %v", early.err)
		}
	})
}
