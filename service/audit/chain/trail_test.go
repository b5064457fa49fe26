package chain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// keyOf makes a key that is always the same.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

var (
	serverKey = keyOf("server")
	serverPub = publicOf(serverKey)
	start     = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
)

// trail is an export: records, and a checkpoint behind each so many of them and at the end.
type trail struct {
	lines       [][]byte // of records and checkpoints
	checkpoints [][]byte // their lines alone
}

func entryOf(n int) Entry {
	e := Entry{Actor: "user/ada", Action: "hodei.v1.JobService/SubmitJob", Namespace: "default", Targets: []string{fmt.Sprint("job_", n)}, Outcome: OK}
	if n%7 == 0 {
		e.Outcome, e.Reason = Denied, "the namespace \"prod\" is not theirs"
	}
	if n%5 == 0 {
		e.Credential, e.Details = "token:tok_1", map[string]string{"queue": "a", "zone": "é"}
	}
	return e
}

// newTrail makes an export of n records from the first one on.
func newTrail(first, n, every int) *trail {
	t := new(trail)
	var c Chain
	for seq := 1; seq < first+n; seq++ {
		at := start.Add(time.Duration(seq) * time.Second)
		_, line := c.Append(entryOf(seq), at)
		if seq < first {
			continue
		}
		t.lines = append(t.lines, line)
		if seq%every == 0 || seq == first+n-1 {
			t.checkpoint(Checkpoint{Seq: c.seq, First: uint64(first), Time: at, Hash: c.hash}.Sign(serverKey))
		}
	}
	return t
}

func (t *trail) checkpoint(line []byte) {
	t.lines = append(t.lines, line)
	t.checkpoints = append(t.checkpoints, line)
}

// records returns the lines of records alone.
func (t *trail) records() [][]byte {
	return slices.DeleteFunc(slices.Clone(t.lines), func(line []byte) bool { return bytes.HasPrefix(line, []byte(checkpointStart)) })
}

// file joins lines to a file.
func file(lines ...[]byte) []byte {
	var all []byte
	for _, line := range lines {
		all = append(append(all, line...), '\n')
	}
	return all
}

func verify(t rapid.TB, export, checkpoints []byte, keys ...ed25519.PublicKey) Report {
	t.Helper()
	if len(keys) == 0 {
		keys = []ed25519.PublicKey{serverPub}
	}
	report, err := Verify(bytes.NewReader(export), bytes.NewReader(checkpoints), keys...)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// wantProblem expects a problem whose text has a part.
func wantProblem(t rapid.TB, r *Report, part string) {
	t.Helper()
	if !slices.ContainsFunc(r.Problems, func(p Problem) bool { return strings.Contains(p.Text, part) }) {
		t.Errorf("no problem has %q: %+v", part, r.Problems)
	}
}

// rechain makes the hashes of records right again from a line on, as somebody would who knows how they are made.
func rechain(t testing.TB, lines [][]byte, from int) {
	t.Helper()
	var last Hash
	for i, line := range lines {
		r, err := ParseRecord(line)
		if err != nil {
			t.Fatal(err)
		}
		if i > from {
			r.Prev = last
			lines[i] = r.append(nil)
		}
		last = sha256.Sum256(lines[i])
	}
}
