package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// explained returns what explain says of a job, as programs read it.
func (w *world) explained(args ...string) map[string]any {
	w.t.Helper()
	var e map[string]any
	if err := json.Unmarshal([]byte(w.must(append([]string{"explain", "-o", "json"}, args...)...)), &e); err != nil {
		w.t.Fatal(err)
	}
	return e
}

// waits checks that explain says why a job waits, in its sentence or what follows it.
func (w *world) waits(id string, want ...string) {
	w.t.Helper()
	var out string
	await(w.t, "the explanation of "+id, func() bool {
		out = w.must("explain", id)
		return !slices.ContainsFunc(want, func(text string) bool { return !strings.Contains(out, text) })
	})
}

// onWorker waits until a job has a worker and returns its name.
func (w *world) onWorker(id string) (name string) {
	w.t.Helper()
	await(w.t, id+" to have a worker", func() bool {
		worker := w.field("job", id, "worker_id")
		if worker != "" {
			name = w.field("worker", worker, "name")
		}
		return name != ""
	})
	return name
}

// Three workers that differ: jobs land where they must, the others wait and say why, and a drained worker gets nothing.
func TestJobsLandWhereTheyMust(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("small", "--cpus", "1", "--label", "zone=a", "--label", "mem=8", "--label", "cuda=11.8")
	w.agent("large", "--cpus", "8", "--label", "zone=b", "--label", "mem=64", "--label", "cuda=12.4")
	w.agent("gpu", "--cpus", "8", "--label", "zone=b", "--label", "mem=64", "--taint", "batch", "--taint", "spot", "--extra", "gpu=2")
	w.must("queue", "set", "default", "--load-weight", "0") // the machine's load is that of all tests
	if out := w.must("worker", "list"); !strings.Contains(out, "batch,spot") {
		t.Errorf("worker list shows no taints:\n%s", out)
	}
	if out := w.must("worker", "get", "gpu"); !strings.Contains(out, "batch spot") || !strings.Contains(out, "2 gpu, 0 reserved") {
		t.Errorf("worker get shows no taints and extras:\n%s", out)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--cpu", "2"}, "large"},
		{[]string{"--cpu", "0.1", "--constraint", "zone=a|c"}, "small"},
		{[]string{"--constraint", "mem<16"}, "small"},
		{[]string{"--constraint", "mem>8"}, "large"},
		{[]string{"--constraint", "cuda~^12"}, "large"},
		{[]string{"--constraint", "cuda~<12"}, "small"},
		{[]string{"--gpu", "1", "--tolerate", "batch", "--tolerate", "spot"}, "gpu"},
		{[]string{"--tolerate", "batch", "--tolerate", "spot", "--constraint", "!cuda"}, "gpu"},
		{[]string{"--prefer", "zone=a:100"}, "small"},
		{[]string{"--prefer", "zone=a:-100"}, "large"},
	} {
		id := w.submit(append(tc.args, "--", "true")...)
		w.awaitJob(id, "SUCCEEDED")
		if got := w.onWorker(id); got != tc.want {
			t.Errorf("%q ran on %s, want %s", tc.args, got, tc.want)
		}
	}
	halfTolerant := w.submit("--gpu", "1", "--tolerate", "batch", "--", "true")
	w.waits(halfTolerant, "1 worker (gpu) only for jobs that tolerate spot", "2 workers too small for 1 gpu", "0 of 3 can take it now")
	nowhere := w.submit("--constraint", "zone=z", "--", "true")
	w.waits(nowhere, "3 workers without label zone=z", "connect a worker with")
	if e := w.explained(nowhere); e["state"] != "JOB_STATE_QUEUED" || e["workers"] != 3.0 || e["fitting"] != nil {
		t.Errorf("the explanation for programs is %v", e)
	}
	w.must("worker", "drain", "small")
	drained := w.submit("--constraint", "zone=a", "--", "true")
	w.waits(drained, "1 worker (small) draining", "2 workers without label zone=a", "hodei worker drain small --resume")
	if out := w.must("explain", "last"); !strings.Contains(out, "1 worker (small) draining") {
		t.Errorf("last is another job:\n%s", out)
	}
	elsewhere := w.submit("--prefer", "zone=a:100", "--", "true")
	if got := w.onWorker(elsewhere); got != "large" {
		t.Errorf("a job ran on %s while small was drained", got)
	}
	w.must("worker", "drain", "--resume", "small")
	w.awaitJob(drained, "SUCCEEDED")
	if got := w.hodei("submit", "--cpu", "64", "--", "true"); got.code != 1 || !strings.Contains(got.stderr, "the largest worker has 8 CPUs") {
		t.Errorf("a job that is too large for every worker gave %+v", got)
	}
}

