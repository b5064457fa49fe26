package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// bound starts an agent that gets the jobs of certain queues only.
func (w *world) bound(name string, queues ...string) {
	w.t.Helper()
	var args []string
	for _, q := range queues {
		args = append(args, "--queue", q)
	}
	secret, pin := w.token(args...)
	startDaemon(w.t, nil, "hodei-agent", "--server", w.url, "--state-dir", filepath.Join(w.dir, "agent-"+name), "--name", name,
		"--token", secret, "--ca-pin", pin)
	w.awaitWorker(name, "WORKER_STATE_READY")
}

// An agent that has enrolled for one queue runs the jobs of that one alone, also after the server has started again.
func TestAgentServesTheQueuesOfItsToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.bound("builder", "default/builds", "team/*")
	other := w.submit("--", "true")
	w.waits(other, "no worker can take it now: 1 worker (builder) serves other queues only", "or for default/default")
	own, team := w.submit("--queue", "builds", "--", "true"), w.submit("--namespace", "team", "--queue", "any", "--", "true")
	for _, id := range []string{own, team} {
		w.awaitJob(id, "SUCCEEDED")
	}
	if got := w.onWorker(own) + w.onWorker(team); got != "builderbuilder" {
		t.Errorf("they ran on %s", got)
	}
	for _, out := range []string{w.must("worker", "list"), w.must("worker", "get", "builder")} {
		if !strings.Contains(out, "default/builds") || !strings.Contains(out, "team/*") {
			t.Errorf("whose jobs it gets is not shown:\n%s", out)
		}
	}
	w.server.kill()
	w.restart()
	w.awaitWorker("builder", "WORKER_STATE_READY")
	w.waits(other, "1 worker (builder) serves other queues only")
	w.agent("all")
	w.awaitJob(other, "SUCCEEDED")
	if got := w.onWorker(other); got != "all" {
		t.Errorf("the job of another queue ran on %s", got)
	}
	if out := w.must("worker", "get", "all"); !strings.Contains(out, "Queues:") {
		t.Errorf("of a worker for all queues it says:\n%s", out)
	}
}

func TestJobsWaitInTheDefaultQueueOfTheirNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if out := w.must("namespace", "set", "team", "--default-queue", "batch"); !strings.Contains(out, "batch") {
		t.Errorf("set says:\n%s", out)
	}
	w.must("queue", "pause", "batch", "--namespace", "team")
	id := w.submit("--namespace", "team", "--", "true")
	w.agent("w1")
	w.waits(id, "queue batch of namespace team is paused")
	named := w.submit("--namespace", "team", "--queue", "default", "--", "true")
	w.awaitJob(named, "SUCCEEDED")
	w.must("namespace", "set", "team", "--weight", "2") // which changes nothing else
	if out := w.must("namespace", "list"); !strings.Contains(out, "batch") {
		t.Errorf("list says:\n%s", out)
	}
	w.must("queue", "resume", "batch", "--namespace", "team")
	w.awaitJob(id, "SUCCEEDED")
	if got := w.hodei("namespace", "set", "team", "--default-queue", "No Name"); got.code != 1 || !strings.Contains(got.stderr, "default queue") {
		t.Errorf("a name that is none gave %+v", got)
	}
	w.must("namespace", "set", "team", "--default-queue", "")
	if again := w.submit("--namespace", "team", "--", "true"); w.jobQueue(again) != "default" {
		t.Errorf("without a default queue it waits in %q", w.jobQueue(again))
	}
}

func (w *world) jobQueue(id string) string {
	w.t.Helper()
	var j struct {
		Spec struct {
			Queue string `json:"queue"`
		} `json:"spec"`
	}
	if err := json.Unmarshal([]byte(w.must("job", "get", id, "-o", "json")), &j); err != nil {
		w.t.Fatal(err)
	}
	return j.Spec.Queue
}
