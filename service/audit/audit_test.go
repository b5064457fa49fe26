package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hodei-jobs/hodei/service/audit"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// world is a store with a trail, the end of which a writer has in memory, and what a keeper told.
type world struct {
	t     *testing.T
	db    store.Store
	chain chain.Chain
	file  string
	key   ed25519.PrivateKey
	keep  time.Duration

	mu     sync.Mutex
	alarms []string
	failed int
}

func newWorld(t *testing.T, db store.Store) *world {
	t.Helper()
	key, err := audit.OpenKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, db: db, file: filepath.Join(t.TempDir(), "checkpoints"), key: key}
}

func (w *world) keeper() *audit.Keeper {
	w.t.Helper()
	k, err := audit.New(audit.Config{
		Store: w.db, Key: w.key, CheckpointFile: w.file, Keep: w.keep, Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
		Alarm: func(text string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.alarms = append(w.alarms, text)
		},
		FileFailed: func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.failed++
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// run runs a keeper until the returned function is called.
func (w *world) run() (*audit.Keeper, func()) {
	w.t.Helper()
	k := w.keeper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	return k, sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}

// write appends records in one commit.
func (w *world) write(entries ...chain.Entry) {
	w.t.Helper()
	b := new(store.Batch)
	for _, e := range entries {
		seq, line := w.chain.Append(e, time.Now())
		b.Records = append(b.Records, store.Record{Kind: chain.Kind, Key: chain.Key(seq), Value: line})
	}
	w.commit(b.Records...)
}

func (w *world) commit(records ...store.Record) {
	w.t.Helper()
	if err := w.db.Commit(w.t.Context(), &store.Batch{Records: records}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(seq uint64) { w.commit(store.Record{Kind: chain.Kind, Key: chain.Key(seq)}) }

func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.alarms)
}

// wantAlarms expects alarms that have these parts, and forgets them.
func (w *world) wantAlarms(parts ...string) {
	w.t.Helper()
	told := w.told()
	if len(told) != len(parts) {
		w.t.Errorf("the alarms are %q, want %q", told, parts)
	}
	for i := range min(len(told), len(parts)) {
		if !strings.Contains(told[i], parts[i]) {
			w.t.Errorf("alarm %q does not say %q", told[i], parts[i])
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alarms = nil
}

func (w *world) public() ed25519.PublicKey { return w.key.Public().(ed25519.PublicKey) }

// checkpoints returns what the file has.
func (w *world) checkpoints() (all []chain.Checkpoint) {
	w.t.Helper()
	data, err := os.ReadFile(w.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if c, err := chain.ParseCheckpoint(bytes.TrimSuffix(line, []byte("\n")), w.public()); err == nil {
			all = append(all, c)
		}
	}
	return all
}

// stored returns the numbers of the records of a kind.
func (w *world) stored(kind string) (all []string) {
	w.t.Helper()
	records, err := w.db.ListRecords(w.t.Context(), kind)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range records {
		all = append(all, strings.TrimLeft(r.Key, "0"))
	}
	return all
}

func (w *world) export(k *audit.Keeper, from uint64) []byte {
	w.t.Helper()
	var all []byte
	if err := k.Export(w.t.Context(), from, func(line []byte) error {
		all = append(append(all, line...), '\n')
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// verify checks an export, alone and with the file.
func (w *world) verify(export []byte) (alone, both chain.Report) {
	w.t.Helper()
	file, err := os.ReadFile(w.file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	for _, c := range []struct {
		report      *chain.Report
		checkpoints []byte
	}{{&alone, nil}, {&both, file}} {
		if *c.report, err = chain.Verify(bytes.NewReader(export), bytes.NewReader(c.checkpoints), w.public()); err != nil {
			w.t.Fatal(err)
		}
	}
	return alone, both
}

func entries(n int) (all []chain.Entry) {
	for i := range n {
		all = append(all, chain.Entry{Actor: "user/ada", Action: "hodei.v1.JobService/SubmitJob", Targets: []string{fmt.Sprint("job_", i)}, Outcome: chain.OK})
	}
	return all
}

func TestCheckpointsEveryMinuteAndAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memstore.New())
		began := time.Now()
		k, stop := w.run()
		defer stop()
		time.Sleep(3*time.Minute + time.Second) // an empty trail needs none
		w.write(entries(5)...)
		time.Sleep(3 * time.Minute) // one, for the trail does not grow any more
		w.write(entries(3)...)
		time.Sleep(time.Minute)
		w.write(entries(1)...)
		stop()
		got := w.checkpoints()
		for i := range got {
			got[i].Hash = chain.Hash{}
		}
		want := []chain.Checkpoint{
			{Seq: 5, First: 1, Time: began.Add(4 * time.Minute).UTC(), KeyID: k.KeyID()},
			{Seq: 8, First: 1, Time: began.Add(7 * time.Minute).UTC(), KeyID: k.KeyID()},
			{Seq: 9, First: 1, Time: began.Add(7*time.Minute + time.Second).UTC(), KeyID: k.KeyID()},
		}
		if !reflect.DeepEqual(got, want) || !slices.Equal(w.stored(chain.CheckpointKind), []string{"5", "8", "9"}) {
			t.Errorf("the file has %+v, want %+v, the store %v", got, want, w.stored(chain.CheckpointKind))
		}
		_, stop = w.run() // a restart adds nothing by itself
		time.Sleep(2 * time.Minute)
		stop()
		if n := len(w.checkpoints()); n != 3 {
			t.Errorf("there are %d checkpoints after a restart", n)
		}
		w.wantAlarms()
	})
}

// manipulations are changes behind the server's back, and what a start, or the next minute, says about them.
var manipulations = map[string]struct {
	do   func(*world)
	want string
}{
	"tail removed": {func(w *world) { w.remove(10); w.remove(9) }, "ends with record 8, and the checkpoint of"},
	"all removed": {func(w *world) {
		for seq := range uint64(10) {
			w.remove(seq + 1)
		}
	}, "ends with record 0, and the checkpoint of"},
	"head removed": {func(w *world) { w.remove(1); w.remove(2) }, "begins with record 3, and by the checkpoint of"},
	"last changed": {func(w *world) {
		w.commit(store.Record{Kind: chain.Kind, Key: chain.Key(10), Value: []byte("x")})
	}, "record 10 of the audit trail, or one before it, was changed"},
	"chained anew": {func(w *world) {
		w.chain = chain.Chain{}
		forged := entries(12)
		forged[3].Actor = "user/eve"
		w.write(forged...)
	}, "record 10 of the audit trail, or one before it, was changed"},
	"last replaced": {func(w *world) {
		w.write(entries(1)...)
		w.remove(10)
	}, "record 10 of the audit trail was removed"},
}

func TestManipulationsAreToldAtTheStart(t *testing.T) {
	t.Parallel()
	for name, m := range manipulations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, memstore.New())
				_, stop := w.run()
				w.write(entries(10)...)
				stop()
				// Who changes the store can remove its checkpoints, but does not have the file.
				w.commit(store.Record{Kind: chain.CheckpointKind, Key: chain.Key(10)})
				m.do(w)
				k, stop := w.run()
				defer stop()
				time.Sleep(3 * time.Minute)
				w.wantAlarms(m.want) // once
				if _, both := w.verify(w.export(k, 0)); both.OK() {
					t.Errorf("the export shows nothing: %+v", both)
				}
			})
		})
	}
}

