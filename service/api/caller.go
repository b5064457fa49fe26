package api

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	policyv1 "github.com/hodei-jobs/hodei/gen/hodei/policy/v1"
	"github.com/hodei-jobs/hodei/service/access"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
)

// call is what is known of a call: who makes it, by what proof, and what they were let do.
type call struct {
	gate        *gate
	rule        *rule
	caller      identity.Principal
	proof       policyv1.Authentication // how the caller has proved who they are
	certificate identity.Fingerprint    // of the connection; zero: none
	expires     time.Time               // when the proof ends to be good
	// certificateEnds is when the certificate of the connection ends; zero: there is none.
	certificateEnds time.Time
	address         string // without port
	who             access.Caller
	entry           chain.Entry // for the audit trail

	asked  bool   // whether it was checked where the caller may do this
	denied string // why something was kept from them

	mu     sync.Mutex
	within []string // the namespaces in which the caller was let do it
}

// seen returns the namespaces in which the caller was let do what the call is for.
func (c *call) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.within)
}

type callKey struct{}

// callOf returns the call that is served; the access interceptor has put it there.
func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// principal returns who makes the call.
func principal(ctx context.Context) identity.Principal {
	if c := callOf(ctx); c != nil {
		return c.caller
	}
	return identity.Principal{}
}

// authenticate finds out who calls: by the access token of the request if it has one, and else by the client certificate, which TLS has
// verified. Nobody is named who has proved nothing.
func (c *call) authenticate(ctx context.Context) error {
	info, ok := connect.CallInfoForServerContext(ctx)
	if !ok {
		return nil
	}
	if host, _, err := net.SplitHostPort(info.PeerAddr); err == nil {
		c.address = host
	}
	if err := c.byCertificate(ctx); err != nil {
		return err
	}
	if values := info.RequestHeader().Values("Authorization"); len(values) > 0 {
		if err := c.byToken(values); err != nil {
			return err
		}
	}
	if c.caller.Kind == identity.Anonymous {
		return nil
	}
	return c.gate.credentials.Check(&c.caller, c.certificate)
}

func (c *call) byCertificate(ctx context.Context) error {
	info, _ := connecthttp.ServerInfoForContext(ctx)
	state := info.TLS()
	if state == nil || len(state.VerifiedChains) == 0 {
		return nil
	}
	certificate := state.PeerCertificates[0]
	c.certificate, c.expires, c.certificateEnds = identity.FingerprintOf(certificate), certificate.NotAfter, certificate.NotAfter
	var err error
	if c.caller, err = identity.PrincipalOf(certificate); err != nil {
		return job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"the client certificate names no identity that this server knows: %v", err)
	}
	c.proof = policyv1.Authentication_AUTHENTICATION_USER_CERTIFICATE
	if c.caller.Kind == identity.Agent {
		c.proof = policyv1.Authentication_AUTHENTICATION_AGENT_CERTIFICATE
	}
	return nil
}

func (c *call) byToken(values []string) error {
	holder := c.caller
	c.caller, c.proof = identity.Principal{}, policyv1.Authentication_AUTHENTICATION_UNSPECIFIED
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"the header Authorization is not \"Bearer\" and an access token, once; fetch a token with AuthService.ExchangeToken")
	}
	caller, expires, err := c.gate.accessTokens.Verify(token, c.certificate)
	if err != nil {
		return err
	}
	// A certificate that is of no use any more must not help a token, and one of somebody else has no business here.
	if holder.Kind != identity.Anonymous && holder.String() != caller.String() {
		return job.Errorf(job.CodeUnauthenticated, job.ReasonUnauthenticated,
			"the access token is for %s, and the client certificate of the connection for %s; use the one or the other", &caller, &holder)
	}
	if holder.Login != "" && caller.Login == "" {
		caller.Login = holder.Login
	}
	c.caller, c.expires, c.proof = caller, expires, policyv1.Authentication_AUTHENTICATION_USER_TOKEN
	if caller.Kind == identity.Agent {
		c.proof = policyv1.Authentication_AUTHENTICATION_AGENT_TOKEN
	}
	return nil
}

// describe begins the record of the call for the audit trail.
func (c *call) describe() {
	c.entry = chain.Entry{Actor: c.caller.String(), Credential: c.credential(), Address: c.address, Action: c.rule.action, Outcome: chain.OK}
}

// credential names for the audit trail what the caller has proved their identity by.
func (c *call) credential() string {
	switch {
	case c.caller.Kind == identity.Anonymous:
		return ""
	case c.caller.Token != "":
		return "token:" + c.caller.Token
	case c.certificate != (identity.Fingerprint{}):
		return "certificate:" + hex.EncodeToString(c.certificate[:])
	}
	return "access-token"
}

// accessCaller says who the caller is to the policy.
func (g *gate) accessCaller(p *identity.Principal) access.Caller {
	who := access.Caller{Subjects: make([]string, 0, 1+len(p.Groups))}
	who.Subjects = append(who.Subjects, p.String())
	for _, group := range p.Groups {
		who.Subjects = append(who.Subjects, "group/"+group)
	}
	if p.Token != "" {
		if t, ok := g.credentials.APIToken(p.Token); ok {
			who.Bounds = t.Bounds
		}
	}
	return who
}
