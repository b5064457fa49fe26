package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hodei-jobs/hodei/service/durable"
)

const (
	// signingKeyLife is how long a key signs; then the next one does.
	signingKeyLife = 7 * 24 * time.Hour
	// signingKeyRest is how long a key is kept after it has signed for the last time: longer than what it has signed is good.
	signingKeyRest = time.Hour
	// createdHeader says in a PEM block since when a key signs.
	createdHeader = "Created"
)

// signingKey signs access tokens.
type signingKey struct {
	id      string // the beginning of the SHA-256 of the public key
	private ed25519.PrivateKey
	created time.Time
}

func (k *signingKey) public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

func newSigningKey(now time.Time) (*signingKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return keyOf(private, now), nil
}

func keyOf(private ed25519.PrivateKey, created time.Time) *signingKey {
	k := &signingKey{private: private, created: created.UTC().Truncate(time.Second)}
	sum := sha256.Sum256(k.public())
	k.id = hex.EncodeToString(sum[:8])
	return k
}

// readSigningKeys reads the keys, the newest last. None are there at the first start.
func readSigningKeys(path string) ([]*signingKey, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the keys of access tokens: %w", err)
	}
	if err := tighten(path, 0o600); err != nil {
		return nil, err
	}
	var keys []*signingKey
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		private, ok := parsed.(ed25519.PrivateKey)
		created, timeErr := time.Parse(time.RFC3339, block.Headers[createdHeader])
		if err != nil || !ok || timeErr != nil {
			return nil, fmt.Errorf("%s is damaged; remove it, and new keys are made: access tokens are then fetched anew", path)
		}
		keys = append(keys, keyOf(private, created))
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no keys; remove it, and new ones are made: access tokens are then fetched anew", path)
	}
	return keys, nil
}

func writeSigningKeys(path string, keys []*signingKey) error {
	var text bytes.Buffer
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return err
		}
		block := &pem.Block{Type: pemKey, Headers: map[string]string{createdHeader: k.created.Format(time.RFC3339)}, Bytes: der}
		if err := pem.Encode(&text, block); err != nil {
			return err
		}
	}
	return durable.WriteFile(path, text.Bytes(), 0o600)
}

// jwk is a public key as RFC 8037 has it.
type jwk struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	ID        string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
}

// keySet encodes the public keys as a JSON Web Key Set.
func keySet(keys []*signingKey) []byte {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: []jwk{}}
	for _, k := range keys {
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", base64.RawURLEncoding.EncodeToString(k.public()), k.id, "sig", "EdDSA"})
	}
	data, err := json.Marshal(set)
	if err != nil {
		return []byte(`{"keys":[]}`) // texts can always be encoded
	}
	return data
}
