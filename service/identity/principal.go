// Package identity knows who is who: the certificate authority, the tokens with which agents enrol, and what each identity
// may do.
package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/hodei-jobs/hodei/service/job"
)

// Administrator is the user that the first boot makes.
const Administrator = "admin"

// Kind is a sort of identity.
type Kind uint8

// The kinds. The zero value is a caller without proof.
const (
	Anonymous Kind = iota
	User           // a person or a script
	Agent
)

// Principal is who makes a call. The zero value is nobody.
type Principal struct {
	Kind   Kind
	Name   string       // of a user
	Groups []string     // of a user: those that the certificate names, in no order
	Login  string       // of a user: to which the certificate belongs; empty: none
	Token  string       // the id of the API token by which the proof was got; empty: none
	Worker job.WorkerID // of an agent
}

// String names the principal in records and messages: "user/ada", "agent/wkr_...", "anonymous".
func (p Principal) String() string {
	switch p.Kind {
	case User:
		return "user/" + p.Name
	case Agent:
		return "agent/" + string(p.Worker)
	default:
		return "anonymous"
	}
}

// Parts of the one URI in every certificate: hodei://user/NAME or hodei://agent/WORKER.
const (
	uriScheme = "hodei"
	userHost  = "user"
	agentHost = "agent"
)

func (p Principal) uri() *url.URL {
	if p.Kind == Agent {
		return &url.URL{Scheme: uriScheme, Host: agentHost, Path: "/" + string(p.Worker)}
	}
	return &url.URL{Scheme: uriScheme, Host: userHost, Path: "/" + p.Name}
}

// PrincipalOf reads the identity from a certificate that was verified already. Its one URI must be written exactly as this
// server writes it: with nothing escaped, and without port, query or fragment.
func PrincipalOf(certificate *x509.Certificate) (Principal, error) {
	if len(certificate.URIs) != 1 {
		return Principal{}, fmt.Errorf("the certificate has %d URIs instead of one", len(certificate.URIs))
	}
	uri := certificate.URIs[0]
	name := strings.TrimPrefix(uri.Path, "/")
	p := Principal{Kind: User, Name: name, Groups: certificate.Subject.Organization, Login: certificate.Subject.SerialNumber}
	if uri.Host == agentHost {
		p = Principal{Kind: Agent, Worker: job.WorkerID(name)}
	}
	if name == "" || strings.Contains(name, "/") || p.uri().String() != uri.String() {
		return Principal{}, fmt.Errorf("the certificate's URI %q is not of the form hodei://user/NAME or hodei://agent/WORKER", uri)
	}
	return p, nil
}

// principalOfSubject is the reverse of String, for whoever has proved who they are.
func principalOfSubject(subject string) (Principal, error) {
	kind, name, _ := strings.Cut(subject, "/")
	switch {
	case name == "" || strings.Contains(name, "/"):
	case kind == userHost:
		return Principal{Kind: User, Name: name}, nil
	case kind == agentHost:
		return Principal{Kind: Agent, Worker: job.WorkerID(name)}, nil
	}
	return Principal{}, fmt.Errorf("%q is neither user/NAME nor agent/WORKER", subject)
}

// GenerationOf returns how many certificates the agent whose certificate this is had got with it; 0 for one of an earlier version, which
// did not count.
func GenerationOf(certificate *x509.Certificate) int {
	n, err := strconv.Atoi(certificate.Subject.SerialNumber)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
