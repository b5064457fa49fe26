package identity

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
)

// watch is an office that notes which workers were found to be cloned.
type watch struct {
	*office
	worker job.WorkerID
	cloned []string
}

func newWatch(t *testing.T) *watch {
	t.Helper()
	w := &watch{office: newOffice(t)}
	w.Enrolment = w.restarted()
	_, secret := create(t, w.tokens, CreateOptions{Queues: []string{"default/build"}})
	var err error
	if w.worker, _, err = w.Enroll(t.Context(), EnrollRequest{Token: secret, CSR: request(t, &x509.CertificateRequest{}, newKey(t)), Name: "a"}); err != nil {
		t.Fatal(err)
	}
	return w
}

// restarted is what the next life of the server has.
func (w *watch) restarted() *Enrolment {
	return NewEnrolment(EnrolmentConfig{
		Authority: w.authority, Tokens: NewTokens(w.db, w.now.Now),
		Cloned: func(_ context.Context, worker job.WorkerID, why string) {
			_, _ = w.Renew(context.Background(), worker, nil) // it may do what it likes with the worker
			w.cloned = append(w.cloned, why)
		},
	})
}

// connect begins a session and says how that went: "in", "again", or "cloned".
func (w *watch) connect(t testing.TB, generation int, boot string, dial uint64) string {
	t.Helper()
	sight := Sighting{Worker: w.worker, Generation: generation, Root: w.authority.Pin(), Boot: boot, Dial: dial}
	before := len(w.cloned)
	record, err := w.Seen(t.Context(), sight)
	switch {
	case err == nil && record.Name == "a":
		w.Opened(sight)
		return "in"
	case job.CodeOf(err) == job.CodePrecondition && len(w.cloned) == before:
		return "again"
	case job.CodeOf(err) == job.CodeDenied && len(w.cloned) == before+1 && strings.Contains(err.Error(), w.cloned[before]):
		return "cloned"
	}
	t.Fatalf("Seen gives %+v, %v", record, err)
	return ""
}

