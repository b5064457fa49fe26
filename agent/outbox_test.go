package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// A session sends every report once, in order and the newest word on each attempt last; a new session sends again what was
// not acknowledged.
func TestOutboxSendsEverythingAgainInANewSession(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "outbox")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		j, _, err := openJournal(filepath.Join(dir, "journal"), "boot")
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		box := newOutbox(j, func() {}, func(err error) { t.Fatal(err) })
		attempts := make([]*attempt, 3)
		for i := range attempts {
			attempts[i] = newAttempt(nil, assignTo(ref("j", int32(i+1))), time.Now())
		}
		var unacked, sent []*hwpv1.AttemptReport // by our own book
		for range rapid.IntRange(0, 60).Draw(t, "length") {
			switch rapid.IntRange(0, 4).Draw(t, "event") {
			case 0:
				a := attempts[rapid.IntRange(0, 2).Draw(t, "attempt")]
				a.steps = append(a.steps[:len(a.steps):len(a.steps)], &hwpv1.StepReport{Step: int32(len(a.steps))})
				box.add(a)
			case 1:
				before := len(box.reports)
				box.collect()
				for _, r := range box.reports[before:] {
					unacked = append(unacked, r.message)
				}
			case 2:
				reports, _ := box.next(rapid.IntRange(0, 3).Draw(t, "limit"))
				for _, r := range reports {
					if r != unacked[len(sent)] {
						t.Fatalf("sent %v, want %v", r, unacked[len(sent)])
					}
					sent = append(sent, r)
				}
			case 3:
				box.begin()
				sent = nil
			case 4:
				n := rapid.IntRange(0, len(sent)).Draw(t, "acknowledged")
				box.acknowledge(n)
				unacked, sent = unacked[n:], sent[n:]
			}
		}
		box.collect()
		box.begin()
		last := map[int32]int{}
		for reports, _ := box.next(1000); len(reports) > 0; reports, _ = box.next(1000) {
			for _, r := range reports {
				last[r.GetAttempt().GetAttempt()] = len(r.GetSteps())
			}
		}
		for i, a := range attempts {
			if n, ok := last[int32(i+1)]; ok && n != len(a.steps) {
				t.Fatalf("the last word on attempt %d has %d steps of %d", i+1, n, len(a.steps))
			}
		}
	})
}

// What the server does not know is not reported again, but the server goes on counting what it was sent.
func TestForgottenAttemptDoesNotUpsetTheCount(t *testing.T) {
	t.Parallel()
	j, _ := mustOpenJournal(t, filepath.Join(t.TempDir(), "journal"), "boot")
	box := newOutbox(j, func() {}, func(err error) { t.Error(err) })
	a, b := newAttempt(nil, assignTo(ref("a", 1)), time.Now()), newAttempt(nil, assignTo(ref("b", 1)), time.Now())
	for _, at := range []*attempt{a, b} {
		at.final = ended(at.ref)
		box.add(at)
	}
	box.collect()
	if reports, _ := box.next(10); len(reports) != 2 {
		t.Fatalf("sent %v", reports)
	}
	box.forget(a)
	if got := box.acknowledge(2); len(got) != 2 || got[1] != b {
		t.Errorf("acknowledged %v", got)
	}
	box.add(a)
	box.collect()
	box.begin()
	if reports, _ := box.next(10); len(reports) != 0 {
		t.Errorf("an attempt that the server does not know was reported: %v", reports)
	}
}
