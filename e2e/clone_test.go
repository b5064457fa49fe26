package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
)

// alarms is how often the server has raised an alarm of a kind, as its metrics say.
func (w *world) alarms(kind string) string {
	w.t.Helper()
	response, err := http.Get(w.logged("server ready", "operations") + "/metrics")
	if err != nil {
		w.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, `hodei_alarms_total{kind="`+kind+`"} `); ok {
			return strings.TrimSpace(n)
		}
	}
	return "0"
}

// revoked are the subjects that are revoked.
func (w *world) revoked() (subjects []string) {
	w.t.Helper()
	for r, err := range w.client(w.url).Revocations(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		subjects = append(subjects, r.GetSubject())
	}
	return subjects
}

// connections is how often an agent's program has got a session.
func connections(d *daemon) int { return strings.Count(d.output.String(), "msg=connected") }

// again starts an agent on the state folder of another name, or anew on its own.
func (w *world) again(name, folder string, args ...string) *daemon {
	w.t.Helper()
	return startDaemon(w.t, nil, "hodei-agent", append([]string{
		"--server", w.url, "--state-dir", filepath.Join(w.dir, folder), "--name", name,
	}, args...)...)
}

// An agent whose state folder was copied loses its identity, and so does its double: nobody can tell which of them is right. An operator
// learns of it, and the job goes to another worker.
func TestClonedIdentityIsEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	right := w.agent("right", "--label", "for=clones")
	worker := "agent/" + w.field("worker", "right", "id")
	if err := os.CopyFS(filepath.Join(w.dir, "agent-double"), os.DirFS(filepath.Join(w.dir, "agent-right"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(w.dir, "agent-double"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.dir, "stop")
	id := w.submit(slices.Concat([]string{"--constraint", "for=clones", "--max-attempts", "5"}, counting(file))...)
	w.awaitJob(id, "RUNNING")
	double := w.again("right", "agent-double", "--label", "for=clones")
	await(t, "the identity to be revoked", func() bool { return slices.Equal(w.revoked(), []string{worker}) })
	had := connections(right) + connections(double)
	if n := w.alarms("identity-cloned"); n == "0" {
		t.Error("there was no alarm")
	}
	w.wantAlarmInTrail(worker)
	w.agent("other", "--label", "for=clones")
	w.awaitWorker("right", "WORKER_STATE_LOST")
	await(t, "the job to run on the other worker", func() bool {
		return w.field("job", id, "state") == "JOB_STATE_RUNNING" && w.field("job", id, "worker_id") == w.field("worker", "other", "id")
	})
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.awaitJob(id, "SUCCEEDED")

	// Both try again and again, in vain, also after the server has forgotten whom it saw.
	for _, d := range []*daemon{right, double} {
		await(t, "the agents to be refused", func() bool { return strings.Contains(d.output.String(), "the connection to the server ended") })
	}
	w.server.kill()
	w.restart()
	tries := func() int {
		return strings.Count(right.output.String(), "the connection to the server ended") + strings.Count(double.output.String(), "the connection to the server ended")
	}
	before := tries()
	w.must("run", "--constraint", "for=clones", "--", "true")
	await(t, "the agents to try again", func() bool { return tries() >= before+3 })
	if got := connections(right) + connections(double); got != had {
		t.Errorf("%d sessions were begun with a revoked identity", got-had)
	}
	if state := w.field("worker", "right", "state"); state == "WORKER_STATE_READY" {
		t.Errorf("the revoked worker is %s", state)
	}
}

// wantAlarmInTrail checks that the audit trail says which identity was cloned, by whose word it was revoked, and why.
func (w *world) wantAlarmInTrail(worker string) {
	w.t.Helper()
	const action = "alarm.identity-cloned"
	for r, err := range w.client(w.url).AuditRecords(w.t.Context(), &adminv1.ListAuditRecordsRequest{Namespace: "*", Action: action}) {
		if err != nil {
			w.t.Fatal(err)
		}
		if r.GetAction() == action && r.GetActor() == "server" && slices.Contains(r.GetTargets(), worker) && r.GetReason() != "" {
			return
		}
	}
	w.t.Errorf("no record of the audit trail says that %s was cloned", worker)
}

// An agent that is killed and started again on its own folder, however often, is no clone.
func TestRestartsOfAnAgentRaiseNoAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	d := w.agent("restarting")
	for range 10 {
		d.kill()
		d = w.again("restarting", "agent-restarting")
		await(t, "the agent to be back", func() bool { return connections(d) > 0 })
	}
	w.must("run", "--", "true")
	if revoked, n := w.revoked(), w.alarms("identity-cloned"); len(revoked) > 0 || n != "0" {
		t.Errorf("after ten restarts %v are revoked, and there were %s alarms", revoked, n)
	}
}
