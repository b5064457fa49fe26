package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// trust is what an authority signs with, and whom it believes, at a moment. It never changes; another one takes its place.
type trust struct {
	root   *keyPair          // signs everything new
	former *x509.Certificate // the root before, while it is still trusted; nil: none
	cross  *x509.Certificate // root, signed by former: for those who know only that one
	agents *keyPair          // signs for agents
	server *tls.Certificate

	clients *x509.CertPool // the roots
}

// roots returns the roots that are trusted, the one that signs first.
func (t *trust) roots() []*x509.Certificate {
	if t.former == nil {
		return []*x509.Certificate{t.root.certificate}
	}
	return []*x509.Certificate{t.root.certificate, t.former}
}

func (t *trust) rootsDER() [][]byte {
	var out [][]byte
	for _, root := range t.roots() {
		out = append(out, root.Raw)
	}
	return out
}

// complete fills in what follows from the rest and the server's certificate, and returns t, which must not be in use yet.
//
// Whether a client knows the root, the one before or the pin of either: what the server sends leads from the certificate to what
// the client knows.
func (t *trust) complete(server *keyPair) *trust {
	chain := [][]byte{server.certificate.Raw}
	if t.cross != nil {
		chain = append(chain, t.cross.Raw)
	}
	t.server = &tls.Certificate{Certificate: append(chain, t.rootsDER()...), PrivateKey: server.key, Leaf: server.certificate}
	t.clients = x509.NewCertPool()
	for _, root := range t.roots() {
		t.clients.AddCert(root)
	}
	return t
}

// admit decides whether a client's certificate, which leads to a root, was signed by the one who may sign for such an identity:
// users by the root itself, agents by the authority for agents. A certificate without an identity is let in as nobody's.
func (t *trust) admit(chains [][]*x509.Certificate) error {
	leaf := chains[0][0]
	caller, err := PrincipalOf(leaf)
	if err != nil {
		return nil //nolint:nilerr // the calls that need an identity say what is wrong
	}
	if slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool { return t.vouches(chain, caller.Kind) }) {
		return nil
	}
	return fmt.Errorf("the certificate of %s was signed by an authority that may not sign for it", caller)
}

func (t *trust) vouches(chain []*x509.Certificate, kind Kind) bool {
	switch {
	case kind == User:
		return len(chain) == 2
	case len(chain) == 2:
		// Earlier versions had no authority for agents. What they signed is older than it, and ends within a day.
		return chain[0].NotBefore.Before(t.agents.certificate.NotBefore)
	default:
		return len(chain) == 3 && signsForAgents(chain[1])
	}
}

// signsForAgents reports whether a certificate that a root has signed is that of an authority for agents.
func signsForAgents(c *x509.Certificate) bool {
	return c.IsCA && c.MaxPathLenZero && slices.Equal(c.PermittedURIDomains, []string{agentHost})
}

// check refuses an authority with which no handshake could succeed, because its root does not permit what it has to sign.
func (t *trust) check(now time.Time, path string) error {
	for _, c := range []struct {
		what        string
		certificate *x509.Certificate
		usage       x509.ExtKeyUsage
	}{
		{"the server", t.server.Leaf, x509.ExtKeyUsageServerAuth},
		{"agents", t.agents.certificate, x509.ExtKeyUsageClientAuth},
	} {
		options := x509.VerifyOptions{Roots: t.clients, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{c.usage}}
		if _, err := c.certificate.Verify(options); err != nil {
			return fmt.Errorf("the root in %s cannot sign for %s: %w; put a root there that may sign for this server's names, "+
				"for servers and clients, with an authority below it", path, c.what, err)
		}
	}
	return nil
}