func TestManipulationsAreToldWhileTheServerRuns(t *testing.T) {
	t.Parallel()
	for name, m := range manipulations {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, memstore.New())
				k, stop := w.run()
				defer stop()
				w.write(entries(10)...)
				time.Sleep(time.Minute + time.Second)
				w.commit(store.Record{Kind: chain.CheckpointKind, Key: chain.Key(10)})
				m.do(w)
				// The server knows better than the store.
				if alone, both := w.verify(w.export(k, 0)); alone.OK() || both.OK() {
					t.Errorf("the export shows nothing: %+v, %+v", alone, both)
				}
				time.Sleep(3 * time.Minute)
				w.wantAlarms(m.want)
			})
		})
	}
}

func TestFileThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memstore.New())
		_, stop := w.run()
		defer stop()
		synctest.Wait()
		if err := os.Mkdir(w.file, 0o700); err != nil { // a folder is in its place
			t.Fatal(err)
		}
		w.write(entries(5)...)
		time.Sleep(2*time.Minute + time.Second)
		if w.mu.Lock(); w.failed != 2 {
			t.Errorf("%d failures were told", w.failed)
		}
		w.mu.Unlock()
		if err := os.Remove(w.file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if got := w.checkpoints(); len(got) != 1 || got[0].Seq != 5 {
			t.Errorf("when it could be written again, it got %+v", got)
		}
		w.wantAlarms()
	})
}

