package agent

import (
	"log/slog"
	"path/filepath"
	"testing"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// An attempt that could not be written down was not taken: if it stayed known, nobody would ever run it.
func TestAssignmentThatCannotBeWrittenDownIsNotTaken(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j, _ := mustOpenJournal(t, filepath.Join(dir, "journal"), "boot")
	a := &agent{config: Config{StateDir: dir, Logger: slog.New(slog.DiscardHandler)}, journal: j, wake: make(chan struct{}, 1)}
	a.outbox = newOutbox(j, a.signal, a.journalFailed)
	a.slots = newSlots(a)
	if err := j.close(); err != nil { // as good as a full disk
		t.Fatal(err)
	}
	if err := a.slots.assign([]*hwpv1.Assign{{Attempt: ref("job_1", 1)}}); err == nil {
		t.Error("an assignment that was not written down was taken")
	}
	if refs := a.slots.refs(); len(refs) != 0 {
		t.Errorf("the agent says that it has %v", refs)
	}
}
