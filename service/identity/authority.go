package identity

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// Names of the files in the authority's folder.
const (
	caFile        = "ca"
	crossFile     = "ca-cross"
	nextFile      = "ca-next"
	agentsFile    = "agents-ca"
	serverFile    = "server"
	adminFile     = "admin"
	certificatePE = ".pem"
	keyPE         = "-key.pem"
)

// AuthorityConfig says how an authority works.
type AuthorityConfig struct {
	// Hosts are names and addresses that the server's certificate is for, besides localhost and this machine's name.
	Hosts []string
	// Now is the clock by which certificates begin and end; required.
	Now func() time.Time
	// AgentLife is how long agents' certificates live, 5 seconds or more; 24 hours when 0.
	AgentLife time.Duration
}

// Authority is the certificate authority of a server: a root, which signs the certificates of the server and of users, and an
// authority below it for agents. Its methods may be called from several goroutines at once.
type Authority struct {
	dir       string
	hosts     []string
	now       func() time.Time
	agentLife time.Duration

	mu    sync.Mutex // held while what follows is replaced
	trust atomic.Pointer[trust]
	cut   func(file string) error // in tests: called before a file changes; its error keeps it from changing
}

// keyPair is a certificate with its key.
type keyPair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// OpenAuthority opens the authority in dir. The first time it makes a root, unless the operator has put one there, an authority
// for agents, a certificate for the server and one for the administrator; later it renews the latter three when they are old.
// What a crash left half made is completed. Keys are readable by their owner only. The error says what is wrong with the folder
// or a host, and what to do.
//
// One process at a time may use a folder.
func OpenAuthority(dir string, config AuthorityConfig) (*Authority, error) {
	names, err := serverHosts(config.Hosts)
	if err != nil {
		return nil, err
	}
	if config.AgentLife == 0 {
		config.AgentLife = agentLife
	}
	if config.AgentLife < minAgentLife || config.AgentLife > agentsLife {
		return nil, fmt.Errorf("agents' certificates cannot live for %v; choose from %v to %v", config.AgentLife, minAgentLife, agentsLife)
	}
	if err := openFolder(dir); err != nil {
		return nil, err
	}
	a := &Authority{dir: dir, hosts: names, now: config.Now, agentLife: config.AgentLife}
	t, err := a.open()
	if err != nil {
		return nil, err
	}
	a.trust.Store(t)
	return a, nil
}

// CACertificatePath is the file with the roots' certificates, by which clients know the right server.
func (a *Authority) CACertificatePath() string { return a.path(caFile + certificatePE) }

// AdminCertificatePath is the file with the administrator's certificate.
func (a *Authority) AdminCertificatePath() string { return a.path(adminFile + certificatePE) }

// AdminKeyPath is the file with the administrator's key.
func (a *Authority) AdminKeyPath() string { return a.path(adminFile + keyPE) }

func (a *Authority) path(file string) string { return filepath.Join(a.dir, file) }

// Roots returns the certificates of the roots in DER: the one that signs first. The caller must not change them.
func (a *Authority) Roots() [][]byte { return a.trust.Load().rootsDER() }

// Pin returns "sha256:" and the hash of the public key of the root that signs, by which agents know the right server.
func (a *Authority) Pin() string { return pinOf(a.trust.Load().root.certificate) }

// Pins returns the pins of all roots that are trusted: the one that signs first.
func (a *Authority) Pins() []string {
	var pins []string
	for _, root := range a.trust.Load().roots() {
		pins = append(pins, pinOf(root))
	}
	return pins
}

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// AuthorityState is how an authority stands.
type AuthorityState struct {
	Roots         []RootState // the one that signs first; two during a rotation
	Hosts         []string    // that the server's certificate is for
	ServerExpires time.Time   // when that certificate ends; it is renewed before
}

// RootState is how a root stands.
type RootState struct {
	Pin             string // "sha256:" and the hash of its public key
	Begins, Expires time.Time
	PEM             string
}

// State returns how the authority stands.
func (a *Authority) State() AuthorityState {
	t := a.trust.Load()
	state := AuthorityState{Hosts: a.hosts, ServerExpires: t.server.Leaf.NotAfter}
	for _, root := range t.roots() {
		state.Roots = append(state.Roots, RootState{
			Pin: pinOf(root), Begins: root.NotBefore, Expires: root.NotAfter,
			PEM: string(pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: root.Raw})),
		})
	}
	return state
}

// ServerTLS returns the settings of the API's listener: TLS 1.3, and a client certificate that this authority has signed where
// one is given. Which calls need one is the business of each method's access rule. check, unless it is nil, has the last word on a
// client's certificate; it is called in every handshake with one, from several goroutines at once, and its error ends the handshake.
// Rotations take effect at the next handshake.
func (a *Authority) ServerTLS(check func(leaf *x509.Certificate) error) *tls.Config {
	type settings struct {
		of     *trust
		config *tls.Config
	}
	var latest atomic.Pointer[settings]
	outer := a.serverTLS(a.trust.Load(), check)
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t, s := a.trust.Load(), latest.Load()
		if s == nil || s.of != t { // made once for each state, not for each connection
			s = &settings{t, a.serverTLS(t, check)}
			latest.Store(s)
		}
		return s.config, nil
	}
	return outer
}

func (a *Authority) serverTLS(t *trust, check func(leaf *x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: a.serverCertificate,
		ClientAuth:     tls.VerifyClientCertIfGiven,
		ClientCAs:      t.clients,
		Time:           a.now,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.VerifiedChains) == 0 {
				return nil
			}
			if err := t.admit(state.VerifiedChains); err != nil || check == nil {
				return err
			}
			return check(state.PeerCertificates[0])
		},
		// A resumed session would not check the client's certificate again, so there are none.
		SessionTicketsDisabled: true,
		// Records of full size from the start: output comes in bulk.
		DynamicRecordSizingDisabled: true,
	}
}

// serverCertificate returns the server's certificate, renewed when it is old.
func (a *Authority) serverCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if t := a.trust.Load(); !a.old(t.server.Leaf) {
		return t.server, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t := *a.trust.Load()
	if !a.old(t.server.Leaf) {
		return t.server, nil
	}
	pair, err := a.issueServer(&t)
	if err != nil {
		return t.server, nil
	}
	a.trust.Store(t.complete(pair))
	_ = a.save(serverFile, pair) // a full disk is no reason to serve an old certificate; the next boot makes another one
	return t.server, nil
}