func (w *watch) renew(t testing.TB) int {
	t.Helper()
	issued, err := w.Renew(t.Context(), w.worker, request(t, &x509.CertificateRequest{}, newKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	return GenerationOf(parse(t, issued.Chain[0]))
}

// TestClones tells what the agents of one identity do, in order: a connection is a generation, a life and a dial; "renew",
// "restart" (of the server) and "wait" (until nobody is suspected any more) stand for themselves.
func TestClones(t *testing.T) {
	t.Parallel()
	type connection struct {
		generation int
		boot       string
		dial       uint64
		want       string
	}
	const renew, restart, wait = "renew", "restart", "wait"
	for name, steps := range map[string][]any{
		"an agent that lives":                       {connection{1, "A", 1, "in"}, connection{1, "A", 2, "in"}, connection{1, "A", 3, "in"}},
		"an agent that is started anew":             {connection{1, "A", 1, "in"}, connection{1, "B", 11, "in"}, connection{1, "C", 21, "in"}},
		"an agent that renews":                      {connection{1, "A", 1, "in"}, renew, connection{2, "A", 2, "in"}, renew, connection{3, "B", 11, "in"}},
		"an agent that crashed before it stored":    {connection{1, "A", 1, "in"}, renew, connection{1, "B", 11, "in"}, renew, connection{3, "B", 12, "in"}},
		"an agent whose answer was lost":            {connection{1, "A", 1, "in"}, renew, renew, connection{3, "A", 2, "in"}},
		"an agent whose answer came on two streams": {connection{1, "A", 1, "in"}, renew, connection{1, "A", 2, "in"}, connection{2, "A", 3, "in"}},
		"an older connection that was held up":      {connection{1, "A", 2, "in"}, connection{1, "A", 1, "again"}, connection{1, "A", 1, "again"}},
		"the same with an older certificate":        {renew, connection{2, "A", 2, "in"}, connection{1, "A", 1, "again"}, connection{1, "A", 1, "again"}},
		"a former life whose connection was held up": {
			connection{1, "A", 1, "in"},
			connection{1, "B", 11, "in"},
			connection{1, "A", 2, "again"},
			connection{1, "B", 12, "in"},
			connection{1, "A", 2, "again"},
		},
		"an agent whose clock was set back": {connection{1, "B", 11, "in"}, connection{1, "A", 1, "in"}, connection{1, "A", 2, "in"}, connection{1, "B", 12, "in"}},
		"two that take turns": {
			connection{1, "A", 1, "in"},
			connection{1, "B", 11, "in"},
			connection{1, "A", 2, "again"},
			connection{1, "A", 3, "cloned"},
			connection{1, "A", 4, "cloned"},
			connection{1, "B", 12, "in"},
		},
		"two connections that were held up, far apart": {
			connection{1, "A", 1, "in"},
			connection{1, "B", 11, "in"},
			connection{1, "A", 2, "again"},
			wait,
			connection{1, "A", 3, "again"},
			connection{1, "A", 4, "cloned"},
		},
		"two that take turns over a restart of the server": {
			connection{1, "A", 1, "in"},
			restart,
			connection{1, "A", 2, "in"},
			connection{1, "B", 11, "in"},
			connection{1, "A", 3, "again"},
			restart,
			connection{1, "A", 4, "in"},
			connection{1, "B", 12, "in"},
			connection{1, "A", 5, "again"},
			connection{1, "A", 6, "cloned"},
		},
		"a copy of an older state": {
			connection{1, "A", 1, "in"},
			renew,
			connection{2, "A", 2, "in"},
			connection{1, "B", 11, "again"},
			connection{1, "B", 12, "cloned"},
			connection{2, "A", 3, "in"},
		},
		"a copy of an older state after a restart of the server": {
			connection{1, "A", 1, "in"}, renew, connection{2, "A", 2, "in"}, restart, connection{1, "B", 11, "again"}, connection{1, "B", 12, "cloned"},
		},
		"two that renew": {
			connection{1, "A", 1, "in"},
			renew,
			connection{1, "B", 11, "in"},
			renew,
			connection{3, "B", 12, "in"},
			connection{2, "A", 2, "again"},
			connection{2, "A", 3, "cloned"},
		},
		"an agent of an earlier version": {connection{0, "A", 1, "in"}, renew, connection{0, "B", 11, "in"}, renew, connection{3, "B", 12, "in"}},
		// A store that was restored from a backup knows of fewer certificates than there are.
		"a store that was restored": {connection{5, "A", 1, "in"}, renew, connection{6, "A", 2, "in"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatch(t)
			newest := 1
			for i, step := range steps {
				switch step := step.(type) {
				case connection:
					newest = max(newest, step.generation)
					if got := w.connect(t, step.generation, step.boot, step.dial); got != step.want {
						t.Errorf("step %d: %v is %s", i+1, step, got)
					}
				case string:
					switch step {
					case wait:
						w.now.advance(suspicion)
					case restart:
						w.Enrolment = w.restarted()
					case renew:
						got := w.renew(t)
						if got <= newest {
							t.Errorf("step %d: certificate %d was issued after %d", i+1, got, newest)
						}
						newest = got
					}
				}
			}
		})
	}
}

// TestOneAgentIsNoClone lets one agent do all that can happen to one, its connections held up and overtaking each other, over
// restarts of the server: it is never taken for two.
func TestOneAgentIsNoClone(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	rapid.Check(t, func(r *rapid.T) {
		_, secret := create(t, w.tokens, CreateOptions{})
		var err error
		if w.worker, _, err = w.Enroll(t.Context(), EnrollRequest{Token: secret, CSR: request(t, &x509.CertificateRequest{}, newKey(t)), Name: "a"}); err != nil {
			r.Fatal(err)
		}
		type connection struct {
			generation int
			boot       string
			dial       uint64
		}
		w.cloned = nil
		var heldUp []connection // two that are held up do not arrive at the same time
		stored, life, dial := 1, 0, uint64(1)
		now := func() connection { return connection{stored, fmt.Sprint(life), dial} }
		r.Repeat(map[string]func(*rapid.T){
			"connect": func(*rapid.T) { dial++; w.connect(t, stored, fmt.Sprint(life), dial) },
			"held up": func(*rapid.T) { dial++; heldUp = append(heldUp, now()) },
			"arrive": func(r *rapid.T) {
				if len(heldUp) > 0 {
					c := rapid.SampledFrom(heldUp).Draw(r, "connection")
					heldUp = nil // at most one connection is under way at a time; others ended before it began
					w.now.advance(suspicion)
					w.connect(t, c.generation, c.boot, c.dial)
				}
			},
			"renew":            func(*rapid.T) { stored = w.renew(t) },
			"renew and forget": func(*rapid.T) { w.renew(t) },
			"start anew":       func(*rapid.T) { life++; dial += 1000 },
			"server restarts":  func(*rapid.T) { w.Enrolment = w.restarted() },
			"":                 func(*rapid.T) {},
		})
		if len(w.cloned) > 0 {
			r.Fatalf("one agent was taken for two: %v", w.cloned)
		}
	})
}

func TestOpenedSaysWhetherToRenew(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	sight := Sighting{Worker: w.worker, Generation: 1, Root: w.authority.Pin(), Boot: "A", Dial: 1}
	if w.Opened(sight) {
		t.Error("a fresh certificate is to be renewed")
	}
	if sight.Generation = 0; !w.Opened(sight) {
		t.Error("a certificate of an earlier version need not be renewed")
	}
	sight.Generation = 1
	if err := w.authority.Rotate(); err != nil {
		t.Fatal(err)
	}
	if !w.Opened(sight) {
		t.Error("a certificate of the old root need not be renewed")
	}
}

// TestFormerLivesAreBounded shows that an agent that is started again and again costs no memory.
func TestFormerLivesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	for life := range uint64(100) {
		w.connect(t, 1, fmt.Sprint(life, strings.Repeat("x", 1000)), 10*life+1)
		w.connect(t, 1, "0", 10*life+2)
	}
	s := w.sightings(w.worker)
	if len(s.former) > formerBoots || len(s.suspects) > formerBoots {
		t.Errorf("%d former lives and %d suspects are known, want at most %d", len(s.former), len(s.suspects), formerBoots)
	}
}

// TestWorkerOfAnEarlierVersion finds the record that earlier versions wrote, which the orchestrator may have replaced by its own, but
// only for certificates of theirs.
func TestWorkerOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	for _, record := range []string{
		`{"name":"old","labels":{"zone":"a"},"token_id":"tok_1","enrolled":"2031-05-17T09:00:00Z"}`,
		`{"Name":"old","Labels":{"zone":"a","os":"linux"},"Taints":null,"Can":null,"Capacity":{},"Slots":4}`,
	} {
		w := newWatch(t)
		w.worker = "wkr_old"
		w.db.values[formerRecord+"/wkr_old"] = []byte(record)
		sight := Sighting{Worker: "wkr_old", Generation: 1, Root: w.authority.Pin(), Boot: "A", Dial: 1}
		if _, err := w.Seen(t.Context(), sight); job.CodeOf(err) != job.CodeDenied {
			t.Errorf("a certificate of this version without a record gives %v", err)
		}
		sight.Generation = 0
		got, err := w.Seen(t.Context(), sight)
		if err != nil || got.Name != "old" || got.Labels["zone"] != "a" {
			t.Errorf("Seen gives %+v, %v", got, err)
		}
		if w.renew(t) != 1 || w.connectAs(t, "old", 1) != nil {
			t.Error("the worker cannot renew its certificate")
		}
	}
}

