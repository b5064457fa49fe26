package storelog_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/memstore"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

func id(n int) job.ID {
	return job.NewID(time.UnixMilli(1_000_000_000+int64(n/7)), uint16(n%7), uint64(n))
}

func newJob(t rapid.TB, n int, edit func(*job.Spec)) *job.Job {
	t.Helper()
	spec := job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}
	if edit != nil {
		edit(&spec)
	}
	j, err := job.New(id(n), spec, id(n).Time())
	if err != nil {
		t.Fatal(err)
	}
	return &j
}

// advance brings a job a step further.
func advance(t rapid.TB, j *job.Job) *job.Job {
	t.Helper()
	var next job.Job
	var err error
	if j.State == job.Queued {
		next, err = j.Assign("wkr_1", uint64(j.Revision)<<32)
	} else {
		next, err = j.Finish(job.Cause{Kind: job.CauseExitCode, ExitCode: int32(j.Created.UnixMilli() % 2)}, j.Created.Add(time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &next
}

// Some jobs stay for long while most pass through. The log has exactly the unfinished ones, also after it was read again, and
// does not grow with what has passed.
func TestLogHoldsTheUnfinishedJobsAndStaysSmall(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	e := newEngine()
	var live []*job.Job
	n, entries := 0, 0
	for round := range 400 {
		b := &store.Batch{}
		var stay []*job.Job
		for _, j := range live {
			if random.IntN(30) == 0 || j.State == job.Queued && random.IntN(3) > 0 {
				j = advance(t, j)
				b.Changed = append(b.Changed, j)
				entries++
			}
			if !j.State.Terminal() {
				stay = append(stay, j)
			}
		}
		for range random.IntN(300) {
			n++
			j := newJob(t, n, nil)
			for range random.IntN(3) {
				j = advance(t, j)
			}
			b.Accepted = append(b.Accepted, j)
			entries++
			if !j.State.Terminal() {
				stay = append(stay, j)
			}
		}
		live = stay
		if err := e.commit(b); err != nil {
			t.Fatal(err)
		}
		if round%97 == 0 {
			e.reload(t)
		}
	}
	size := 0
	for _, block := range e.blocks {
		size += len(block)
	}
	if size > 1_500_000 || len(e.blocks) > 300 {
		t.Errorf("after %d entries, with %d unfinished jobs, the log has %d bytes in %d blocks", entries, len(live), size, len(e.blocks))
	}
	for _, name := range []string{"in memory", "read again"} {
		i := 0
		damaged, err := e.log.Unfinished(t.Context(), func(j job.Job) error {
			if i >= len(live) || !reflect.DeepEqual(j, *live[i]) {
				t.Fatalf("%s: unfinished job %d is %+v", name, i, j)
			}
			i++
			return nil
		})
		if err != nil || damaged != 0 || i != len(live) {
			t.Errorf("%s: %d of %d unfinished jobs, %d damaged, %v", name, i, len(live), damaged, err)
		}
		e.reload(t)
	}
}

// Whatever is written and however it is asked for, the answers are those of a store that keeps jobs in a map.
func TestJobsAreThoseOfTheModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e, model := newEngine(), memstore.New()
		var live []*job.Job
		n := 0
		word := rapid.SampledFrom([]string{"", "a", "b"})
		for range rapid.IntRange(1, 8).Draw(t, "commits") {
			b := &store.Batch{}
			for range rapid.SampledFrom([]int{0, 1, 3, 70}).Draw(t, "accepted") {
				n++
				b.Accepted = append(b.Accepted, newJob(t, n, func(s *job.Spec) {
					s.Namespace, s.Queue, s.Name = "n"+word.Draw(t, "namespace"), "q"+word.Draw(t, "queue"), word.Draw(t, "name")
					s.Labels = map[string]string{"l" + word.Draw(t, "label"): word.Draw(t, "value")}
				}))
			}
			for i := range live {
				if rapid.IntRange(0, 2).Draw(t, "advance") == 0 {
					live[i] = advance(t, live[i])
					b.Changed = append(b.Changed, live[i])
				}
			}
			if rapid.Bool().Draw(t, "shuffle") {
				slices.Reverse(b.Changed)
			}
			live = slices.DeleteFunc(append(live, b.Accepted...), func(j *job.Job) bool { return j.State.Terminal() })
			if err := e.commit(b); err != nil {
				t.Fatal(err)
			}
			if err := model.Commit(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if rapid.IntRange(0, 3).Draw(t, "expire") == 0 {
				e.expire(t, model, id(rapid.IntRange(0, n+10000).Draw(t, "before")).Time())
			}
			e.compare(t, model, n)
		}
	})
}

// expire removes old jobs from both.
func (e *engine) expire(t *rapid.T, model *memstore.Store, before time.Time) {
	sweep, _, err := e.log.Sweep(t.Context(), before, job.ID{})
	if err != nil {
		t.Fatal(err)
	}
	e.sweep(sweep)
	removed, _, err := model.Expire(t.Context(), before, before)
	if err != nil || sweep.Removed != removed || len(sweep.Jobs) > removed {
		t.Fatalf("%d jobs were removed in %d runs, want %d, %v", sweep.Removed, len(sweep.Jobs), removed, err)
	}
	if len(e.pages) == 0 && len(e.lists)+len(e.endings) > 0 {
		t.Fatalf("without pages there are %d lists and %d endings", len(e.lists), len(e.endings))
	}
}

func (e *engine) compare(t *rapid.T, model *memstore.Store, n int) {
	word := rapid.SampledFrom([]string{"", "a", "b"})
	some := id(rapid.IntRange(1, n+1).Draw(t, "some job"))
	got, err := e.log.Job(t.Context(), some)
	want, wantErr := model.Job(t.Context(), some)
	if !reflect.DeepEqual(got, want) || job.CodeOf(err) != job.CodeOf(wantErr) {
		t.Fatalf("job %s is %+v, %v, want %+v, %v", some, got, err, want, wantErr)
	}
	filter := store.Filter{Queue: rapid.SampledFrom([]string{"", "qa"}).Draw(t, "f queue"), Name: word.Draw(t, "f name")}
	if rapid.Bool().Draw(t, "in a namespace") {
		filter.Namespace = "n" + word.Draw(t, "f namespace")
	}
	if rapid.Bool().Draw(t, "with a label") {
		filter.Labels = map[string]string{"l" + word.Draw(t, "f label"): word.Draw(t, "f value")}
	}
	states := []job.State{job.Queued, job.Assigned, job.Succeeded, job.Failed}
	filter.States = rapid.SliceOfNDistinct(rapid.SampledFrom(states), 0, 2, rapid.ID).Draw(t, "f states")
	if rapid.IntRange(0, 3).Draw(t, "by id") == 0 {
		filter.IDs = []job.ID{some, id(1), some}
	}
	before := job.ID{}
	if rapid.Bool().Draw(t, "paged") {
		before = id(rapid.IntRange(1, n+1).Draw(t, "f before"))
	}
	limit := rapid.SampledFrom([]int{1, 5, 1000}).Draw(t, "limit")
	list, err := e.log.ListJobs(t.Context(), filter, before, limit)
	wantList, wantErr := model.ListJobs(t.Context(), filter, before, limit)
	if err != nil || wantErr != nil || len(list) != len(wantList) || len(list) > 0 && !reflect.DeepEqual(list, wantList) {
		t.Fatalf("%+v before %s gave %d jobs, want %d, %v", filter, before, len(list), len(wantList), err)
	}
}

// A job that is accepted late would be where nobody looks for it.
func TestIdsMustGrow(t *testing.T) {
	t.Parallel()
	e := newEngine()
	if err := e.commit(&store.Batch{Accepted: []*job.Job{newJob(t, 5, nil)}}); err != nil {
		t.Fatal(err)
	}
	for _, ids := range [][]int{{7, 6}, {4}, {5}} {
		b := &store.Batch{}
		for _, n := range ids {
			b.Accepted = append(b.Accepted, newJob(t, n, nil))
		}
		if err := e.commit(b); err == nil || !strings.Contains(err.Error(), "not smaller") {
			t.Errorf("jobs %v after job 5 gave %v", ids, err)
		}
		e.reload(t)
	}
	changed := advance(t, newJob(t, 9, nil))
	if err := e.commit(&store.Batch{Changed: []*job.Job{changed}}); err == nil || !strings.Contains(err.Error(), "never accepted") {
		t.Errorf("the change of a job that is not there gave %v", err)
	}
}

// A large spec does not make others slow to read: it fills a page of its own.
func TestLargeSpecsFillPagesSooner(t *testing.T) {
	t.Parallel()
	e := newEngine()
	b := &store.Batch{}
	for n := range 40 {
		b.Accepted = append(b.Accepted, newJob(t, n+1, func(s *job.Spec) { s.Steps[0].Argv = []string{"true", strings.Repeat("x", 20_000)} }))
	}
	if err := e.commit(b); err != nil {
		t.Fatal(err)
	}
	if len(e.pages) != 20 {
		t.Errorf("40 jobs of 20 kB are in %d pages", len(e.pages))
	}
}

// What cannot be read is set aside once, and hides nothing else.
func TestDamagedPagesAndJobsAreSetAside(t *testing.T) {
	t.Parallel()
	e := newEngine()
	var jobs []*job.Job
	for n := range 3 * 64 {
		jobs = append(jobs, newJob(t, n+1, nil))
	}
	if err := e.commit(&store.Batch{Accepted: jobs}); err != nil {
		t.Fatal(err)
	}
	e.pages[id(64)] = []byte("garbage")
	delete(e.pages, id(128))
	e.reload(t)
	for _, want := range []int{128, 0} {
		seen := 0
		if damaged, err := e.log.Unfinished(t.Context(), func(job.Job) error { seen++; return nil }); err != nil || damaged != want || seen != 64 {
			t.Errorf("%d jobs seen, %d damaged, %v; want 64 and %d", seen, damaged, err, want)
		}
		e.reload(t)
	}
	if len(e.setAside) != 1 || string(e.setAside[0].Bytes) != "garbage" {
		t.Errorf("set aside: %v", e.setAside)
	}
	if list, err := e.log.ListJobs(t.Context(), store.Filter{}, job.ID{}, 1000); err != nil || len(list) != 64 {
		t.Errorf("the list has %d jobs, %v", len(list), err)
	}
}

// endsWhileRead lets a job end right after its page was read.
type endsWhileRead struct {
	*engine
	end *store.Batch
}

func (e *endsWhileRead) PagesFrom(ctx context.Context, from job.ID, n int) ([]storelog.Page, error) {
	pages, err := e.engine.PagesFrom(ctx, from, n)
	if b := e.end; b != nil {
		e.end = nil
		err = errors.Join(err, e.commit(b))
	}
	return pages, err
}

// A job that ends while old ones are looked for is neither removed, nor taken for one that cannot be read, nor is what is
// between the jobs that go on its two sides.
func TestJobThatEndsDuringASweepStays(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	e := &endsWhileRead{engine: newEngine()}
	e.log = storelog.New(e, slog.New(slog.NewTextHandler(&log, nil)))
	jobs := []*job.Job{advance(t, advance(t, newJob(t, 1, nil))), advance(t, newJob(t, 2, nil)), advance(t, advance(t, newJob(t, 3, nil)))}
	if err := e.commit(&store.Batch{Accepted: jobs}); err != nil {
		t.Fatal(err)
	}
	e.end = &store.Batch{Changed: []*job.Job{advance(t, jobs[1])}}
	sweep, _, err := e.log.Sweep(t.Context(), id(1_000_000).Time(), job.ID{})
	if err != nil || sweep.Removed != 2 || len(sweep.Jobs) != 2 || len(sweep.Pages) != 0 || log.Len() != 0 {
		t.Errorf("%d jobs go in the runs %v, with the pages %v, %v; the log has %s", sweep.Removed, sweep.Jobs, sweep.Pages, err, &log)
	}
}

// A sweep is looked for first and removed later. A job of the same page that ends between the two, or while the page is looked at, is
// on the lists afterwards; and when it goes too, nothing of the page is left.
func TestJobThatEndsBeforeASweepIsRemovedStaysListed(t *testing.T) {
	t.Parallel()
	for name, during := range map[string]bool{"between the two": false, "while it is looked for": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := &endsWhileRead{engine: newEngine()}
			e.log = storelog.New(e, slog.New(slog.DiscardHandler))
			jobs := []*job.Job{advance(t, advance(t, newJob(t, 1, nil))), advance(t, newJob(t, 2, nil))}
			if err := e.commit(&store.Batch{Accepted: jobs}); err != nil {
				t.Fatal(err)
			}
			ends := &store.Batch{Changed: []*job.Job{advance(t, jobs[1])}}
			if during {
				e.end = ends
			}
			sweep, _, err := e.log.Sweep(t.Context(), id(1_000_000).Time(), job.ID{})
			if err != nil || sweep.Removed != 1 {
				t.Fatalf("%d jobs go, %v", sweep.Removed, err)
			}
			if !during {
				if err := e.commit(ends); err != nil {
					t.Fatal(err)
				}
			}
			e.sweep(sweep)
			spec := jobs[1].Spec
			for what, filter := range map[string]store.Filter{
				"state":     {Namespace: spec.Namespace, States: []job.State{job.Succeeded, job.Failed}},
				"queue":     {Namespace: spec.Namespace, Queue: spec.Queue},
				"namespace": {Namespace: spec.Namespace},
			} {
				if got, err := e.log.ListJobs(t.Context(), filter, job.ID{}, 10); err != nil || len(got) != 1 || got[0].ID != jobs[1].ID {
					t.Errorf("by its %s are listed %v, %v", what, got, err)
				}
			}
			if sweep, _, err = e.log.Sweep(t.Context(), id(1_000_000).Time(), job.ID{}); err != nil || sweep.Removed != 1 {
				t.Fatalf("of the rest %d jobs go, %v", sweep.Removed, err)
			}
			e.sweep(sweep)
			if len(e.pages)+len(e.lists)+len(e.endings) > 0 {
				t.Errorf("left are %d pages, %d lists and %d endings", len(e.pages), len(e.lists), len(e.endings))
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	e := newEngine()
	jobs := []*job.Job{newJob(f, 1, nil), advance(f, newJob(f, 2, nil))}
	if err := e.commit(&store.Batch{Accepted: jobs}); err != nil {
		f.Fatal(err)
	}
	ended := advance(f, jobs[1])
	if err := e.commit(&store.Batch{Changed: []*job.Job{ended}}); err != nil {
		f.Fatal(err)
	}
	for last, page := range e.pages {
		f.Add(e.blocks[0], page, e.endings[last][1])
	}
	f.Fuzz(func(t *testing.T, block, page, endings []byte) {
		e := newEngine()
		if err := e.log.Load(0, block); err != nil {
			return
		}
		e.pages[id(2)], e.endings[id(2)] = page, map[uint64][]byte{1: endings}
		e.log.Loaded(id(2))
		// Whatever comes of it, it comes without a panic, and in bounded memory.
		for n := range 4 {
			_, _ = e.log.Job(t.Context(), id(n))
		}
		_, _ = e.log.ListJobs(t.Context(), store.Filter{}, job.ID{}, 10)
		_, _, _ = e.log.Sweep(t.Context(), time.Unix(1<<40, 0), job.ID{})
		if _, err := e.log.Unfinished(t.Context(), func(job.Job) error { return nil }); err != nil {
			t.Fatal(err)
		}
		var again int
		if again, _ = e.log.Unfinished(t.Context(), func(job.Job) error { return nil }); again != 0 {
			t.Fatalf("%d jobs were set aside twice", again)
		}
	})
}

var _ storelog.Engine = (*engine)(nil)
