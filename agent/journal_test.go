package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

func ref(id string, attempt int32) *hwpv1.AttemptRef {
	epoch := uint64(attempt) << 32
	for _, c := range []byte(id[:min(len(id), 4)]) {
		epoch += uint64(c) * 31
	}
	return &hwpv1.AttemptRef{JobId: id, Attempt: attempt, Epoch: epoch}
}

func assignTo(r *hwpv1.AttemptRef) *hwpv1.Assign { return &hwpv1.Assign{Attempt: r} }

func ended(r *hwpv1.AttemptRef) *hwpv1.AttemptReport {
	return &hwpv1.AttemptReport{Attempt: r, EndTime: 5, Silent: true}
}

func mustOpenJournal(t *testing.T, path, boot string) (*journal, past) {
	t.Helper()
	j, p, err := openJournal(path, boot)
	if err != nil {
		t.Fatal(err)
	}
	return j, p
}

func TestJournalRemembersWhatIsNotSettled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j, p := mustOpenJournal(t, path, "boot")
	if len(p.attempts) != 0 || p.forgetful {
		t.Fatalf("a new journal has %+v", p)
	}
	a, b, c := ref("a", 1), ref("b", 2), ref("c", 1)
	for _, step := range []error{
		j.take([]*hwpv1.Assign{assignTo(a), assignTo(b)}), j.take([]*hwpv1.Assign{assignTo(c)}),
		j.end([]*hwpv1.AttemptReport{ended(a), ended(c)}), j.settle([]*hwpv1.AttemptRef{c}, 2), j.close(),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	for _, boot := range []string{"boot", "another", ""} { // it is written anew with every start
		j, p = mustOpenJournal(t, path, boot)
		if len(p.attempts) != 2 || p.attempts[0].ref.GetJobId() != "a" && p.attempts[1].ref.GetJobId() != "a" {
			t.Fatalf("after a restart: %+v", p)
		}
		for _, former := range p.attempts {
			if isA := former.ref.GetJobId() == "a"; isA != former.ended.GetSilent() || former.ref.GetEpoch() == 0 {
				t.Errorf("attempt %v ended as %v", former.ref, former.ended)
			}
		}
		if p.forgetful != (boot != "boot") {
			t.Errorf("in boot %q the agent is forgetful: %v", boot, p.forgetful)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTornJournalIsCutOffAtTheLastWholeBlock(t *testing.T) {
	t.Parallel()
	whole := filepath.Join(t.TempDir(), "whole")
	j, _ := mustOpenJournal(t, whole, "boot")
	sizes := []int64{j.size}
	for _, id := range []string{"a", "b", "c"} {
		if err := j.take([]*hwpv1.Assign{assignTo(ref(id, 1)), assignTo(ref(id, 2))}); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, j.size)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(data) {
		path := filepath.Join(t.TempDir(), "torn")
		if err := os.WriteFile(path, data[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		torn, p := mustOpenJournal(t, path, "boot")
		want := 0
		for _, size := range sizes[1:] {
			if int64(cut) >= size {
				want += 2
			}
		}
		if len(p.attempts) != want {
			t.Fatalf("cut at %d of %d: %d attempts, want %d", cut, len(data), len(p.attempts), want)
		}
		if err := torn.take([]*hwpv1.Assign{assignTo(ref("z", 1))}); err != nil {
			t.Fatal(err)
		}
		if err := torn.close(); err != nil {
			t.Fatal(err)
		}
		if _, p := mustOpenJournal(t, path, "boot"); len(p.attempts) != want+1 {
			t.Fatalf("after the repair at %d: %d attempts", cut, len(p.attempts))
		}
	}
}

func TestLargeJournalIsWrittenAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := mustOpenJournal(t, path, "boot")
	if err := j.take([]*hwpv1.Assign{assignTo(ref("kept", 1))}); err != nil {
		t.Fatal(err)
	}
	j.live = func() []journaled { return []journaled{{ref: ref("kept", 1)}} }
	big := ref(string(bytes.Repeat([]byte("x"), 60_000)), 1)
	for range 400 {
		if err := j.take([]*hwpv1.Assign{assignTo(big)}); err != nil {
			t.Fatal(err)
		}
		if err := j.settle([]*hwpv1.AttemptRef{big}, 1); err != nil {
			t.Fatal(err)
		}
	}
	if j.size > journalLimit+200_000 {
		t.Errorf("the journal has %d bytes", j.size)
	}
	if _, p := mustOpenJournal(t, path, "boot"); len(p.attempts) != 1 || p.attempts[0].ref.GetJobId() != "kept" {
		t.Errorf("after a restart: %+v", p)
	}
	j.live = func() []journaled { return nil }
	if err := j.settle([]*hwpv1.AttemptRef{ref("kept", 1)}, 0); err != nil || j.size > journalRest {
		t.Errorf("a journal in which all is settled has %d bytes, %v", j.size, err)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte{0, 0, 0, 7})
	f.Add([]byte{0, 0, 0, 2, 1, 2, 3, 4, 'B', 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, n := decodeBlock(data)
		if n > len(data) || n < 0 {
			t.Fatalf("read %d of %d bytes", n, len(data))
		}
		if n == 0 {
			entries = data // as if the checksum had been right
		}
		var again []byte
		if err := readEntries(entries, func(kind byte, payload []byte) error {
			again = appendEntry(again, kind, payload)
			return nil
		}); err == nil && n > 0 && len(again) > len(entries) {
			t.Fatalf("%q became %q", entries, again)
		}
	})
}
