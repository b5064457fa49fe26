package hodei

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// security is how both sides of a connection are known, from the files as they are now.
func security(config Config) (*tls.Config, error) {
	s := &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true}
	switch {
	case config.CAPin != "":
		check, err := pinned(config)
		if err != nil {
			return nil, err
		}
		s.InsecureSkipVerify = true // the CA is not known by its certificate but by its pin: check looks for it
		s.VerifyConnection = check
	case config.CA != "":
		data, err := os.ReadFile(config.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the server's CA: %w", err)
		}
		s.RootCAs = x509.NewCertPool()
		if !s.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("%s holds no PEM certificate", config.CA)
		}
	}
	if config.Cert == "" && config.Key == "" {
		return s, nil
	}
	pair, err := loadPair(config)
	if err != nil {
		return nil, err
	}
	s.Certificates = []tls.Certificate{pair}
	return s, nil
}

// loadPair reads the client certificate and its key. A file with both is read once: it may be replaced at any time.
func loadPair(config Config) (pair tls.Certificate, err error) {
	var key []byte
	certificate, err := os.ReadFile(config.Cert)
	if key = certificate; err == nil && config.Key != config.Cert {
		key, err = os.ReadFile(config.Key)
	}
	if err == nil {
		pair, err = tls.X509KeyPair(certificate, key)
	}
	if err != nil {
		return pair, fmt.Errorf("reading the client certificate %s and its key %s: %w", config.Cert, config.Key, err)
	}
	return pair, nil
}

// pinError says that a server is not the one that the pin names.
type pinError struct{ why string }

func (e *pinError) Error() string { return e.why }

// pinned returns a check that the server's certificate is for the host of the address, and was signed by a CA with the pinned key,
// which the server shows too: directly, or by way of others that it shows. While an authority is being replaced, the new one is
// signed by the old.
func pinned(config Config) (func(tls.ConnectionState) error, error) {
	if sum, ok := strings.CutPrefix(config.CAPin, "sha256:"); !ok || !isSHA256(sum) {
		return nil, fmt.Errorf("the CA pin %q is not sha256: and 64 hexadecimal digits; `hodei admin authority show` prints the right one", config.CAPin)
	}
	server, err := url.Parse(config.URL)
	if err != nil {
		return nil, err
	}
	return func(state tls.ConnectionState) error {
		shown := state.PeerCertificates
		roots, others := x509.NewCertPool(), x509.NewCertPool()
		var seen []string
		for _, c := range shown[1:] {
			if !c.IsCA {
				continue
			}
			pool := others
			if pinOf(c) == config.CAPin {
				pool = roots
			}
			pool.AddCert(c)
			seen = append(seen, pinOf(c))
		}
		_, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: server.Hostname()})
		var unknown x509.UnknownAuthorityError
		switch {
		case err == nil:
			return nil
		case len(seen) == 0:
			err = &pinError{"it shows no CA"}
		case slices.Contains(seen, config.CAPin) && errors.As(err, &unknown):
			err = &pinError{"its certificate was not signed by that CA"}
		case !slices.Contains(seen, config.CAPin):
			err = &pinError{"it shows the CA " + strings.Join(seen, " and ")}
		}
		return &tls.CertificateVerificationError{UnverifiedCertificates: shown, Err: err}
	}, nil
}

// CAPin returns what others can know the server by, for CAPin of their Config: the pin of this client's own, or of the first
// certificate in its CA file. It is empty when the client knows the server otherwise.
func (c *Client) CAPin() string {
	if c.config.CAPin != "" || c.config.CA == "" {
		return c.config.CAPin
	}
	data, err := os.ReadFile(c.config.CA)
	if err != nil {
		return ""
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return ""
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return pinOf(ca)
}

// pinOf is what names the key of a CA.
func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func isSHA256(text string) bool {
	sum, err := hex.DecodeString(text)
	return err == nil && len(sum) == sha256.Size && text == strings.ToLower(text)
}