// Queues, limits, pauses and keys hold over a restart of the server, and explain names what keeps a job.
func TestQueuesKeepWhatTheySay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1", "--cpus", "8")
	if out := w.must("queue", "set", "nightly", "--max-running", "1", "--weight", "3"); !strings.Contains(out, "Running at most:") {
		t.Errorf("queue set shows %s", out)
	}
	w.must("queue", "set", "nightly", "--preemptible")
	w.must("queue", "set", "held")
	w.must("queue", "pause", "held")
	w.must("namespace", "set", "research", "--weight", "2", "--max-cpu", "2")
	gate := filepath.Join(t.TempDir(), "gate")
	hold := []string{"--", "sh", "-c", "while [ ! -e " + gate + " ]; do sleep 0.05; done"}
	first := w.submit(append([]string{"--queue", "nightly"}, hold...)...)
	w.awaitJob(first, "RUNNING")
	w.server.kill()
	w.restart()
	w.awaitWorker("w1", "WORKER_STATE_READY")
	q, err := w.client(w.url).Queue(t.Context(), "", "nightly")
	if err != nil || q.GetWeight() != 3 || q.GetLimits().GetRunning() != 1 || !q.GetPreemptible() || q.GetRunning() != 1 || !q.GetCustomized() {
		t.Errorf("after the restart the queue is %v, %v", q, err)
	}
	second := w.submit("--queue", "nightly", "--", "true")
	w.waits(second, "1 job of queue nightly of namespace default runs, as many as its limit allows", "Limit:")
	waiting := w.submit("--queue", "held", "--", "true")
	w.waits(waiting, "queue held of namespace default is paused", "hodei queue resume held")
	w.submit(append([]string{"--namespace", "research", "--cpu", "2"}, hold...)...)
	third := w.submit("--namespace", "research", "--cpu", "1", "--", "true")
	w.waits(third, "it needs 1 CPU; namespace research may hold 2 CPUs and holds 2 CPUs")
	key := w.submit(append([]string{"--concurrency", "deploy"}, hold...)...)
	w.awaitJob(key, "RUNNING")
	replaced := w.submit("--concurrency", "deploy:latest", "--", "true")
	w.waits(replaced, `1 job with the concurrency key "deploy" runs, as many as it allows`)
	newest := w.submit("--concurrency", "deploy:latest", "--", "true")
	w.awaitJob(replaced, "CANCELED")
	list := w.must("queue", "list", "--namespace", "*")
	if !strings.Contains(list, "research") || !strings.Contains(list, "paused") {
		t.Errorf("queue list shows\n%s", list)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{second, third, newest} {
		w.awaitJob(id, "SUCCEEDED")
	}
	w.must("queue", "resume", "held")
	w.awaitJob(waiting, "SUCCEEDED")
	if out := w.must("explain", waiting); !strings.Contains(out, "it has ended: it is SUCCEEDED") {
		t.Errorf("of a job that has ended explain says %s", out)
	}
	w.must("queue", "rm", "nightly")
	w.must("namespace", "rm", "research")
	if got := w.hodei("queue", "rm", "nightly"); got.code != 1 || !strings.Contains(got.stderr, `nobody has set queue "nightly"`) {
		t.Errorf("removing it again gave %+v", got)
	}
	if got := w.hodei("queue", "set", "x", "--weight", "0"); got.code != 1 || !strings.Contains(got.stderr, "to let nothing start, pause the queue") {
		t.Errorf("a weight of 0 gave %+v", got)
	}
}

func TestSpecsAreExplained(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent("w1", "--label", "mem=8")
	spec := func(text string) string {
		path := filepath.Join(t.TempDir(), "spec.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const steps = "steps: [{command: ['true']}]\n"
	if out := w.must("explain", "-f", spec(steps)); !strings.HasPrefix(out, "nothing keeps it") {
		t.Errorf("what could start: %s", out)
	}
	if out := w.must("explain", "-f", spec("constraints: ['mem>16']\n"+steps)); !strings.Contains(out, "1 worker (w1) without label mem>16") {
		t.Errorf("what cannot: %s", out)
	}
	for text, want := range map[string]string{
		"constraints: [os=linux, '!os']\n":           "constraints[0] and constraints[1] contradict each other",
		"constraints: ['mem>much']\n":                "LESS and GREATER on label \"mem\" need one number",
		"affinities: [{constraint: a, weight: 0}]\n": "affinities[0].weight: 0",
		"gang: {name: ring, size: 0}\n":              "gang: \"ring\" of 0 jobs",
		"concurency: x\n":                            `did you mean "concurrency"?`,
	} {
		for _, command := range []string{"explain", "submit"} {
			if got := w.hodei(command, "-f", spec(text+steps)); got.code != 1 || !strings.Contains(got.stderr, want) {
				t.Errorf("%s of %q gave %+v, want %q", command, text, got, want)
			}
		}
	}
	if got := w.must("job", "list", "-o", "json"); got != "[]\n" {
		t.Errorf("something was submitted: %s", got)
	}
	if got := w.hodei("explain", "last"); got.code != 1 || !strings.Contains(got.stderr, "there is no job yet") {
		t.Errorf("explain last without jobs gave %+v", got)
	}
}
