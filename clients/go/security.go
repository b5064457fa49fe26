package hodei

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
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
	pair, err := tls.LoadX509KeyPair(config.Cert, config.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the client certificate %s and its key %s: %w", config.Cert, config.Key, err)
	}
	s.Certificates = []tls.Certificate{pair}
	return s, nil
}

// pinError says that a server is not the one that the pin names.
type pinError struct{ seen []string }

func (e *pinError) Error() string {
	if len(e.seen) == 0 {
		return "it shows no CA"
	}
	return "it shows the CA " + strings.Join(e.seen, " and ")
}

// pinned returns a check that the server's certificate is for the host of the address, and was signed by a CA with the pinned key,
// which the server shows too: directly, or by way of others that it shows. While an authority is being replaced, the new one is
// signed by the old.
func pinned(config Config) (func(tls.ConnectionState) error, error) {
	if sum, ok := strings.CutPrefix(config.CAPin, "sha256:"); !ok || !isSHA256(sum) {
		return nil, fmt.Errorf("the CA pin %q is not sha256: and 64 hexadecimal digits; `hodei admin ca show` prints the right one", config.CAPin)
	}
	server, err := url.Parse(config.URL)
	if err != nil {
		return nil, err
	}
	return func(state tls.ConnectionState) error {
		shown := state.PeerCertificates
		roots, others := x509.NewCertPool(), x509.NewCertPool()
		unknown, found := new(pinError), false
		for _, c := range shown[1:] {
			if !c.IsCA {
				continue
			}
			switch pin := pinOf(c); pin {
			case config.CAPin:
				roots.AddCert(c)
				found = true
			default:
				others.AddCert(c)
				unknown.seen = append(unknown.seen, pin)
			}
		}
		var failed error = unknown
		if found {
			_, failed = shown[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: server.Hostname()})
		}
		if failed != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: shown, Err: failed}
		}
		return nil
	}, nil
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
