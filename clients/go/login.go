package hodei

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// Files in the folder of a login. The key and its certificate are one file, so that they change together.
const (
	loginFile = "login.pem"
	rootsFile = "ca.pem"
	lockFile  = "lock"
)

// LoginOptions say where and how to log in. By CA or CAPin the server is known; without both, by the authorities of the system.
type LoginOptions struct {
	URL   string
	CA    string // file with the server's CA in PEM
	CAPin string // "sha256:" and the hash of its key; CA is not looked at then

	// One of these is the proof for Login.
	APIToken string // the secret of an API token
	IDToken  string // of the OIDC provider that LoginProvider names

	Dir string // folder for the key, the certificate and the CA; it is made, readable by its owner only
}

// client returns one that proves nothing.
func (o *LoginOptions) client() (*Client, error) {
	return makeClient(Config{URL: o.URL, CA: o.CA, CAPin: o.CAPin})
}

// LoginProvider returns the OIDC provider that a server takes ID tokens of; nil when there is none. Only URL, CA and CAPin of the
// options are looked at.
func LoginProvider(ctx context.Context, options LoginOptions) (*hodeiv1.OidcProvider, error) {
	c, err := options.client()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var res *hodeiv1.GetLoginOptionsResponse
	err = c.retry(ctx, func() (err error) {
		res, err = c.bare.GetLoginOptions(ctx, &hodeiv1.GetLoginOptionsRequest{})
		return err
	})
	return res.GetOidc(), err
}

// Login trades a proof for a client certificate, whose key is made here and never leaves the machine, and stores both in the folder.
// The configuration that it returns is for New: it renews the certificate for as long as the login lasts. ErrUnauthenticated
// when the server does not take the proof. It is not repeated when it fails: there may be a login then, which ends by itself.
func Login(ctx context.Context, options LoginOptions) (Config, error) {
	request := &hodeiv1.ExchangeTokenRequest{}
	switch {
	case (options.APIToken == "") == (options.IDToken == ""):
		return Config{}, errors.New("logging in takes one proof: the secret of an API token, or an ID token")
	case options.APIToken != "":
		request.Proof = &hodeiv1.ExchangeTokenRequest_ApiToken{ApiToken: options.APIToken}
	default:
		request.Proof = &hodeiv1.ExchangeTokenRequest_IdToken{IdToken: options.IDToken}
	}
	c, err := options.client()
	if err != nil {
		return Config{}, err
	}
	defer c.Close()
	key, csr, err := newKey()
	if err != nil {
		return Config{}, err
	}
	request.CsrDer = csr
	res, err := c.bare.ExchangeToken(ctx, request)
	if err != nil {
		return Config{}, c.translate(err)
	}
	return options.store(key, res.GetCertificate())
}

// store keeps what the server has issued, and returns how to use it.
func (o *LoginOptions) store(key *ecdsa.PrivateKey, issued *hodeiv1.IssuedCertificate) (Config, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return Config{}, fmt.Errorf("making the folder for the login: %w", err)
	}
	if err := storeLogin(o.Dir, key, issued); err != nil {
		return Config{}, err
	}
	pair := filepath.Join(o.Dir, loginFile)
	config := Config{URL: o.URL, CA: filepath.Join(o.Dir, rootsFile), Cert: pair, Key: pair, Login: issued.GetLoginId()}
	if issued.GetRenewableUntil() != nil {
		config.RenewableUntil = issued.GetRenewableUntil().AsTime().Format(time.RFC3339)
	}
	return config, nil
}

// newKey makes a key and the request for its certificate. The server decides what the certificate says.
func newKey() (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "hodei login"}}, key)
	return key, csr, err
}

// storeLogin writes the roots, then the key with its certificate. A crash in between leaves the old certificate with new roots, which
// hold the old one for as long as it is needed.
func storeLogin(dir string, key *ecdsa.PrivateKey, issued *hodeiv1.IssuedCertificate) error {
	if len(issued.GetChainDer()) == 0 || len(issued.GetRootsDer()) == 0 {
		return errors.New("the server has answered without a certificate and its CA")
	}
	leaf, err := x509.ParseCertificate(issued.GetChainDer()[0])
	if err != nil {
		return fmt.Errorf("the server has sent something else than a certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return errors.New("the server has sent a certificate for another key")
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	login := append(certificates(issued.GetChainDer()), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	if err := replaceFile(filepath.Join(dir, rootsFile), certificates(issued.GetRootsDer())); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, loginFile), login)
}

func certificates(ders [][]byte) (text []byte) {
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

// Logout ends the login of this client's certificate at the server. The files stay.
func (c *Client) Logout(ctx context.Context) error {
	return c.retry(ctx, func() error {
		_, err := c.bare.Logout(ctx, &hodeiv1.LogoutRequest{})
		return err
	})
}