// connectAs connects a worker with another name.
func (w *watch) connectAs(t *testing.T, name string, generation int) error {
	t.Helper()
	record, err := w.Seen(t.Context(), Sighting{Worker: w.worker, Generation: generation, Root: w.authority.Pin(), Boot: "A", Dial: 9})
	if err == nil && (record.Name != name || record.Used != generation) {
		return fmt.Errorf("the record is %+v", record)
	}
	return err
}

func TestSeenOnAStoreThatFails(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	broken := errors.New("the disk is gone")
	w.db.setFail(broken)
	if _, err := w.Seen(t.Context(), Sighting{Worker: w.worker, Generation: 1, Boot: "A"}); !errors.Is(err, broken) {
		t.Errorf("Seen gives %v", err)
	}
}

// TestWorkersByRoot follows workers through a rotation: the old root is not given up while one that may come back needs it.
func TestWorkersByRoot(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	old := w.authority.Pin()
	counts := func() map[string]int {
		t.Helper()
		counts, err := w.WorkersByRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return counts
	}
	if got := counts(); got[old] != 1 {
		t.Errorf("after the enrolment the workers are %v", got)
	}
	if err := w.authority.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := w.Retire(t.Context(), false); job.CodeOf(err) != job.CodePrecondition || !strings.Contains(err.Error(), "1 workers still") {
		t.Errorf("Retire while a worker needs the old root gives %v", err)
	}
	w.renew(t)
	if got := counts(); got[old] != 0 || got[w.authority.Pin()] != 1 {
		t.Errorf("after the renewal the workers are %v", got)
	}
	// It has not stored its new certificate, and comes back with the old one.
	if _, err := w.Seen(t.Context(), Sighting{Worker: w.worker, Generation: 1, Root: old, Boot: "A", Dial: 1}); err != nil {
		t.Fatal(err)
	}
	if got := counts(); got[old] != 1 {
		t.Errorf("after it came back with the old certificate the workers are %v", got)
	}
	w.now.advance(agentLife)
	w.db.values[workerRecord+"/wkr_damaged"] = []byte("{")
	if got := counts(); len(got) != 0 {
		t.Errorf("after their certificates have ended the workers are %v", got)
	}
	if err := w.Retire(t.Context(), false); err != nil || len(w.authority.Pins()) != 1 {
		t.Errorf("Retire when nobody needs the old root: %v, roots %v", err, w.authority.Pins())
	}
	if err := w.Retire(t.Context(), true); job.CodeOf(err) != job.CodePrecondition {
		t.Errorf("Retire without an old root gives %v", err)
	}
}