func TestFileAfterCrashesAndLosses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(whole []byte) []byte // nil: the file is gone
		alarms []string
		want   int // checkpoints after the next one
	}{
		"torn line":        {func(whole []byte) []byte { return append(whole, whole[:40]...) }, nil, 2},
		"zeros":            {func(whole []byte) []byte { return append(whole, make([]byte, 500)...) }, nil, 2},
		"gone":             {nil, nil, 2},
		"empty":            {func([]byte) []byte { return nil }, nil, 2},
		"garbage":          {func([]byte) []byte { return bytes.Repeat([]byte("x\n"), 100_000) }, []string{"is no checkpoint that this server has signed"}, 2},
		"the only is torn": {func(whole []byte) []byte { return whole[:40] }, []string{"is no checkpoint that this server has signed"}, 2},
		"another's behind": {func(whole []byte) []byte {
			other := chain.Checkpoint{Seq: 99}.Sign(ed25519.NewKeyFromSeed(make([]byte, 32)))
			return append(append(whole, other...), '\n')
		}, nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, memstore.New())
				_, stop := w.run()
				w.write(entries(5)...)
				stop()
				whole, err := os.ReadFile(w.file)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(w.file); err != nil {
					t.Fatal(err)
				}
				if c.damage != nil {
					if err := os.WriteFile(w.file, c.damage(slices.Clone(whole)), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				_, stop = w.run()
				w.wantAlarmsAfter(c.alarms)
				w.write(entries(1)...)
				stop()
				got := w.checkpoints()
				if len(got) != c.want || got[len(got)-1].Seq != 6 {
					t.Errorf("the file has %+v", got)
				}
				_, stop = w.run() // from here on it is as if nothing had been
				stop()
				w.wantAlarms()
			})
		})
	}
}

// wantAlarmsAfter waits until the keeper has done what is to be done.
func (w *world) wantAlarmsAfter(parts []string) {
	w.t.Helper()
	synctest.Wait()
	w.wantAlarms(parts...)
}

func TestOldRecordsAreRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memstore.New())
		w.keep = 10 * time.Hour
		k, stop := w.run()
		defer stop()
		time.Sleep(time.Second) // between two minutes
		for range 20 {          // one hour each
			w.write(entries(60)...)
			time.Sleep(time.Hour)
		}
		left := w.stored(chain.Kind)
		if len(left) != 600 || left[0] != "601" || left[599] != "1200" {
			t.Errorf("%d records are left, from %s on", len(left), left[0])
		}
		if left := w.stored(chain.CheckpointKind); left[0] != "660" || len(left) != 10 {
			t.Errorf("the checkpoints that are left are %v", left)
		}
		for _, from := range []uint64{0, 7, 601, 1000, 1200, 1201, 5000} {
			alone, both := w.verify(w.export(k, from))
			want := max(from, 601)
			if want > 1200 {
				want = 0
			}
			if !alone.OK() || !both.OK() || both.First != want || want > 0 && (both.Last != 1200 || alone.Vouched != 1200) {
				t.Errorf("from %d: %+v, %+v", from, alone, both)
			}
		}
		// The newest is kept however old it is, for the chain goes on from it, also after a restart.
		time.Sleep(20 * time.Hour)
		stop()
		if left := w.stored(chain.Kind); !slices.Equal(left, []string{"1200"}) {
			t.Errorf("%v is left", left)
		}
		k, stop = w.run()
		defer stop()
		w.write(entries(1)...)
		time.Sleep(time.Minute)
		if alone, both := w.verify(w.export(k, 0)); !alone.OK() || !both.OK() || both.Last != 1201 {
			t.Errorf("got %+v, %+v", alone, both)
		}
		w.wantAlarms()
	})
}

func TestADamagedRecordMakesNoOthersOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memstore.New())
		w.keep = time.Hour
		w.write(entries(7)...)
		for seq := range uint64(6) { // wherever a search looks
			w.commit(store.Record{Kind: chain.Kind, Key: chain.Key(seq + 1), Value: []byte("damaged")})
		}
		_, stop := w.run()
		defer stop()
		time.Sleep(59 * time.Minute)
		if left := w.stored(chain.Kind); len(left) != 7 {
			t.Errorf("%v is left", left)
		}
		w.wantAlarms()
	})
}

func TestNothingIsRemovedBeforeTheFileKnows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memstore.New())
		w.keep = time.Hour
		_, stop := w.run()
		defer stop()
		synctest.Wait()
		if err := os.Mkdir(w.file, 0o700); err != nil {
			t.Fatal(err)
		}
		w.write(entries(10)...)
		time.Sleep(2 * time.Hour)
		if left := w.stored(chain.Kind); len(left) != 10 {
			t.Errorf("%v is left", left)
		}
		if err := os.Remove(w.file); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if left := w.stored(chain.Kind); len(left) != 1 {
			t.Errorf("%v is left", left)
		}
		w.wantAlarms()
	})
}

func TestAnExportSeesNothingRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, memstore.New())
		w.keep = time.Hour
		k, stop := w.run()
		defer stop()
		w.write(entries(1500)...)
		var all []byte
		if err := k.Export(t.Context(), 0, func(line []byte) error {
			if len(all) == 0 {
				time.Sleep(2 * time.Hour) // a slow reader, while records become old
			}
			all = append(append(all, line...), '\n')
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if alone, _ := w.verify(all); !alone.OK() || alone.Records != 1500 {
			t.Errorf("got %+v", alone)
		}
		time.Sleep(2 * time.Minute)
		if left := w.stored(chain.Kind); len(left) != 1 {
			t.Errorf("%d records are left after the export", len(left))
		}
		w.wantAlarms()
	})
}

func TestStoreThatFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := memstore.New()
		w := newWorld(t, db)
		k, stop := w.run()
		defer stop()
		w.write(entries(5)...)
		full := errors.New("disk full")
		db.FailWith(func() error { return full })
		time.Sleep(3 * time.Minute)
		if got := w.checkpoints(); len(got) != 0 {
			t.Errorf("the file has what the store refused: %+v", got)
		}
		if alone, _ := w.verify(w.export(k, 0)); !alone.OK() || alone.Vouched != 5 {
			t.Errorf("got %+v", alone)
		}
		broken := errors.New("broken")
		if err := k.Export(t.Context(), 0, func([]byte) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("a reader that is gone gave %v", err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if err := k.Export(t.Context(), 0, func([]byte) error { return nil }); err == nil {
			t.Error("a closed store was exported")
		}
		if _, _, err := k.List(t.Context(), audit.Filter{}, 0, 10, true); err == nil {
			t.Error("a closed store was listed")
		}
		w.wantAlarms()
	})
}

func TestOnADisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func() store.Store {
		db, err := pebblestore.Open(dir, pebblestore.Options{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	w := newWorld(t, open())
	for round := range 3 {
		_, stop := w.run()
		w.write(entries(700)...)
		stop()
		if err := w.db.Close(); err != nil {
			t.Fatal(err)
		}
		w.db = open()
		newest, err := w.db.PageRecords(t.Context(), chain.Kind, store.RecordPage{Limit: 1, Descending: true})
		if err != nil {
			t.Fatal(err)
		}
		if w.chain, err = chain.Resume(newest[0].Value); err != nil {
			t.Fatal(err)
		}
		alone, both := w.verify(w.export(w.keeper(), 0))
		if last := uint64(round+1) * 700; !alone.OK() || !both.OK() || both.Vouched != last || both.Records != last || both.Checkpoints != uint64(round+1)*2 {
			t.Errorf("round %d: %+v, %+v", round, alone, both)
		}
	}
	w.wantAlarms()
	if err := w.db.Close(); err != nil {
		t.Error(err)
	}
}
