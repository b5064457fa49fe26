package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// counting is a job that writes numbers until the file is there, then the last line.
func counting(file string) []string {
	return []string{"--", "sh", "-c", "i=0; while [ ! -e " + file + " ]; do i=$((i+1)); echo $i; sleep 0.05; done; echo end"}
}

// wantCount checks that the log of a counting job has every number.
func (w *world) wantCount(id string) {
	w.t.Helper()
	lines := strings.Fields(w.must("logs", id))
	for i, line := range lines[:len(lines)-1] {
		if line != strconv.Itoa(i+1) {
			w.t.Fatalf("line %d of the log is %q", i+1, line)
		}
	}
	if lines[len(lines)-1] != "end" {
		w.t.Errorf("the log ends with %q", lines[len(lines)-1])
	}
}

// renewals is how many certificates an agent has got over its stream.
func renewals(d *daemon) int { return strings.Count(d.output.String(), "certificate renewed") }

// Certificates that live for seconds renew themselves while a job runs, over one stream that outlives them.
func TestCertificatesRenewUnderTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--agent-certificate-life", "5s")
	d := w.agent("renewing")
	file := filepath.Join(w.dir, "stop")
	id := w.submit(counting(file)...)
	w.awaitJob(id, "RUNNING")
	await(t, "the certificate to be renewed three times", func() bool { return renewals(d) >= 3 })
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.awaitJob(id, "SUCCEEDED")
	w.wantCount(id)
	if text := d.output.String(); strings.Count(text, "msg=connected") != 1 || strings.Contains(text, "connection to the server ended") {
		t.Errorf("the stream did not last:\n%s", text)
	}
	// The next connection uses the newest certificate: the first one has ended long ago.
	w.server.kill()
	w.restart()
	await(t, "the agent to be back", func() bool { return strings.Count(d.output.String(), "msg=connected") == 2 })
	w.must("run", "--", "true")
}

// pins returns the pins of the roots, the one that signs first, and how many workers depend on each.
func (w *world) pins(verb ...string) (pins []string, workers []int) {
	w.t.Helper()
	var authority struct {
		Roots []struct {
			Pin     string `json:"pin"`
			Workers int    `json:"workers"`
		} `json:"roots"`
	}
	if err := json.Unmarshal([]byte(w.must(slices.Concat([]string{"admin", "authority"}, verb, []string{"-o", "json"})...)), &authority); err != nil {
		w.t.Fatal(err)
	}
	for _, root := range authority.Roots {
		pins, workers = append(pins, root.Pin), append(workers, root.Workers)
	}
	return pins, workers
}

// The root is replaced while jobs run: nobody is left behind, whatever they know, until the old root is retired.
func TestRotationOfTheAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	busy := w.agent("busy", "--label", "for=count")
	away := w.agent("away")
	away.kill()
	first, _ := w.pins("show")
	w.keepCredentials("old")
	file := filepath.Join(w.dir, "stop")
	id := w.submit(slices.Concat([]string{"--constraint", "for=count"}, counting(file))...)
	w.awaitJob(id, "RUNNING")

	pins, workers := w.pins("rotate")
	if len(pins) != 2 || pins[1] != first[0] || pins[0] == first[0] || workers[1] != 2 {
		t.Fatalf("after the rotation of %v the roots are %v, with %v workers", first, pins, workers)
	}
	if r := w.hodei("admin", "authority", "rotate"); r.code == 0 || !strings.Contains(r.stderr, "rotation of the authority is under way") {
		t.Errorf("a second rotation: %+v", r)
	}
	await(t, "the busy agent to have a certificate of the new root", func() bool { return renewals(busy) == 1 })
	if r := w.hodei("admin", "authority", "retire"); r.code == 0 || !strings.Contains(r.stderr, "1 workers still have certificates of the old root") {
		t.Errorf("the old root retires although an agent that is away needs it: %+v", r)
	}
	// Whoever has the old files goes on; an agent that was away comes back; a new one joins with the old pin.
	if r := runHodei(t, w.envWith("old"), nil, "job", "list"); r.code != 0 {
		t.Errorf("a client with the old files: %+v", r)
	}
	away = startDaemon(t, nil, "hodei-agent", "--server", w.url, "--state-dir", filepath.Join(w.dir, "agent-away"), "--name", "away")
	await(t, "the agent that was away to have a certificate of the new root", func() bool { return renewals(away) == 1 })
	joined := w.joinByPipe("joined", first[0])
	w.must("run", "--", "true")

	await(t, "nobody to need the old root", func() bool { _, workers := w.pins("show"); return slices.Equal(workers, []int{3, 0}) })
	if pins, _ := w.pins("retire"); !slices.Equal(pins, []string{w.currentPin()}) {
		t.Errorf("after the end of the old root the roots are %v", pins)
	}
	if r := runHodei(t, w.envWith("old"), nil, "job", "list"); r.code == 0 || !strings.Contains(r.stderr, "certificate of another CA") {
		t.Errorf("a client with the old files after the end of the old root: %+v", r)
	}
	w.server.kill()
	w.restart()
	for _, d := range []*daemon{busy, away, joined} {
		await(t, "an agent to be back", func() bool { return strings.Count(d.output.String(), "msg=connected") >= 2 })
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.awaitJob(id, "SUCCEEDED")
	w.wantCount(id)
}

// keepCredentials copies the administrator's files as they are.
func (w *world) keepCredentials(name string) {
	w.t.Helper()
	for _, file := range []string{"ca.pem", "admin.pem", "admin-key.pem"} {
		data, err := os.ReadFile(filepath.Join(w.dir, "tls", file))
		if err == nil {
			err = os.WriteFile(filepath.Join(w.dir, name+"-"+file), data, 0o600)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) envWith(name string) []string {
	file := func(of string) string { return filepath.Join(w.dir, name+"-"+of) }
	return append(w.env(), "HODEI_CA="+file("ca.pem"), "HODEI_CERT="+file("admin.pem"), "HODEI_KEY="+file("admin-key.pem"))
}

func (w *world) currentPin() string {
	w.t.Helper()
	pins, _ := w.pins("show")
	return pins[0]
}

// joinByPipe runs the command that `hodei token create` prints, with another pin, in a shell.
func (w *world) joinByPipe(name, pin string) *daemon {
	w.t.Helper()
	printed := w.must("token", "create", "--queue", "default/*")
	_, command, _ := strings.Cut(printed, "\n\n")
	command = strings.TrimSpace(command)
	secret, agent, ok := strings.Cut(strings.TrimPrefix(command, "echo "), " | hodei-agent ")
	if !ok || !strings.HasPrefix(secret, "hat_") || strings.Contains(agent, secret) || !strings.Contains(agent, "--token-file -") {
		w.t.Fatalf("the command that was printed shows the secret to everybody, or is another: %s", command)
	}
	args := strings.Fields(strings.Replace(agent, w.currentPin(), pin, 1))
	d := prepare(program(w.t, "hodei-agent"), append(args, "--state-dir", filepath.Join(w.dir, "agent-"+name), "--name", name)...)
	d.cmd.Stdin = bytes.NewReader([]byte(secret + "\n"))
	d.start(w.t)
	w.awaitWorker(name, "WORKER_STATE_READY")
	return d
}
