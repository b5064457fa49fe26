package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What was used up or revoked stays so when the server is killed, and the trail of it goes on where it was.
func TestUsedUpAndRevokedOverACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, pin := w.token()
	join := func(name string) []string {
		return []string{"--server", w.url, "--state-dir", filepath.Join(w.dir, name), "--name", name, "--token", secret, "--ca-pin", pin}
	}
	startDaemon(t, nil, "hodei-agent", join("first")...)
	w.awaitWorker("first", "WORKER_STATE_READY")
	var created struct {
		Token  struct{ ID string }
		Secret string
	}
	if err := json.Unmarshal([]byte(w.must("token", "create", "--api", "-o", "json")), &created); err != nil {
		t.Fatal(err)
	}
	byToken := append(w.env(), "HODEI_CERT=", "HODEI_KEY=", "HODEI_TOKEN="+created.Secret)
	if r := runHodei(t, byToken, nil, "job", "list"); r.code != 0 {
		t.Fatalf("the token is refused before it is revoked: %s", r.stderr)
	}
	w.must("token", "revoke", created.Token.ID)
	w.must("admin", "revoke", "user/eve")
	w.server.kill()
	w.restart()
	w.awaitWorker("first", "WORKER_STATE_READY")
	second := startDaemon(t, nil, "hodei-agent", join("second")...)
	if code := second.awaitExit(t); code != 1 || !strings.Contains(second.output.String(), "used up") {
		t.Errorf("a token that was used: %d, %s", code, second.output)
	}
	if r := runHodei(t, byToken, nil, "job", "list"); r.code == 0 || !strings.Contains(r.stderr, "revoked") {
		t.Errorf("a token that was revoked: %+v", r)
	}
	if out := w.must("admin", "revocations"); !strings.Contains(out, "user/eve") {
		t.Errorf("the revocations are %s", out)
	}
	key, trail := w.export(t)
	if r := w.hodei("admin", "audit", "verify", trail, "--public-key", key); r.code != 0 {
		t.Errorf("the trail after a crash: %+v", r)
	}
}

// export writes the public key and the trail to files.
func (w *world) export(t *testing.T) (key, trail string) {
	t.Helper()
	key, trail = filepath.Join(w.dir, "public.pem"), filepath.Join(w.dir, "trail.jsonl")
	if err := os.WriteFile(key, []byte(w.must("admin", "audit", "key")), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must("admin", "audit", "export", "-f", trail)
	return key, trail
}

// Whoever changes an export is found out, by its own lines or by the checkpoints that were kept.
func TestChangedExportsAreFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"A", "B", "C"} {
		w.setSecret(name, "a value of many letters")
	}
	key, trail := w.export(t)
	whole, err := os.ReadFile(trail)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	if len(lines) < 5 { // three records, a checkpoint and what is behind the last line end
		t.Fatalf("the export has %d lines: %s", len(lines), whole)
	}
	kept := filepath.Join(w.dir, "kept.jsonl")
	if err := os.WriteFile(kept, lines[len(lines)-2], 0o600); err != nil { // the checkpoint that closes the export
		t.Fatal(err)
	}
	join := func(parts ...[][]byte) []byte {
		var all []byte
		for _, part := range parts {
			all = append(all, bytes.Join(part, nil)...)
		}
		return all
	}
	for name, c := range map[string]struct {
		trail []byte
		want  string
	}{
		"nothing":       {whole, ""},
		"a letter":      {bytes.Replace(whole, []byte(`"targets":["secret/A"]`), []byte(`"targets":["secret/Z"]`), 1), "was changed"},
		"a record":      {join(lines[:1], lines[2:]), "missing"},
		"the order":     {join(lines[1:2], lines[:1], lines[2:]), "order"},
		"the tail":      {join(lines[:2]), "the tail is cut"},
		"another's key": {bytes.Replace(whole, []byte(`"key":"`), []byte(`"key":"0`), 1), "checkpoint"},
	} {
		changed := filepath.Join(w.dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.WriteFile(changed, c.trail, 0o600); err != nil {
			t.Fatal(err)
		}
		r := w.hodei("admin", "audit", "verify", changed, "--public-key", key, "--checkpoints", kept)
		if (r.code == 0) != (c.want == "") || !strings.Contains(r.stdout+r.stderr, c.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// The trail is verified without this program, as the document says.
func TestAuditAsTheDocumentVerifiesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"A", "B", "C"} {
		w.setSecret(name, "a value of many letters")
	}
	out := shell(t, w.env(), strings.Join(shellBlocks(t, "docs/audit.md", "Verify"), "\nsed -n 3p export.jsonl\n"))
	hash := regexp.MustCompile(`(?m)^([0-9a-f]{64})  -$`).FindStringSubmatch(out)
	if hash == nil || !strings.Contains(out, `"prev":"`+hash[1]+`"`) || !strings.Contains(out, "Signature Verified Successfully") {
		t.Errorf("the commands printed %s", out)
	}
}
