package storelog_test

import (
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storelog"
)

func id(n int) job.ID { return job.NewID(time.UnixMilli(int64(n/7)), uint16(n%7), uint64(n)) }

func newJob(t *testing.T, n int) *job.Job {
	t.Helper()
	j, err := job.New(id(n), job.Spec{Steps: []job.Step{{Argv: []string{"true"}}}}, time.Unix(int64(n), 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	return &j
}

// disk is what a store would keep of the log.
type disk map[uint64][]byte

func (d disk) commit(t *testing.T, h *storelog.Hot, b *storelog.Block) {
	t.Helper()
	first := h.First()
	gone, err := h.Shrink(b, func(number uint64) ([]byte, error) { return d[number], nil })
	if err != nil {
		t.Fatal(err)
	}
	d[h.Next()] = slices.Clone(b.Bytes())
	for n := range gone {
		delete(d, first+uint64(n))
	}
	h.Apply(b)
	h.Drop(gone)
}

func (d disk) reload(t *testing.T) *storelog.Hot {
	t.Helper()
	h := storelog.NewHot()
	for _, number := range slices.Sorted(maps.Keys(d)) {
		if err := h.Load(number, d[number]); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// Some jobs stay for long while most pass through. The log knows exactly the unfinished ones, also after it was read again,
// and does not grow with what has passed.
func TestLogHoldsTheUnfinishedJobsAndStaysSmall(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	h, d := storelog.NewHot(), disk{}
	want := map[job.ID]*job.Job{}
	var passing []*job.Job
	n, entries := 0, 0
	for round := range 400 {
		b := storelog.NewBlock(0)
		for _, j := range passing {
			b.End(j.ID)
			delete(want, j.ID)
			entries++
		}
		passing = nil
		for range random.IntN(300) {
			n++
			j := newJob(t, n)
			if random.IntN(3) == 0 {
				assigned, err := j.Assign("wkr_1", uint64(n))
				if err != nil {
					t.Fatal(err)
				}
				j = &assigned
			}
			b.Accept(j)
			entries++
			if want[j.ID] = j; random.IntN(50) != 0 {
				passing = append(passing, j)
			}
		}
		d.commit(t, h, b)
		if round%97 == 0 {
			h = d.reload(t)
		}
	}
	size := 0
	for _, block := range d {
		size += len(block)
	}
	if size > 2_000_000 || len(d) > 250 {
		t.Errorf("after %d entries the log has %d bytes in %d blocks", entries, size, len(d))
	}
	for name, hot := range map[string]*storelog.Hot{"in memory": h, "read again": d.reload(t)} {
		ids := hot.IDs()
		if !slices.Equal(ids, slices.SortedFunc(maps.Keys(want), job.ID.Compare)) {
			t.Fatalf("%s: %d unfinished jobs, want %d", name, len(ids), len(want))
		}
		for _, id := range ids {
			state, unfinished := hot.Find(id)
			got, err := storelog.Decode(id, storelog.AppendAccepted(nil, want[id]), state)
			if err != nil || !unfinished || !reflect.DeepEqual(got, *want[id]) {
				t.Fatalf("%s: got %+v, want %+v, %v", name, got, want[id], err)
			}
		}
	}
}

func FuzzLoad(f *testing.F) {
	b := storelog.NewBlock(1)
	j := job.Job{ID: job.ID{1}, Spec: &job.Spec{}, State: job.Running, Revision: 3}
	b.Accept(&j)
	b.End(job.ID{2})
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		h := storelog.NewHot()
		if err := h.Load(7, data); err == nil && len(data) == 0 {
			t.Fatal("an empty block was read")
		}
		for _, id := range h.IDs() {
			state, _ := h.Find(id)
			_, _ = storelog.Decode(id, data, state) // whatever comes of it, it comes without a panic
		}
	})
}

// Lists yield each id once, the largest first, however postings overlap.
func TestListsAreReadInOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		spec := &job.Spec{Namespace: "ns", Queue: "q"}
		type stored struct {
			last job.ID
			ids  []byte
		}
		lists := [2][]stored{}
		want := map[job.ID]bool{}
		for range rapid.IntRange(0, 12).Draw(t, "commits") {
			var p storelog.Postings
			for _, n := range rapid.SliceOfN(rapid.IntRange(1, 60), 1, 8).Draw(t, "jobs") {
				p.Accept(&job.Job{ID: id(n), Spec: spec})
				want[id(n)] = true
			}
			which := rapid.IntRange(0, 1).Draw(t, "list")
			posting := p.All()[0]
			lists[which] = append(lists[which], stored{posting.Last(), posting.AppendIDs(nil)})
		}
		before := job.ID{}
		if rapid.Bool().Draw(t, "paged") {
			before = id(rapid.IntRange(1, 60).Draw(t, "before"))
		}
		var readers []*storelog.ListReader
		for _, l := range lists {
			slices.SortFunc(l, func(a, b stored) int { return b.last.Compare(a.last) })
			r, err := storelog.NewListReader(func() (job.ID, []byte, bool, error) {
				if len(l) == 0 {
					return job.ID{}, nil, false, nil
				}
				head := l[0]
				l = l[1:]
				return head.last, head.ids, true, nil
			}, before)
			if err != nil {
				t.Fatal(err)
			}
			readers = append(readers, r)
		}
		var got []job.ID
		if err := storelog.Merge(readers, func(id job.ID) bool { got = append(got, id); return true }); err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(want, func(id job.ID, _ bool) bool { return !before.IsZero() && id.Compare(before) >= 0 })
		expected := slices.SortedFunc(maps.Keys(want), job.ID.Compare)
		slices.Reverse(expected)
		if !slices.Equal(got, expected) {
			t.Fatalf("got %v, want %v", got, expected)
		}
	})
}

// Whatever a filter selects is in the lists that are looked through for it.
func TestEveryJobIsInTheListsOfItsFilters(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"", "a", "b"})
		j := &job.Job{ID: id(1), State: job.State(rapid.ByteRange(byte(job.Queued), byte(job.Lost)).Draw(t, "state")), Spec: &job.Spec{
			Namespace: "n" + word.Draw(t, "namespace"), Queue: "q" + word.Draw(t, "queue"), Name: word.Draw(t, "name"),
			Labels: map[string]string{"l" + word.Draw(t, "label"): word.Draw(t, "value"), "m": strconv.Itoa(rapid.IntRange(0, 1).Draw(t, "m"))},
		}}
		var p storelog.Postings
		p.Accept(j)
		if j.State.Terminal() {
			p.End(j)
		}
		listed := map[storelog.ListKey]bool{}
		for _, posting := range p.All() {
			listed[posting.Key] = true
		}
		filter := store.Filter{Namespace: word.Draw(t, "f namespace"), Queue: word.Draw(t, "f queue"), Name: word.Draw(t, "f name")}
		if filter.Namespace != "" {
			filter.Namespace = j.Spec.Namespace
		}
		if rapid.Bool().Draw(t, "by state") {
			filter.States = []job.State{j.State}
		}
		if rapid.Bool().Draw(t, "by label") {
			filter.Labels = maps.Clone(j.Spec.Labels)
		}
		keys := storelog.ListsFor(&filter)
		if filter.Matches(j) && keys != nil && !slices.ContainsFunc(keys, func(k storelog.ListKey) bool { return listed[k] }) {
			t.Fatalf("%+v selects a job that is in none of %v", filter, keys)
		}
	})
}
