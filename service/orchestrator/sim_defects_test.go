package orchestrator

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// simDefect is a defect that somebody could make: some text of the program, and what stands in its place.
type simDefect struct {
	name  string
	edits []simEdit
}

// simEdit changes one place. The file is relative to this folder; the old text must be there exactly once.
type simEdit struct{ file, old, new string }

// simDefects is the table. Each defect must be caught by the simulation: else the auditor looks away.
var simDefects = []simDefect{
	{"callers are answered before the commit", []simEdit{{
		"reactor.go",
		"	if !writes.Empty() {", "	for _, c := range batch {\n		c.done(nil)\n	}\n	batch = nil\n	if !writes.Empty() {",
	}}},
	{"orders go out before the commit", []simEdit{{
		"reactor.go",
		"	if !writes.Empty() {", "	for _, w := range s.ordering {\n		o.config.Dispatcher.Assign(w.ID, w.orders)\n		w.orders = nil\n	}\n	if !writes.Empty() {",
	}}},
	{"a failed commit is ignored", []simEdit{{
		"reactor.go",
		"			return fmt.Errorf(\"the store refused", "			_ = fmt.Errorf(\"the store refused",
	}}},
	{"changes are not published", []simEdit{{
		"reactor.go",
		"[][]*job.Job{writes.Accepted, writes.Changed}", "[][]*job.Job{writes.Accepted}",
	}}},
	{"events that nobody wants are not counted", []simEdit{{"reactor.go", "		o.config.Bus.Skip(len(s.dirty))\n", ""}}},
	{"readers that fall behind are not told", []simEdit{{
		"../bus/bus.go",
		"after > b.last || after < b.gone || b.last-after > uint64(len(b.ring))", "after > b.last || after < b.gone",
	}}},
	{"leases are looked at before what has arrived", []simEdit{
		{"reactor.go", "	s.checkLeases(now) // after what has been said meanwhile\n", ""},
		{"reactor.go", "	if err := s.tick(now); err != nil {", "	s.checkLeases(now)\n	if err := s.tick(now); err != nil {"},
		{"worker.go", "		s.hearing = now //", "		//"},
	}},
	{"leases run out while the server is held up", []simEdit{{"worker.go", "		s.hearing = now //", "		//"}}},
	{"leases never run out", []simEdit{{"worker.go", "if !w.Lost && min(silent,", "if !w.Lost && false && min(silent,"}}},
	{"leases run out before agents fence themselves", []simEdit{{"worker.go", "now.Sub(s.hearing)) > s.lease {", "now.Sub(s.hearing)) > s.lease*2/3 {"}}},
	{"a lost worker stays lost while its session lasts", []simEdit{{"worker.go", "if w.Lost && w.open {", "if false {"}}},
	{"a lost worker is not told to stop", []simEdit{{
		"worker.go",
		"		s.cancels = append(s.cancels, cancelOrder{worker: w.ID, ref: e.job.Ref(), step: -1, force: true})\n", "",
	}}},
	{"what an agent said on an older connection counts", []simEdit{{"worker.go", "if late || fresh.Session < w.Session {", "if late && false || fresh.Session < w.Session {"}}},
	{"the end of an old session ends the new one", []simEdit{{"worker.go", "w != nil && w.Session == session", "w != nil"}}},
	{"what may start once is sent again to an agent that forgets", []simEdit{{
		"worker.go",
		"(!forgetful || j.Retryable())", "(!forgetful || j.Attempt <= j.Spec.MaxAttempts)",
	}}},
	{"what has started is sent again", []simEdit{{"worker.go", "	case j.State == job.Assigned && (", "	case j.State != job.Canceling && ("}}},
	{"what did not arrive is not sent again", []simEdit{{"worker.go", "		s.order(w, j)\n", ""}}},
	{"cancels are not repeated", []simEdit{{"worker.go", "			s.repeatCancels(&e.job)\n", ""}}},
	{"everything goes on at a new session", []simEdit{{"worker.go", "e.job.Ref() == ref && e.job.Worker == worker && e.job.State.OnWorker()", "true"}}},
	{"a log is thrown away when the store cannot be read", []simEdit{{
		"worker.go",
		"job.CodeOf(err) == job.CodeNotFound {\n			return Forget", "err != nil {\n			return Forget",
	}}},
	{"an operator's drain ends with the session", []simEdit{{"worker.go", "fresh.Draining || s.drained[fresh.ID]", "fresh.Draining"}}},
	{"no fence", []simEdit{{"report.go", " || e.job.Ref() != r.Ref", ""}}},
	{"reports of other workers count", []simEdit{{"report.go", " || e.job.Worker != worker", ""}}},
	{"epochs begin anew with a restart", []simEdit{{"recover.go", "s.epoch = s.term << 32", "s.epoch = 1"}}},
	{"delayed jobs are forgotten at recovery", []simEdit{{"recover.go", "		s.delayed.push(j.NextAttempt, j.ID)\n", ""}}},
	{"queued jobs are forgotten at recovery", []simEdit{{"recover.go", "		s.sched.Add(j.ID, j.Spec, j.Attempt > 0)\n", ""}}},
	{"workers with jobs are forgotten at recovery", []simEdit{{"recover.go", "		w.join(e)\n", ""}}},
	{"drains are forgotten at recovery", []simEdit{{"recover.go", "		s.drained[job.WorkerID(r.Key)] = true\n", "		_ = r\n"}}},
	{"a deposed server goes on", []simEdit{{"state.go", "Term: s.term, ", ""}}},
	{"places are not given back", []simEdit{{"state.go", "	s.sched.End(e.place)\n	e.place = nil\n", "	e.place = nil\n"}}},
	{"nobody looks when a place becomes free", []simEdit{{
		"state.go",
		"	w.entries = w.entries[:last]\n	s.unsettled = true\n", "	w.entries = w.entries[:last]\n",
	}}},
	{"canceled jobs stay in the backlog", []simEdit{{"state.go", "		s.sched.Remove(j.ID, j.Spec, j.Attempt > 0)\n", ""}}},
	{"delayed jobs are forgotten when the store cannot be read", []simEdit{{
		"state.go",
		"	if err := s.fetch(due); err != nil {\n		return err\n	}\n", "	_ = s.fetch(due)\n",
	}}},
	{"retries have no timer", []simEdit{{"state.go", "		s.delayed.push(j.NextAttempt, j.ID)\n", ""}}},
	{"a job that has ended stays in memory", []simEdit{{
		"state.go",
		"		case e.job.State.Terminal():\n			delete(s.jobs, e.job.ID)\n", "		case e.job.State.Terminal():\n",
	}}},
	{"agents may not end what runs again elsewhere", []simEdit{{"state.go", "Retryable: j.Retryable()", "Retryable: false"}}},
	{"a job is handed out twice", []simEdit{{"state.go", "	e.place = p.Place\n	s.put(e, assigned)\n", "	s.put(e, assigned)\n	s.sched.End(p.Place)\n"}}},
	{"requests are forgotten at a restart", []simEdit{{"state.go", "		batch.Requests = append(batch.Requests, r)\n", "		_ = r\n"}}},
	{"a request is not known in its own batch", []simEdit{{
		"submit.go",
		"	request, ok := s.newRequest[key]\n", "	request, ok := store.Request{}, false\n",
	}}},
	{"a request whose last job was refused is forgotten", []simEdit{{
		"submit.go",
		"Expires: s.now.Add(requestLife)}", "Expires: results[len(results)-1].Job.Created.Add(requestLife)}",
	}}},
	{"a cancel is acknowledged and not kept", []simEdit{{
		"cancel.go",
		"	s.put(e, c.job)\n	if c.job.State == job.Canceling {", "	if c.job.State == job.Canceling {",
	}}},
	{"a cancel does not reach the worker", []simEdit{{"cancel.go", "		s.orderCancel(&c.job, -1)\n", ""}}},
	{"a job seems not to be there when the store cannot be read", []simEdit{{
		"cancel.go",
		"		c.err = err\n		return\n	}\n	c.job = e.job", "		c.err = job.NotFound(\"\")\n		return\n	}\n	c.job = e.job",
	}}},
	{"what has ended can be canceled", []simEdit{
		{"state.go", "	case j.State.Terminal():\n		return nil, job.NotFound(id.String())\n", ""},
		{"../job/job.go", "	case j.State.Terminal():\n		return j, Errorf(CodePrecondition, ReasonJobEnded, \"job %s has ended already: it is %s\", j.ID, j.State)\n", ""},
		{"../job/job.go", "	if !j.State.MayBecome(s) {", "	if false {"},
	}},
	{"the last retry is lost", []simEdit{{"../job/job.go", "j.Attempt-j.Preemptions < j.Spec.MaxAttempts", "j.Attempt+1 < j.Spec.MaxAttempts"}}},
	{"an attempt too many", []simEdit{{"../job/job.go", "j.Attempt-j.Preemptions < j.Spec.MaxAttempts", "j.Attempt <= j.Spec.MaxAttempts"}}},
	{"retries do not wait", []simEdit{{"../job/job.go", "now.Add(wait)", "now"}}},
	{"steps that are reported again are lost", []simEdit{{"../job/job.go", "		j.Steps = steps\n", ""}}},
	{"a canceled job is tried again", []simEdit{
		{"../job/job.go", "return j.State != Canceling && ", "return "}, {"../job/state.go", "Canceling: {Succeeded,", "Canceling: {Delayed, Succeeded,"},
	}},
	{"success is not told from failure", []simEdit{{"../job/cause.go", "		if c.ExitCode == 0 {\n			return Succeeded", "		if c.ExitCode <= 1 {\n			return Succeeded"}}},
	{"workers get more than they have", []simEdit{{"../scheduler/filter.go", "return c.free.covers(&sh.ask)", "return true"}}},
	{"workers get more than they have slots for", []simEdit{
		{"../scheduler/filter.go", "return c.free.jobs > 0", "return true"}, {"../scheduler/amount.go", " || a.jobs < need.jobs", ""},
	}},
	{"draining workers get jobs", []simEdit{{"../scheduler/filter.go", "return !c.worker.Draining", "return true"}}},
	{"lost workers get jobs", []simEdit{{"../scheduler/filter.go", "return c.worker.Connected && !c.worker.Lost", "return true"}}},
	{"constraints do not count", []simEdit{{"../scheduler/filter.go", "if !sh.constraints[i].Holds(c.worker.Labels) {\n			return false", "if sh.constraints[i].Label == \"\" {\n			return false"}}},
}

