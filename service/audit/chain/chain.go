// Package chain is the form of the audit trail: records that are chained by hashes, so that nobody can change, remove, insert or
// reorder one without a trace, and signed checkpoints, which also show when the end was cut off or the whole chain was made anew.
//
// It is pure: time is an argument, and whoever uses it reads and writes.
package chain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Kinds of the store's records that hold the trail. Their keys are those of Key.
const (
	Kind           = "audit"            // the values are lines of records
	CheckpointKind = "audit-checkpoint" // the values are lines of checkpoints, by the last record that each vouches for
)

// Key is the key of a record in a store: 20 decimal digits, so that the order of keys is that of numbers.
func Key(seq uint64) string { return fmt.Sprintf("%020d", seq) }

// Outcomes of what an entry tells.
const (
	OK     = "ok"
	Denied = "denied"
)

// Entry is what the trail tells of one change, or of one attempt that was denied. Whatever is in it, a line has at most MaxLine
// bytes: longer texts are cut and end with "…", bytes that are not UTF-8 are replaced. Limits are in bytes of the line.
type Entry struct {
	Actor      string            `json:"actor"`      // up to 160: "user/ada", "agent/wkr_...", "anonymous" or "server"
	Credential string            `json:"credential"` // up to 128: how the actor was proven, "certificate:<sha256>" or "token:<id>"
	Address    string            `json:"address"`    // up to 64: of the peer
	Action     string            `json:"action"`     // up to 128: the full name of an RPC, or "alarm.identity-cloned"
	Namespace  string            `json:"namespace"`  // up to 128
	Targets    []string          `json:"targets"`    // up to 16 of 80: ids and names; the last one says how many more there were
	Outcome    string            `json:"outcome"`    // OK or Denied
	Reason     string            `json:"reason"`     // up to 512: why it was denied
	Details    map[string]string `json:"details"`    // up to 8, the first by name, of 32 and 96
}

// Hash is the SHA-256 of a line. As a text it is 64 lower-case hexadecimal digits.
type Hash [sha256.Size]byte

// AppendText implements encoding.TextAppender. It does not fail.
func (h Hash) AppendText(dst []byte) ([]byte, error) { return hex.AppendEncode(dst, h[:]), nil }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return h.AppendText(nil) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a hash has %d hexadecimal digits, not %d", hex.EncodedLen(len(h)), len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Chain is the end of a trail, where the next record goes. The zero value is that of an empty trail. It is a value: a copy goes on
// by itself. The methods must not be called at once.
type Chain struct {
	seq  uint64 // of the last record; 0: there is none
	hash Hash   // of its line; zeros: there is none
}

// Resume goes on behind the last line of a trail. It fails when the line is not a record exactly as Append gives them.
func Resume(lastLine []byte) (Chain, error) {
	r, err := ParseRecord(lastLine)
	if err != nil {
		return Chain{}, fmt.Errorf("the last record of the audit trail cannot be read: %w", err)
	}
	return Chain{seq: r.Seq, hash: sha256.Sum256(lastLine)}, nil
}

// Append makes the next record and returns its number, which begins with 1 and grows by 1, and its line without a line end: a JSON
// object with the hash of the line before. The line belongs to the caller. Times outside the years 0 to 9999 become the zero time.
func (c *Chain) Append(e Entry, at time.Time) (seq uint64, line []byte) {
	r := Record{Seq: c.seq + 1, Time: at, Entry: e, Prev: c.hash}
	line = r.append(make([]byte, 0, usualLine))
	c.seq, c.hash = r.Seq, sha256.Sum256(line)
	return c.seq, line
}

// Last returns the number of the last record and the hash of its line; zeros when there is none.
func (c *Chain) Last() (seq uint64, hash Hash) { return c.seq, c.hash }

// After returns a chain that goes on behind a line that cannot be read, which has a number.
func After(seq uint64, line []byte) Chain { return Chain{seq: seq, hash: sha256.Sum256(line)} }