func TestForcedRetirement(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	if err := w.authority.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := w.Retire(t.Context(), true); err != nil || len(w.authority.Pins()) != 1 {
		t.Errorf("a forced end of the old root: %v, roots %v", err, w.authority.Pins())
	}
}

// TestQueuesOfAToken reach the worker's record; scopes that no queue can be in are refused.
func TestQueuesOfAToken(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	record, err := w.Worker(t.Context(), w.worker)
	if err != nil || !slices.Equal(record.Queues, []string{"default/build"}) {
		t.Errorf("the worker is %+v (error %v)", record, err)
	}
	if _, _, err := w.tokens.Create(t.Context(), CreateOptions{Queues: []string{"a/b", "team-1/*"}}); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "*", "/", "a", "a/", "/b", "*/b", "a/b/c", "a/**", "A/b", "a/b c", strings.Repeat("a", 300) + "/b"} {
		if _, _, err := w.tokens.Create(t.Context(), CreateOptions{Queues: []string{bad}}); job.CodeOf(err) != job.CodeInvalid {
			t.Errorf("the scope %.20q gives %v", bad, err)
		}
	}
}

// FuzzEnrolledWorker reads records that were damaged or written by others.
func FuzzEnrolledWorker(f *testing.F) {
	whole, err := json.Marshal(EnrolledWorker{Name: "a", Queues: []string{"a/b"}, Generation: 3, Used: 2, Expires: time.Unix(1, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(`{"generation":-1,"used":9223372036854775807,"expires":"x"}`))
	a, now := openAuthority(f, f.TempDir(), newClock().Now), newClock()
	f.Fuzz(func(t *testing.T, record []byte) {
		db := newRecords()
		db.values[workerRecord+"/wkr_1"] = record
		e := NewEnrolment(EnrolmentConfig{Authority: a, Tokens: NewTokens(db, now.Now)})
		if w, err := e.Seen(t.Context(), Sighting{Worker: "wkr_1", Generation: 1, Boot: "A", Dial: 1}); err == nil && w.Used != 1 {
			t.Errorf("after certificate 1 was used, the record says %d", w.Used)
		}
		if _, err := e.WorkersByRoot(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
