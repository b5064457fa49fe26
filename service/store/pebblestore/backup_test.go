package pebblestore_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// Backups are made while commits go on. Each opens, has everything that was acknowledged before it began, and is the state
// between two commits.
func TestBackupsAreWholeWhileCommitsGoOn(t *testing.T) {
	t.Parallel()
	h := history{padding: 5000}
	dir := t.TempDir()
	s := openAt(t, filepath.Join(dir, "store"), nil)
	var committed, appended atomic.Int64
	done := make(chan error, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for k := 1; ctx.Err() == nil; k++ {
			if err := s.Commit(context.Background(), h.batch(k)); err != nil {
				done <- err
				return
			}
			committed.Store(int64(k))
			if _, err := appendOutput(context.Background(), s, k); err != nil {
				done <- err
				return
			}
			appended.Store(int64(k))
		}
		done <- nil
	}()
	const backups = 6
	var before [backups][2]int
	for i := range backups {
		for committed.Load() < int64(15*i) { // some more each time
		}
		before[i] = [2]int{int(committed.Load()), int(appended.Load())}
		if err := s.Backup(t.Context(), filepath.Join(dir, fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if err := errors.Join(<-done, s.Close()); err != nil {
		t.Fatal(err)
	}
	for i, acknowledged := range before {
		copied := openAt(t, filepath.Join(dir, fmt.Sprint(i)), nil)
		k, err := h.last(t.Context(), copied)
		if err != nil || k < acknowledged[0] {
			t.Fatalf("%d commits were acknowledged before the backup, which has %d, %v", acknowledged[0], k, err)
		}
		if err := errors.Join(h.check(t.Context(), copied, k), h.checkOutput(t.Context(), copied, acknowledged[1], k)); err != nil {
			t.Fatalf("after %d commits: %.2000v", k, err)
		}
		if _, _, err := h.write(t.Context(), copied, k+1); err != nil { // it is a store like any other
			t.Fatal(err)
		}
		if err := copied.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBackupRefusesWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openAt(t, filepath.Join(dir, "store"), nil)
	if err := s.Backup(t.Context(), dir); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a backup into a folder that is there gave %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(t.Context(), filepath.Join(file, "backup")); err == nil {
		t.Error("a backup into a file was made")
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(canceled, filepath.Join(dir, "late")); !errors.Is(err, context.Canceled) {
		t.Errorf("a backup that nobody waits for gave %v", err)
	}
	if err := s.Commit(t.Context(), &store.Batch{Records: []store.Record{{Kind: "k", Key: "k", Value: []byte("v")}}}); err != nil {
		t.Errorf("the store is unwell after a backup was refused: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Backup(t.Context(), filepath.Join(dir, "closed")); err == nil || job.CodeOf(err) != job.CodeInternal {
		t.Errorf("a backup of a closed store gave %v", err)
	}
	if _, err := pebblestore.Open(filepath.Join(dir, "store"), pebblestore.Options{}); err != nil {
		t.Error(err)
	}
}
