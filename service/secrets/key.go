package secrets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// keyBytes is the length of a key: AES-256.
const keyBytes = 32

// Key encrypts secrets. The methods may be called at once.
type Key struct {
	id   string // names the key without telling anything of it
	aead cipher.AEAD
}

// ParseKey reads a key: 32 bytes in base64 or in hexadecimal.
func ParseKey(text string) (*Key, error) {
	text = strings.TrimSpace(text)
	decode := base64.StdEncoding.DecodeString
	if len(text) == 2*keyBytes {
		decode = hex.DecodeString
	}
	raw, err := decode(text)
	if err != nil || len(raw) != keyBytes { // the text stays out of the message
		return nil, fmt.Errorf("it is not %d bytes in base64 or hexadecimal; make one with: head -c %[1]d /dev/urandom | base64", keyBytes)
	}
	return newKey(raw)
}

func newKey(raw []byte) (*Key, error) {
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("hodei secrets key id\x00"), raw...))
	return &Key{id: hex.EncodeToString(sum[:6]), aead: aead}, nil
}

// OpenKeyFile reads the key in a file. When there is no file and make is set, it makes one that only its owner may read.
func OpenKeyFile(path string, make bool) (*Key, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && make {
		return makeKeyFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key for secrets: %w", err)
	}
	key, err := ParseKey(string(data))
	if err != nil {
		return nil, fmt.Errorf("the key for secrets in %s cannot be used: %w", path, err)
	}
	return key, nil
}

func makeKeyFile(path string) (*Key, error) {
	raw := make([]byte, keyBytes)
	if _, err := rand.Read(raw); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making the key for secrets: %w", err)
	}
	_, err = file.WriteString(base64.StdEncoding.EncodeToString(raw) + "\n")
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("making the key for secrets: %w", err), os.Remove(path))
	}
	return newKey(raw)
}

// seal encrypts a value. It can be read only with the same context, so that nobody can put the value of one secret into the
// place of another.
func (k *Key) seal(value, context []byte) []byte {
	return k.aead.Seal(nil, nil, value, context) //nolint:gosec // this kind of AEAD makes its own nonce and takes none
}

func (k *Key) open(sealed, context []byte) ([]byte, error) {
	return k.aead.Open(nil, nil, sealed, context)
}
