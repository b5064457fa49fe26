package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// smallDisk mounts a file system of so many MiB of its own.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		t.Fatalf("mounting a small file system: %v; tests of a full disk must run as root, where mounting is allowed", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill writes a file until no more than so many bytes are free, and returns its name.
func fill(t *testing.T, dir string, leave int64) string {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for n := freeBytes(t, dir) - leave; n > 0; n = freeBytes(t, dir) - leave {
		if _, err := file.Write(make([]byte, min(n, 1<<20))); err != nil {
			t.Fatal(err)
		}
	}
	return file.Name()
}

// noise is text that does not compress to much less.
func noise(t *testing.T, n int) []byte {
	t.Helper()
	raw := make([]byte, n/2)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	return []byte(hex.EncodeToString(raw))
}

// When the disk is nearly full, submits are refused with the reason, output stays with the agents, and everything else goes
// on: jobs end, cancels work. When there is space again, the same server takes jobs and gets the output, byte by byte.
func TestNearlyFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 160) // of which a tenth is kept in reserve
	w := newWorldIn(t, dir)
	w.agent("w1", "--state-dir", filepath.Join(t.TempDir(), "agent"))
	gate, data := filepath.Join(t.TempDir(), "gate"), filepath.Join(t.TempDir(), "data")
	want := noise(t, 12<<20) // three times what an agent may have sent without an acknowledgement
	if err := os.WriteFile(data, want, 0o600); err != nil {
		t.Fatal(err)
	}
	writer := w.submit("--", "sh", "-c", `while [ ! -e "$0" ]; do sleep 0.05; done; cat "$1"; exit 3`, gate, data)
	sleeper := w.submit("--", "sleep", "1000")
	w.awaitJob(writer, "RUNNING")
	w.awaitJob(sleeper, "RUNNING")

	ballast := fill(t, dir, 10<<20)
	var refused result
	await(t, "a submit to be refused", func() bool {
		refused = w.hodei("submit", "--", "true")
		return refused.code != 0
	})
	for _, text := range []string{"takes no new jobs", dir, "MiB free", "16 MiB are kept in reserve", "--disk-reserve"} {
		if !strings.Contains(refused.stderr, text) {
			t.Errorf("the refusal does not say %q: %s", text, refused.stderr)
		}
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.awaitJob(writer, "FAILED") // reports go on
	w.must("cancel", sleeper)
	w.awaitJob(sleeper, "CANCELED")
	if got := w.hodei("logs", writer); got.stdout != "" {
		t.Errorf("%d bytes of output were taken in although the disk is nearly full", len(got.stdout))
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	await(t, "a submit to be accepted", func() bool { return w.hodei("submit", "--name", "late", "--", "true").code == 0 })
	if got := w.hodei("logs", "-f", writer); !bytes.Equal([]byte(got.stdout), want) || got.code != 0 {
		t.Errorf("%d bytes of output were written and %d arrived, or they differ: %s", len(want), len(got.stdout), got.stderr)
	}
	await(t, "the late job", func() bool {
		return strings.Contains(w.must("job", "list", "--name", "late", "-o", "json"), "JOB_STATE_SUCCEEDED")
	})
	out := w.server.output.String()
	if strings.Count(out, "the disk is nearly full") != 1 || strings.Count(out, "the disk has room again") != 1 {
		t.Errorf("the server should have said once that the disk is nearly full, and once that it has room again:\n%s", out)
	}
	select {
	case <-w.server.exited:
		t.Error("the server ended")
	default:
	}
}

// Without a reserve the disk fills up to the last byte. Then the server stops and says why, and when it is started again with
// space, everything that it has acknowledged is there.
func TestFullDiskStopsTheServerAndNothingIsLost(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, 160)
	w := newWorldIn(t, dir, "--disk-reserve", "-1")
	c := w.client(w.url)
	payload := string(noise(t, 100<<10))
	accepted := make(map[string]bool)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ballast := ""
	for stopped := false; !stopped; {
		if len(accepted) > 0 && ballast == "" {
			ballast = fill(t, dir, 1<<20)
		}
		request := &hodeiv1.SubmitJobsRequest{}
		for range 10 {
			spec := shellJob("true")
			spec.Env = map[string]string{"PAYLOAD": payload}
			request.Requests = append(request.Requests, &hodeiv1.SubmitJobRequest{Spec: spec})
		}
		res, err := c.Raw.Jobs.SubmitJobs(ctx, request)
		if err == nil {
			for _, r := range res.GetResults() {
				accepted[r.GetJobId()] = true
			}
			continue
		}
		select {
		case <-w.server.exited:
			stopped = true
		case <-time.After(time.Second):
		}
		if ctx.Err() != nil {
			t.Fatalf("the server neither took jobs nor stopped on a full disk, after %d jobs; the last error: %v", len(accepted), err)
		}
	}
	if code := w.server.awaitExit(t); code != 1 || !strings.Contains(w.server.output.String(), "free space or repair the disk") {
		t.Errorf("on a full disk the server ended with %d:\n%s", code, w.server.output)
	}
	t.Logf("%d jobs were accepted before the disk was full", len(accepted))
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.restart()
	for id := range accepted {
		job, err := c.Get(t.Context(), id)
		if err != nil || job.GetSpec().GetEnv()["PAYLOAD"] != payload {
			t.Fatalf("after the restart, %s of %d accepted jobs is %v, %v", id, len(accepted), job.GetState(), err)
		}
	}
	w.agent("w1", "--state-dir", filepath.Join(t.TempDir(), "agent"))
	if got := w.hodei("run", "--", "echo", "hi"); got.stdout != "hi\n" || got.code != 0 {
		t.Errorf("a run after the restart gave %+v", got)
	}
}
