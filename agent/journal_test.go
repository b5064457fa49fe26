package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

func ref(id string, attempt int32) *hwpv1.AttemptRef {
	return &hwpv1.AttemptRef{JobId: id, Attempt: attempt, Epoch: 7}
}

func reportAbout(r *hwpv1.AttemptRef) *hwpv1.AgentMessage {
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_AttemptFinished{AttemptFinished: &hwpv1.AttemptFinished{Attempt: r}}}
}

func TestJournalRemembersWhatIsNotSettled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j, p, err := openJournal(path)
	if err != nil || len(p.attempts) != 0 {
		t.Fatal(err, p)
	}
	box := newOutbox(j, "boot", nil, func() {})
	for _, step := range []error{
		j.accept([]*hwpv1.Assign{{Attempt: ref("a", 1)}}), j.accept([]*hwpv1.Assign{{Attempt: ref("b", 2), Retryable: true}}), box.add(reportAbout(ref("a", 1))), j.finish(ref("a", 1)),
		box.add(reportAbout(ref("b", 2))), j.close(),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	j, p, err = openJournal(path)
	if err != nil || len(p.attempts) != 2 || !p.attempts[0].finished || p.attempts[1].finished || len(p.reports) != 2 {
		t.Fatalf("after a restart: %+v, %v", p, err)
	}
	box = newOutbox(j, "boot2", p.reports, func() {})
	refs, err := box.acknowledge([]string{"boot-1"})
	if err != nil || len(refs) != 1 || refs[0].GetJobId() != "a" || box.pending("Aa.1") || !box.pending("Ab.2") {
		t.Fatalf("after an acknowledgement: %v, %v", refs, err)
	}
	if err := box.forget("Ab.2"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"Aa.1", "Ab.2"} {
		if err := j.done(key); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("a journal in which all is settled has %d bytes, %v", info.Size(), err)
	}
}

func TestTornJournalIsCutOffAtTheLastWholeEntry(t *testing.T) {
	t.Parallel()
	whole := filepath.Join(t.TempDir(), "whole")
	j, _, err := openJournal(whole)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	for _, id := range []string{"a", "b", "c"} {
		if err := j.accept([]*hwpv1.Assign{{Attempt: ref(id, 1), Retryable: true}}); err != nil {
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
		torn, p, err := openJournal(path)
		want := 0
		for _, size := range sizes {
			if int64(cut) >= size {
				want++
			}
		}
		if err != nil || len(p.attempts) != want {
			t.Fatalf("cut at %d of %d: %d attempts, want %d, %v", cut, len(data), len(p.attempts), want, err)
		}
		if err := torn.accept([]*hwpv1.Assign{{Attempt: ref("z", 1), Retryable: true}}); err != nil {
			t.Fatal(err)
		}
		if err := torn.close(); err != nil {
			t.Fatal(err)
		}
		if _, p, err := openJournal(path); err != nil || len(p.attempts) != want+1 {
			t.Fatalf("after the repair at %d: %d attempts, %v", cut, len(p.attempts), err)
		}
	}
}

func TestLargeJournalIsWrittenAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := openJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.accept([]*hwpv1.Assign{{Attempt: ref("kept", 1), Retryable: true}}); err != nil {
		t.Fatal(err)
	}
	big := string(bytes.Repeat([]byte("x"), 60_000))
	for range 200 {
		if err := j.accept([]*hwpv1.Assign{{Attempt: ref(big, 1), Retryable: true}}); err != nil {
			t.Fatal(err)
		}
		if err := j.done("A" + big + ".1"); err != nil {
			t.Fatal(err)
		}
	}
	if j.size > journalLimit+200_000 {
		t.Errorf("the journal has %d bytes", j.size)
	}
	if _, p, err := openJournal(path); err != nil || len(p.attempts) != 1 || p.attempts[0].ref.GetJobId() != "kept" {
		t.Errorf("after a restart: %+v, %v", p, err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(encodeEntry(entryReport, "Rkey", []byte("payload")))
	f.Add([]byte{0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, key, payload, n := decodeEntry(data)
		if n > len(data) || n < 0 {
			t.Fatalf("read %d of %d bytes", n, len(data))
		}
		if n > 0 && !bytes.Equal(encodeEntry(kind, key, payload), data[:n]) {
			t.Fatalf("%q does not encode to what it was read from", data[:n])
		}
	})
}

func TestOutboxSendsEverythingAgainInANewSession(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "outbox")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		j, _, err := openJournal(filepath.Join(dir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		defer j.close()
		box := newOutbox(j, "b", nil, func() {})
		var unacked, unsent []string // by our own book
		for range rapid.IntRange(0, 50).Draw(t, "length") {
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				m := reportAbout(ref("j", 1))
				if err := box.add(m); err != nil {
					t.Fatal(err)
				}
				unacked, unsent = append(unacked, m.GetRequestId()), append(unsent, m.GetRequestId())
			case 1:
				for _, m := range box.next(rapid.IntRange(0, 3).Draw(t, "limit")) {
					if len(unsent) == 0 || unsent[0] != m.GetRequestId() {
						t.Fatalf("sent %s, want the first of %v", m.GetRequestId(), unsent)
					}
					unsent = unsent[1:]
				}
			case 2:
				box.begin()
				unsent = append([]string{}, unacked...)
			case 3:
				if len(unacked) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(unacked)-1).Draw(t, "acknowledged")
				id := unacked[i]
				if _, err := box.acknowledge([]string{id, "unknown"}); err != nil {
					t.Fatal(err)
				}
				unacked = append(append([]string{}, unacked[:i]...), unacked[i+1:]...)
				for k, u := range unsent {
					if u == id {
						unsent = append(append([]string{}, unsent[:k]...), unsent[k+1:]...)
						break
					}
				}
			}
		}
		if box.pending("Aj.1") != (len(unacked) > 0) {
			t.Fatalf("pending is %v with %v", box.pending("Aj.1"), unacked)
		}
	})
}
