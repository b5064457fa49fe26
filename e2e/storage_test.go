package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protojson"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// quiet is a logger for Pebble.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}

// A store of a newer program is left alone.
func TestStoreOfANewerProgramIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.server.signal(t, syscall.SIGTERM)
	w.server.awaitExit(t)
	db, err := pebble.Open(filepath.Join(w.dir, "store"), &pebble.Options{
		FormatMajorVersion: pebble.FormatNewest, Logger: quiet{},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte("F"), []byte{99}, pebble.Sync), db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "store", "SYNCED"), []byte("accept\n"), 0o600); err != nil { // a newer program keeps its note
		t.Fatal(err)
	}
	got := runHodei(t, nil, nil, "server", "--data-dir", w.dir, "--listen", "127.0.0.1:0", "--ops-listen", "-")
	if got.code != 1 || !strings.Contains(got.stderr, "format [99]") || !strings.Contains(got.stderr, "run the version of hodei that wrote it") {
		t.Errorf("a newer store gave %+v", got)
	}
}

// A folder that the server may not use is named, and so is the reason.
func TestDataFolderWithoutPermission(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "hodei-e2e-") //nolint:usetesting // another user must reach the program, and a test's folders are its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	binary, err := os.ReadFile(program(t, "hodei"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{
		os.WriteFile(filepath.Join(dir, "hodei"), binary, 0o755), os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "data"), 0o500),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	server := prepare(filepath.Join(dir, "hodei"), "server", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--ops-listen", "-")
	if os.Geteuid() == 0 {
		const nobody = 65534
		server.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	server.start(t)
	code := server.awaitExit(t)
	for _, text := range []string{filepath.Join(dir, "data"), "permission denied", "--data-dir"} {
		if out := server.output.String(); code != 1 || !strings.Contains(out, text) {
			t.Errorf("a folder without permission gave code %d, want 1 and %q:\n%s", code, text, out)
		}
	}
}

// kept is what a server says about a job.
type kept struct {
	job, log string
	whole    bool // the log is complete, by the server's word
	err      error
}

// look asks for jobs and their logs.
func (w *world) look(ids []string) map[string]kept {
	c := w.client(w.url)
	all := make(map[string]kept)
	for _, id := range ids {
		var k kept
		job, err := c.Get(w.t.Context(), id)
		if err == nil {
			var log strings.Builder
			var completeness *hodeiv1.LogCompleteness
			completeness, err = c.ReadLogs(w.t.Context(), id, hodei.LogOptions{}, func(chunk *hodeiv1.LogChunk) error {
				_, err := log.Write(chunk.GetData())
				return err
			})
			k.log, k.whole = log.String(), completeness.GetState() == hodeiv1.LogState_LOG_STATE_COMPLETE
		}
		if job != nil {
			job.PendingReason = "" // it is about the workers
			k.job = protojson.MarshalOptions{}.Format(job)
		}
		k.err = err
		all[id] = k
	}
	return all
}

// Files of the store are damaged in many ways. The server either says so and does not start, or starts and has set aside what
// cannot be read: it never serves something else than what was stored, and never forgets without a word. SEED repeats a run.
func TestDamagedStoreIsNeverServed(t *testing.T) {
	t.Parallel()
	start := seed(t)
	w := newWorld(t)
	agent := w.agent("w1")
	var ids []string
	for n := range 8 {
		ids = append(ids, w.submit("--name", fmt.Sprintf("job-%d", n), "--", "sh", "-c", "seq 20000; echo end"))
		if n == 2 || n == 5 { // the log of commits becomes a table
			w.awaitJob(ids[n], "SUCCEEDED")
			w.server.kill()
			w.restart()
			w.awaitWorker("w1", "WORKER_STATE_READY")
		}
	}
	for _, id := range ids {
		w.awaitJob(id, "SUCCEEDED")
	}
	ids = append(ids, w.submit("--constraint", "never", "--", "true"))
	await(t, "the logs", func() bool {
		return !slices.ContainsFunc(slices.Collect(maps.Values(w.look(ids[:8]))), func(k kept) bool { return !k.whole })
	})
	before := w.look(ids)
	agent.kill()
	w.server.kill()

	files := storeFiles(t, filepath.Join(w.dir, "store"))
	for n := range 12 {
		random := rand.New(rand.NewPCG(start, uint64(n)))
		file := files[n%len(files)]
		t.Run(fmt.Sprintf("%d-%s", n, filepath.Base(file)), func(t *testing.T) {
			t.Parallel()
			copied := &world{t: t, dir: t.TempDir()}
			if err := os.CopyFS(copied.dir, os.DirFS(w.dir)); err != nil {
				t.Fatal(err)
			}
			copied.checkDamaged(before, damage(t, filepath.Join(copied.dir, "store", file), random))
		})
	}
}

// storeFiles returns a file of a store of each kind, one that is in use and has something in it.
func storeFiles(t *testing.T, dir string) []string {
	t.Helper()
	kinds := make(map[string][]string)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "LOCK" {
			return err
		}
		name, err := filepath.Rel(dir, path)
		kind := strings.TrimRight(name, "0123456789")
		if strings.HasSuffix(name, ".log") || strings.HasSuffix(name, ".sst") {
			kind = filepath.Ext(name)
		}
		data, errRead := os.ReadFile(path)
		if len(bytes.Trim(data, "\x00")) > 0 {
			kinds[kind] = append(kinds[kind], name)
		}
		return errors.Join(err, errRead)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the store has %v", kinds)
	var out []string
	for _, kind := range []string{".log", ".sst", "MANIFEST-", "OPTIONS-"} {
		if len(kinds[kind]) == 0 {
			t.Fatalf("there is no file %s in %v", kind, kinds)
		}
		out = append(out, kinds[kind][len(kinds[kind])-1]) // the newest is in use
	}
	return out
}

// injury is what was done to a file.
type injury struct {
	what string
	// noted says that the file is one of which the server keeps in mind what was synced, and that this has changed: it must refuse.
	noted bool
}

// damage changes a file in what is written of it: a bit is flipped, a piece is zeroed or overwritten, or the end is cut off.
func damage(t *testing.T, file string, random *rand.Rand) injury {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(data)
	written := len(bytes.TrimRight(data, "\x00"))
	at, kind := random.IntN(written), random.IntN(4)
	piece := data[at:min(at+512, written)]
	switch kind {
	case 0:
		data[at] ^= 1 << random.IntN(8)
	case 1:
		clear(piece)
	case 2:
		for i := range piece {
			piece[i] = byte(random.Uint32())
		}
	case 3:
		data = data[:at]
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	names := [...]string{"a bit flipped", "512 bytes zeroed", "512 bytes overwritten", "cut off"}
	return injury{
		what:  fmt.Sprintf("%s: %s at %d of %d", filepath.Base(file), names[kind], at, written),
		noted: (strings.HasSuffix(file, ".log") || strings.Contains(file, "MANIFEST-")) && !bytes.Equal(data, before),
	}
}

// checkDamaged starts a server on damaged files and compares what it says with what was there before.
func (w *world) checkDamaged(before map[string]kept, i injury) {
	t := w.t
	t.Helper()
	w.server = startDaemon(t, nil, "hodei", "server", "--data-dir", w.dir, "--listen", "127.0.0.1:0", "--ops-listen", "-", "--log-format", "json")
	await(t, "the server to start or to refuse", func() bool {
		select {
		case <-w.server.exited:
			return true
		default:
			w.url = w.logged("server ready", "url")
			return w.url != ""
		}
	})
	if w.url == "" {
		out := w.server.output.String()
		if code := w.server.awaitExit(t); code != 1 || strings.Contains(out, "goroutine ") || !strings.Contains(out, filepath.Join(w.dir, "store")) {
			t.Errorf("%s: the server ended with %d and without a clear word:\n%s", i.what, code, out)
		}
		t.Logf("%s: refused: %s", i.what, lastLine(out))
		return
	}
	if i.noted {
		t.Errorf("%s: the server started:\n%s", i.what, w.server.output.String())
	}
	ids := slices.Sorted(maps.Keys(before))
	after := w.look(ids)
	var changed, gone []string
	for _, id := range ids {
		now, was := after[id], before[id]
		switch {
		case errors.Is(now.err, hodei.ErrNotFound):
			gone = append(gone, id)
		case now.err == nil && now.whole && now.log != was.log:
			t.Errorf("%s: the log of %s had %d bytes and has %d without a word", i.what, id, len(was.log), len(now.log))
		case now.err == nil && now != was:
			changed = append(changed, id)
		}
	}
	out := w.server.output.String()
	told := strings.Contains(out, `"level":"ERROR"`)
	t.Logf("%s: started; of %d jobs, %d differ and %d are gone; told: %v", i.what, len(ids), len(changed), len(gone), told)
	if len(changed)+len(gone) > 0 && !told {
		t.Errorf("%s: %v differ, %v are gone, and the server has nothing to say about it:\n%s", i.what, changed, gone, out)
	}
	if strings.Contains(out, "panic:") {
		t.Errorf("%s: the server fell over:\n%s", i.what, out)
	}
}

// What is wrong with the last bytes of the newest log of commits or list of tables makes nobody forget an acknowledged job: the
// server refuses, after it was killed and after it was stopped, and says what to do. It starts when the operator accepts that.
func TestDamagedEndOfTheStoreIsRefused(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(w *world){
		"killed":  func(w *world) { w.server.kill() },
		"stopped": func(w *world) { w.server.signal(t, syscall.SIGTERM); w.server.awaitExit(t) },
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.submit("--", "true")
			w.server.kill()
			w.restart()
			id := w.submit("--", "true")
			end(w)
			files := storeFiles(t, filepath.Join(w.dir, "store"))
			for _, file := range []string{files[0], files[2]} {
				path := filepath.Join(w.dir, "store", file)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				flipped := bytes.Clone(data)
				flipped[len(data)-1] ^= 4
				for what, damaged := range map[string][]byte{"is cut off": data[:len(data)-1], "differs": flipped} {
					if err := os.WriteFile(path, damaged, 0o600); err != nil {
						t.Fatal(err)
					}
					for range 2 { // asking again changes nothing
						got := runHodei(t, nil, nil, "server", "--data-dir", w.dir, "--listen", "127.0.0.1:0", "--ops-listen", "-")
						for _, text := range []string{file, what, "is damaged", "restore a backup", filepath.Join(w.dir, "store", "SYNCED")} {
							if got.code != 1 || !strings.Contains(got.stderr, text) {
								t.Errorf("a damaged %s (%s) gave %d, and not 1 and %q: %s", file, what, got.code, text, got.stderr)
							}
						}
					}
				}
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w.restart()
			if state := w.field("job", id, "state"); state != "JOB_STATE_QUEUED" {
				t.Errorf("with its files as they were the server has the job as %q", state)
			}
			w.server.kill()
			note := filepath.Join(w.dir, "store", "SYNCED")
			if err := os.WriteFile(note, []byte("accept\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			w.restart()
			if out := w.server.output.String(); !strings.Contains(out, "the store is taken as it is") {
				t.Errorf("the server does not tell that it took the store as it was:\n%s", out)
			}
		})
	}
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// A worker that is gone for good costs its jobs no more than the lease and a little: what may run again does, what may not is
// lost, with the default settings.
func TestJobsOfAKilledAgentAreFreeAfterTheLease(t *testing.T) {
	t.Parallel()
	const lease, slack = 15 * time.Second, 15 * time.Second
	w := newWorld(t)
	doomed := w.agent("w1")
	once := w.submit("--", "sleep", "1000")
	again := w.submit("--max-attempts", "2", "--", "sh", "-c", `test "$HODEI_ATTEMPT" = 2 || exec sleep 1000`)
	w.awaitJob(once, "RUNNING")
	w.awaitJob(again, "RUNNING")
	w.agent("w2")
	doomed.kill()
	begin := time.Now()
	w.awaitJob(once, "LOST")
	w.awaitJob(again, "SUCCEEDED")
	took := time.Since(begin)
	t.Logf("after %v", took.Round(100*time.Millisecond))
	if took > lease+slack {
		t.Errorf("the jobs of a killed agent were free after %v", took)
	}
	if got := w.hodei("wait", once); got.code != 125 && got.code != 1 {
		t.Errorf("waiting for a lost job gave %+v", got)
	}
}
