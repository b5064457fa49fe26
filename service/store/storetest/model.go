package storetest

import (
	"cmp"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Model runs random sequences of writes, openings, removals and reads: a store has at all times exactly what a few maps have
// that went through the same. It opens many stores, so a harness that opens them in memory is the best one.
func Model(t *testing.T, h Harness) {
	t.Helper()
	rapid.Check(t, func(r *rapid.T) {
		m := &machine{
			store: h.Open(t), jobs: make(map[job.ID]*job.Job), requests: make(map[string]store.Request),
			records: make(map[string]store.Record), logs: make(map[store.LogRef]*modelLog), now: 1_000_000,
		}
		defer func() {
			if err := m.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		m.lead(r)
		r.Repeat(map[string]func(*rapid.T){
			"commit": m.commit, "commit again": m.commit, "commit a third time": m.commit, "append": m.append,
			"merge": m.merge, "remove": m.remove, "lead": m.lead, "expire": m.expire,
			"reopen": func(r *rapid.T) {
				m.store = h.Reopen(t, m.store)
				m.lead(r)
			},
			"read jobs": m.readJobs, "list": m.list, "read logs": m.readLogs, "read others": m.readOthers,
		})
		m.readEverything(r)
	})
}

// machine is a store and what should be in it.
type machine struct {
	store    store.Store
	jobs     map[job.ID]*job.Job
	requests map[string]store.Request
	records  map[string]store.Record // by kind, slash and key
	logs     map[store.LogRef]*modelLog
	term     uint64
	now      int // grows with every write; seconds
}

type modelLog struct {
	blocks []store.LogBlock
	end    *store.LogEnd
}

func (l *modelLog) last() *store.LogBlock {
	if l == nil || len(l.blocks) == 0 {
		return nil
	}
	return &l.blocks[len(l.blocks)-1]
}

func (l *modelLog) state() (state store.LogState) {
	if last := l.last(); last != nil {
		state.Bytes, state.Lines = last.End(), last.Line+uint64(last.Lines)
	}
	if l != nil {
		state.End = l.end
	}
	return state
}

// words are few, so that things meet.
func words() *rapid.Generator[string] { return rapid.SampledFrom([]string{"a", "b", "ab"}) }

func (m *machine) ids(finished bool) []job.ID {
	all := slices.SortedFunc(maps.Keys(m.jobs), job.ID.Compare)
	if finished {
		return all
	}
	return slices.DeleteFunc(all, func(jobID job.ID) bool { return m.jobs[jobID].State.Terminal() })
}

func (m *machine) lead(r *rapid.T) {
	term := lead(r, m.store)
	if term <= m.term {
		r.Fatalf("the term after %d is %d", m.term, term)
	}
	m.term = term
}

// commit writes a batch that may have anything in it, at times as a writer that was deposed.
func (m *machine) commit(r *rapid.T) {
	m.now += rapid.IntRange(1, 100).Draw(r, "seconds")
	term := rapid.SampledFrom([]uint64{m.term, m.term, 0, m.term - 1}).Draw(r, "term")
	b := &store.Batch{Term: term}
	for range rapid.IntRange(0, 4).Draw(r, "new jobs") {
		b.Accepted = append(b.Accepted, m.newJob(r))
		m.now++
	}
	if live := m.ids(false); len(live) > 0 {
		for _, jobID := range rapid.SliceOfNDistinct(rapid.SampledFrom(live), 0, 5, rapid.ID[job.ID]).Draw(r, "changed") {
			b.Changed = append(b.Changed, m.step(r, m.jobs[jobID]))
		}
	}
	for range rapid.IntRange(0, 2).Draw(r, "requests") {
		id := "ns/" + words().Draw(r, "request")
		expires := at(m.now + rapid.IntRange(0, 100_000).Draw(r, "expires"))
		if before, ok := m.requests[id]; ok && expires.Before(before.Expires) {
			continue // it is used again only when it has expired
		}
		b.Requests = append(b.Requests, store.Request{ID: id, Hash: [32]byte{byte(m.now)}, Jobs: m.ids(true), Expires: expires})
		if len(b.Requests) == 2 && b.Requests[0].ID == id {
			b.Requests = b.Requests[1:]
		}
	}
	for range rapid.IntRange(0, 3).Draw(r, "records") {
		value := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(r, "value")
		b.Records = append(b.Records, store.Record{Kind: words().Draw(r, "kind"), Key: words().Draw(r, "key"), Value: value})
	}
	if ids := m.ids(true); len(ids) > 0 && rapid.Bool().Draw(r, "end") {
		ref := store.LogRef{Job: rapid.SampledFrom(ids).Draw(r, "log"), Attempt: 1}
		b.Ends = append(b.Ends, store.LogEnd{Ref: ref, Bytes: m.logs[ref].state().Bytes, Missing: words().Draw(r, "missing")})
	}
	err := m.store.Commit(r.Context(), b)
	if term != 0 && term != m.term {
		if err == nil {
			r.Fatalf("a commit of term %d was taken in term %d", term, m.term)
		}
		return
	}
	if err != nil {
		r.Fatal(err)
	}
	m.apply(b)
}

func (m *machine) apply(b *store.Batch) {
	for _, j := range slices.Concat(b.Accepted, b.Changed) {
		m.jobs[j.ID] = j
	}
	for _, q := range b.Requests {
		m.requests[q.ID] = q
	}
	for _, q := range b.Records {
		if m.records[q.Kind+"/"+q.Key] = q; len(q.Value) == 0 {
			delete(m.records, q.Kind+"/"+q.Key)
		}
	}
	for i := range b.Ends {
		m.log(b.Ends[i].Ref).end = &b.Ends[i]
	}
}

func (m *machine) log(ref store.LogRef) *modelLog {
	if m.logs[ref] == nil {
		m.logs[ref] = new(modelLog)
	}
	return m.logs[ref]
}

// newJob makes a job, now and then one that has gone some way already.
func (m *machine) newJob(r *rapid.T) *job.Job {
	j := newJob(r, m.now, func(s *job.Spec) {
		s.Namespace, s.Queue, s.Name = words().Draw(r, "namespace"), words().Draw(r, "queue"), words().Draw(r, "name")
		s.Labels = map[string]string{words().Draw(r, "label"): words().Draw(r, "label value")}
		s.MaxAttempts = int32(rapid.IntRange(1, 2).Draw(r, "attempts"))
		if rapid.IntRange(0, 4).Draw(r, "delayed") == 0 {
			s.RunAfter = at(m.now + 50)
		}
	})
	for range rapid.IntRange(0, 3).Draw(r, "steps") {
		if !j.State.Terminal() {
			j = m.step(r, j)
		}
	}
	return j
}

// step brings a job one transition further.
func (m *machine) step(r *rapid.T, j *job.Job) *job.Job {
	now, next := at(m.now), must(r)
	if rapid.IntRange(0, 9).Draw(r, "cancel") == 0 && j.State != job.Canceling {
		return next(j.RequestCancel(job.CancelRequest{Actor: "a", Reason: "r"}, now))
	}
	switch {
	case j.State == job.Delayed:
		return next(j.Ready())
	case j.State == job.Queued:
		return next(j.Assign("wkr_1", uint64(m.now)))
	case j.State == job.Assigned && rapid.Bool().Draw(r, "start"):
		return next(j.StepStarted(0, now))
	}
	cause := job.Cause{Kind: job.CauseExitCode, ExitCode: int32(rapid.IntRange(0, 1).Draw(r, "code"))}
	if j.State == job.Canceling {
		cause = job.Cause{Kind: job.CauseCanceled}
	}
	return next(j.Finish(cause, now))
}

func (m *machine) append(r *rapid.T) {
	ids := m.ids(true)
	if len(ids) == 0 {
		r.Skip("no job has a log")
	}
	var blocks []store.LogBlock
	for range rapid.IntRange(1, 3).Draw(r, "blocks") {
		ref := store.LogRef{Job: rapid.SampledFrom(ids).Draw(r, "log"), Attempt: int32(rapid.IntRange(1, 2).Draw(r, "attempt"))}
		l := m.log(ref)
		b := block(ref, l.last(), rapid.SliceOfN(rapid.Byte(), 1, 9).Draw(r, "data"))
		l.blocks = append(l.blocks, b)
		blocks = append(blocks, b)
	}
	appendLogs(r, m.store, blocks...)
}

// drawLog picks a log that was written to.
func (m *machine) drawLog(r *rapid.T) (store.LogRef, *modelLog) {
	refs := slices.SortedFunc(maps.Keys(m.logs), func(a, b store.LogRef) int {
		return cmp.Or(a.Job.Compare(b.Job), cmp.Compare(a.Attempt, b.Attempt))
	})
	if len(refs) == 0 {
		r.Skip("there is no log")
	}
	ref := rapid.SampledFrom(refs).Draw(r, "log")
	return ref, m.logs[ref]
}

// merge puts one block in the place of some, and one that does not fit in the place of none.
func (m *machine) merge(r *rapid.T) {
	_, l := m.drawLog(r)
	if len(l.blocks) == 0 {
		r.Skip("the log is empty")
	}
	first := rapid.IntRange(0, len(l.blocks)-1).Draw(r, "first")
	behind := rapid.IntRange(first+1, len(l.blocks)).Draw(r, "behind")
	b := merged(l.blocks[first:behind])
	if rapid.IntRange(0, 3).Draw(r, "does not fit") == 0 {
		b.Bytes += 3
		mergeLogs(r, m.store, b)
		return
	}
	mergeLogs(r, m.store, b)
	l.blocks = slices.Replace(l.blocks, first, behind, b)
}

func (m *machine) remove(r *rapid.T) {
	ref, l := m.drawLog(r)
	end := store.LogEnd{Ref: ref, Bytes: l.state().Bytes, Removed: words().Draw(r, "why")}
	if err := m.store.RemoveLogs(r.Context(), []store.LogEnd{end}); err != nil {
		r.Fatal(err)
	}
	if l.end != nil {
		l.blocks, l.end = nil, &end
	}
}

func (m *machine) expire(r *rapid.T) {
	ended, expired := at(rapid.IntRange(1_000_000, m.now+100).Draw(r, "ended before")), at(m.now+rapid.IntRange(0, 200_000).Draw(r, "expired before"))
	want := 0
	for jobID, j := range m.jobs {
		if j.State.Terminal() && j.Ended.Before(ended) {
			want++
			delete(m.jobs, jobID)
			maps.DeleteFunc(m.logs, func(ref store.LogRef, _ *modelLog) bool { return ref.Job == jobID })
		}
	}
	if got := expire(r, m.store, ended, expired); got != want {
		r.Fatalf("%d jobs were removed, want %d", got, want)
	}
	for id, q := range m.requests {
		_, err := m.store.Request(r.Context(), id)
		gone := job.CodeOf(err) == job.CodeNotFound
		if gone && !q.Expires.Before(expired) || !gone && q.Expires.Before(expired.Add(-12*time.Hour)) {
			r.Fatalf("a request that expires at %s gives %v after those that expire before %s were removed", q.Expires, err, expired)
		}
		if gone {
			delete(m.requests, id)
		}
	}
}

// sortedRecords returns the records of a kind, by key.
func (m *machine) sortedRecords(kind string) []store.Record {
	var out []store.Record
	for _, q := range m.records {
		if q.Kind == kind {
			out = append(out, q)
		}
	}
	slices.SortFunc(out, func(a, b store.Record) int { return cmp.Compare(a.Key, b.Key) })
	return out
}
