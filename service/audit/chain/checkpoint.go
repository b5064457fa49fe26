package chain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Checkpoint says what a trail was at a time, signed by its server.
type Checkpoint struct {
	Seq   uint64    `json:"checkpoint"` // of the last record; 0: the trail was empty
	First uint64    `json:"first"`      // of the oldest record that is kept; it and all up to Seq were there
	Time  time.Time `json:"time"`
	Hash  Hash      `json:"hash"` // of the last record's line, and by its chain of all before
	KeyID string    `json:"key"`  // which key signed; Sign sets it
}

// checkpointStart is how the line of a checkpoint begins, and no record does.
const checkpointStart = `{"checkpoint":`

// signatureDomain keeps what the key signs here from being taken for anything else.
const signatureDomain = "hodei audit checkpoint 1\n"

// KeyID names a public key: 16 hexadecimal digits of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// Sign returns the line of a checkpoint, without a line end: a JSON object that ends with the signature of all before it. The key must
// have the length of Ed25519 keys.
func (c Checkpoint) Sign(key ed25519.PrivateKey) []byte {
	public, _ := key.Public().(ed25519.PublicKey)
	c.KeyID = KeyID(public)
	body := c.append(nil)
	return appendSignature(body, ed25519.Sign(key, append([]byte(signatureDomain), body...)))
}

// ParseCheckpoint reads a line that one of the keys has signed. Like ParseRecord it takes nothing but what Sign gives.
func ParseCheckpoint(line []byte, keys ...ed25519.PublicKey) (Checkpoint, error) {
	c, signature, err := decodeCheckpoint(line)
	if err != nil {
		return Checkpoint{}, err
	}
	return c, c.check(signature, keys)
}

// decodeCheckpoint reads a line without looking at who signed it.
func decodeCheckpoint(line []byte) (Checkpoint, []byte, error) {
	var signed struct {
		Checkpoint
		Signature string `json:"signature"`
	}
	if err := decode(line, &signed); err != nil {
		return Checkpoint{}, nil, err
	}
	signature, err := hex.DecodeString(signed.Signature)
	if err != nil || len(signature) != ed25519.SignatureSize {
		return Checkpoint{}, nil, errors.New("it has no signature")
	}
	if !bytes.Equal(appendSignature(signed.append(nil), signature), line) {
		return Checkpoint{}, nil, errForm
	}
	return signed.Checkpoint, signature, nil
}

func (c *Checkpoint) check(signature []byte, keys []ed25519.PublicKey) error {
	for _, key := range keys {
		if len(key) == ed25519.PublicKeySize && KeyID(key) == c.KeyID &&
			ed25519.Verify(key, append([]byte(signatureDomain), c.append(nil)...), signature) {
			return nil
		}
	}
	return fmt.Errorf("%v is not signed by the given key", c)
}

// String names the checkpoint in messages.
func (c *Checkpoint) String() string {
	return fmt.Sprintf("the checkpoint of %s", c.Time.UTC().Format(time.RFC3339))
}

// append appends the line up to the signature.
func (c *Checkpoint) append(dst []byte) []byte {
	dst = strconv.AppendUint(append(dst, checkpointStart...), c.Seq, 10)
	dst = strconv.AppendUint(append(dst, `,"first":`...), c.First, 10)
	dst = appendTime(append(dst, `,"time":`...), c.Time)
	dst = append(hex.AppendEncode(append(dst, `,"hash":"`...), c.Hash[:]), '"')
	return quote(append(dst, `,"key":`...), clean(c.KeyID, maxAddress))
}

func appendSignature(dst, signature []byte) []byte {
	return append(hex.AppendEncode(append(dst, `,"signature":"`...), signature), `"}`...)
}
