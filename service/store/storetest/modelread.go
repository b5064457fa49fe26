package storetest

import (
	"bytes"
	"reflect"
	"slices"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// What a machine reads, it compares with what should be there.

func (m *machine) readJobs(r *rapid.T) {
	known := append(m.ids(true), id(1), id(999_999))
	slices.SortFunc(known, job.ID.Compare)
	asked := rapid.SliceOfNDistinct(rapid.SampledFrom(known), 0, 5, rapid.ID[job.ID]).Draw(r, "ids")
	slices.SortFunc(asked, job.ID.Compare)
	var want []job.Job
	for _, jobID := range asked {
		if j := m.jobs[jobID]; j != nil {
			want = append(want, *j)
			wantJob(r, m.store, j)
		} else {
			wantNoJob(r, m.store, jobID)
		}
	}
	var got []job.Job
	if err := m.store.JobsByID(r.Context(), asked, func(j job.Job) { got = append(got, j) }); err != nil || !reflect.DeepEqual(got, want) {
		r.Fatalf("got %+v, want %+v, %v", got, want, err)
	}
	m.unfinished(r)
}

func (m *machine) unfinished(r *rapid.T) {
	var live []*job.Job
	for _, jobID := range m.ids(false) {
		live = append(live, m.jobs[jobID])
	}
	wantUnfinished(r, m.store, live)
}

func (m *machine) list(r *rapid.T) {
	var f store.Filter
	pick := func(name string) bool { return rapid.Bool().Draw(r, name) }
	if pick("by namespace") {
		f.Namespace = words().Draw(r, "namespace")
	}
	if pick("by queue") {
		f.Queue = words().Draw(r, "queue")
	}
	if rapid.IntRange(0, 3).Draw(r, "by name") == 0 {
		f.Name = words().Draw(r, "name")
	}
	if rapid.IntRange(0, 3).Draw(r, "by label") == 0 {
		f.Labels = map[string]string{words().Draw(r, "label"): words().Draw(r, "label value")}
	}
	if pick("by state") {
		for _, state := range rapid.SliceOfN(rapid.ByteRange(byte(job.Blocked), byte(job.Skipped)), 1, 4).Draw(r, "states") {
			f.States = append(f.States, job.State(state))
		}
	}
	if rapid.IntRange(0, 5).Draw(r, "by id") == 0 {
		f.IDs = rapid.SliceOfN(rapid.SampledFrom(append(m.ids(true), id(1))), 1, 6).Draw(r, "ids")
	}
	before, limit := job.ID{}, rapid.IntRange(1, 6).Draw(r, "limit")
	if pick("from the middle") {
		before = id(rapid.IntRange(999_990, m.now+10).Draw(r, "before"))
	}
	var want []job.Job
	for _, jobID := range slices.Backward(m.ids(true)) {
		if j := m.jobs[jobID]; len(want) < limit && f.Matches(j) && (before.IsZero() || jobID.Compare(before) < 0) {
			want = append(want, *j)
		}
	}
	if got, err := m.store.ListJobs(r.Context(), f, before, limit); err != nil || !reflect.DeepEqual(got, want) {
		r.Fatalf("%+v before %v: got %v, want %v, %v", f, before, ids(got), ids(want), err)
	}
}

func (m *machine) readLogs(r *rapid.T) {
	refs := []store.LogRef{{Job: id(1), Attempt: 1}}
	for _, jobID := range m.ids(true) {
		refs = append(refs, store.LogRef{Job: jobID, Attempt: 1}, store.LogRef{Job: jobID, Attempt: 2})
	}
	m.readLog(r, rapid.SampledFrom(refs).Draw(r, "log"))
}

func (m *machine) readLog(r *rapid.T, ref store.LogRef) {
	l := m.logs[ref]
	if l == nil {
		l = new(modelLog)
	}
	want := l.state()
	state, err := m.store.LogState(r.Context(), ref)
	if err != nil || !reflect.DeepEqual(state, want) {
		r.Fatalf("the state is %+v, want %+v, %v", state, want, err)
	}
	offset := rapid.Uint64Range(0, want.Bytes+2).Draw(r, "offset")
	maxBytes := rapid.IntRange(1, 30).Draw(r, "max bytes")
	var blocks []store.LogBlock
	size := 0
	for _, b := range l.blocks {
		if b.End() > offset && size < maxBytes {
			blocks = append(blocks, b)
			size += len(b.Data)
		}
	}
	got, err := m.store.ReadLogs(r.Context(), ref, offset, maxBytes)
	if err != nil || len(got) != len(blocks) || len(got) > 0 && !reflect.DeepEqual(got, blocks) {
		r.Fatalf("from %d: got %+v, want %+v, %v", offset, got, blocks, err)
	}
}

func (m *machine) readOthers(r *rapid.T) {
	for _, word := range []string{"a", "b", "ab", "other"} {
		got, err := m.store.Request(r.Context(), "ns/"+word)
		want, ok := m.requests["ns/"+word]
		if !ok && job.CodeOf(err) != job.CodeNotFound || ok && (err != nil || !reflect.DeepEqual(got, want)) {
			r.Fatalf("the request is %+v, want %+v, %v", got, want, err)
		}
		records, err := m.store.ListRecords(r.Context(), word)
		wanted := m.sortedRecords(word)
		if err != nil || len(records) != len(wanted) || len(records) > 0 && !reflect.DeepEqual(records, wanted) {
			r.Fatalf("the records of %s are %+v, want %+v, %v", word, records, wanted, err)
		}
		page := store.RecordPage{
			After: rapid.SampledFrom([]string{"", "a", "aa", "ab", "b"}).Draw(r, "after"),
			Limit: rapid.IntRange(0, 4).Draw(r, "limit"), Descending: rapid.Bool().Draw(r, "descending"),
		}
		records, err = m.store.PageRecords(r.Context(), word, page)
		wanted = pageOf(wanted, page)
		if err != nil || len(records) != len(wanted) || len(records) > 0 && !reflect.DeepEqual(records, wanted) {
			r.Fatalf("the page %+v of %s is %+v, want %+v, %v", page, word, records, wanted, err)
		}
		value, err := m.store.Record(r.Context(), word, word)
		if record, ok := m.records[word+"/"+word]; ok != (err == nil) || !bytes.Equal(value, record.Value) {
			r.Fatalf("the record is %q, want %q, %v", value, record.Value, err)
		}
	}
}

// readEverything ends a run.
func (m *machine) readEverything(r *rapid.T) {
	for _, j := range m.jobs {
		wantJob(r, m.store, j)
	}
	for ref := range m.logs {
		m.readLog(r, ref)
	}
	m.unfinished(r)
	m.readOthers(r)
	want := m.ids(true)
	slices.Reverse(want)
	if got := listAll(r, m.store, store.Filter{}, 5); !slices.Equal(got, want) {
		r.Fatalf("there are %v, want %v", got, want)
	}
}
