package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/audit/chain"
)

// exportedTrail is an export of n records, with a checkpoint at its end.
func exportedTrail(n int, key ed25519.PrivateKey) []string {
	var c chain.Chain
	var lines []string
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range n {
		_, line := c.Append(chain.Entry{Actor: "user/ada", Action: fmt.Sprint("hodei.v1.JobService/SubmitJob", i), Outcome: "ok"}, at)
		lines = append(lines, string(line))
	}
	seq, hash := c.Last()
	return append(lines, string(chain.Checkpoint{Seq: seq, First: 1, Time: at, Hash: hash}.Sign(key)))
}

func writeLines(t *testing.T, lines []string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lines")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func writeKey(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writeLines(t, []string{strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))})
}

// verify runs the command and returns what it prints.
func verify(output string, stdin []byte, args ...string) (string, error) {
	cmd := newAuditVerify(&global{output: output})
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetIn(bytes.NewReader(stdin))
	cmd.SetArgs(args)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.Execute()
	return out.String(), err
}

func TestChangedTrailIsFoundOut(t *testing.T) {
	t.Parallel()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stranger, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good, short := exportedTrail(10, private), exportedTrail(7, private)
	changed, dropped := slices.Clone(good), slices.Delete(slices.Clone(good), 3, 4)
	changed[2] = strings.Replace(changed[2], "ada", "eve", 1)
	key := writeKey(t, public)
	for name, c := range map[string]struct {
		lines []string
		args  []string
		want  string
		code  int
	}{
		"as it was":                    {good, []string{"--public-key", key}, "nothing was changed: 10 records (1 to 10), 1 checkpoints, vouched for up to record 10", 0},
		"with two keys":                {good, []string{"--public-key", writeKey(t, stranger), "--public-key", key}, "nothing was changed", 0},
		"a record was changed":         {changed, []string{"--public-key", key}, "THE TRAIL WAS CHANGED", 1},
		"a record was removed":         {dropped, []string{"--public-key", key}, "records, line 4: record 4 is missing", 1},
		"signed by somebody else":      {good, []string{"--public-key", writeKey(t, stranger)}, "THE TRAIL WAS CHANGED", 1},
		"cut, but not to be seen":      {short, []string{"--public-key", key}, "nothing was changed: 7 records", 0},
		"cut, and a checkpoint is old": {short, []string{"--public-key", key, "--checkpoints", writeLines(t, good[10:])}, "THE TRAIL WAS CHANGED", 1},
	} {
		out, err := verify("table", nil, append([]string{writeLines(t, c.lines)}, c.args...)...)
		if !strings.Contains(out, c.want) || codeOf(err) != c.code {
			t.Errorf("%s: %d, %v\n%s\nwant %q", name, codeOf(err), err, out, c.want)
		}
	}
	out, err := verify("json", []byte(strings.Join(changed, "\n")+"\n"), "-", "--public-key", key)
	var report struct {
		OK       bool
		Records  int
		Problems []struct{ Text string }
	}
	if jsonErr := json.Unmarshal([]byte(out), &report); jsonErr != nil || report.OK || len(report.Problems) == 0 || codeOf(err) != 1 {
		t.Errorf("as JSON: %v, %v, %s", err, jsonErr, out)
	}
}

func TestVerifySaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	trail := writeLines(t, []string{"{}"})
	for want, args := range map[string][]string{
		"expected --public-key":         {trail},
		"reading --public-key":          {trail, "--public-key", "none"},
		"has no PEM block":              {trail, "--public-key", trail},
		"instead of an Ed25519 key":     {trail, "--public-key", writeKey(t, other.Public())},
		"holds no public key":           {trail, "--public-key", writeLines(t, []string{"-----BEGIN PUBLIC KEY-----", "AA==", "-----END PUBLIC KEY-----"})},
		"reading the export":            {"none", "--public-key", writeKey(t, ed25519.PublicKey(make([]byte, 32)))},
		"reading --checkpoints":         {trail, "--public-key", writeKey(t, ed25519.PublicKey(make([]byte, 32))), "--checkpoints", "none"},
		"expected the file of an expor": {},
	} {
		if _, err := verify("table", nil, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	var usage usageError
	if _, err := verify("table", nil, trail); !errors.As(err, &usage) {
		t.Errorf("without a key: %v", err)
	}
}