// A simulation that passes shows nothing unless it fails when it should. Each defect is put in by an overlay, so that the
// program itself carries no switch.
func TestPlantedDefectsAreCaught(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds the test once for each defect")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{}, 2) // each build takes a processor or two for itself
	for _, d := range simDefects {
		t.Run(strings.ReplaceAll(d.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			gate <- struct{}{}
			defer func() { <-gate }()
			d.mustBeCaught(t, here)
		})
	}
}

// defectSeeds is how many histories a defect has to show itself.
const defectSeeds = "1500"

func (d *simDefect) mustBeCaught(t *testing.T, here string) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "simulation.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", d.overlay(t, here, dir), "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the defect does not compile: %v\n%s", err, out)
	}
	run := exec.Command(binary, "-test.run=^TestSimulation$", "-test.timeout=2m")
	run.Env = append(os.Environ(), "SIM_SEEDS="+defectSeeds, "SEED=")
	out, err := run.CombinedOutput()
	if at := bytes.LastIndex(out, []byte("SEED=")); at >= 0 && err != nil {
		line, _, _ := bytes.Cut(out[at:], []byte("\n"))
		t.Logf("caught: %s", line)
		return
	}
	t.Errorf("%s histories did not show the defect: %v\n%s", defectSeeds, err, out[max(0, len(out)-2000):])
}

// overlay writes the files with the defect and says where they belong. Other tests of this folder are left out, because
// what they import takes long to link.
func (d *simDefect) overlay(t *testing.T, here, dir string) string {
	t.Helper()
	changed := make(map[string]string) // contents
	for _, e := range d.edits {
		path := filepath.Join(here, e.file)
		text, ok := changed[path]
		if !ok {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = string(source)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s has this text %d times, not once; the table of defects must be brought up to date:\n%s", e.file, n, e.old)
		}
		changed[path] = strings.Replace(text, e.old, e.new, 1)
	}
	replace := make(map[string]string)
	for path, text := range changed {
		replace[path] = filepath.Join(dir, strings.ReplaceAll(strings.TrimPrefix(path, filepath.Dir(here)), "/", "_"))
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests, err := filepath.Glob(filepath.Join(here, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tests {
		if !strings.HasPrefix(filepath.Base(path), "sim_") {
			replace[path] = ""
		}
	}
	data, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
