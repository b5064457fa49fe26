package pebblestore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/pebblestore"
)

// A history is a sequence of commits that follows from their numbers alone, so that after whatever happened it can be said
// what a store must have. Commit k accepts jobs 2k and 2k+1, the second of which has ended already, gives job 2k-2 to a worker,
// ends job 2k-4, and writes a log's end, a request and the record that says k. Between commits output is appended.
type history struct{ padding int }

const blockSize = 100

var outputRef = store.LogRef{Job: jobID(2), Attempt: 1}

func jobID(n int) job.ID { return job.NewID(time.Unix(int64(n), 0), 0, 9) }

// newJob is job n as it was accepted. The padding of its spec cannot be compressed.
func (h history) newJob(n int) job.Job {
	padding := make([]byte, h.padding)
	random := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = random.Read(padding) // it never fails
	spec := job.Spec{Name: fmt.Sprint(n), Env: map[string]string{"PADDING": string(padding)}, Steps: []job.Step{{Argv: []string{"true"}}}}
	j, err := job.Accepted(jobID(n), &spec, time.Unix(int64(n), 0).UTC())
	if err != nil {
		panic(err) //nolint:forbidigo // facts of a test are right
	}
	spec.Namespace, spec.Queue, spec.Labels = "ns", "q", map[string]string{"odd": fmt.Sprint(n % 2)}
	return j
}

// job is job n after k commits.
func (h history) job(n, k int) job.Job {
	j := h.newJob(n)
	age := k - n/2
	if n%2 == 1 {
		age = 2
	}
	var err error
	if age >= 1 {
		j, err = j.Assign("wkr_1", uint64(n))
	}
	if err == nil && age >= 2 {
		j, err = j.Finish(job.Cause{Kind: job.CauseExitCode, ExitCode: int32(n % 3)}, j.Created.Add(time.Minute))
	}
	if err != nil {
		panic(err) //nolint:forbidigo // facts of a test are right
	}
	return j
}

func (h history) batch(k int) *store.Batch {
	fresh, ended := h.job(2*k, k), h.job(2*k+1, k)
	b := &store.Batch{Accepted: []*job.Job{&fresh, &ended}, Requests: []store.Request{request(k)}, Records: []store.Record{lastRecord(k)}}
	for back := 1; back <= 2 && k-back >= 1; back++ {
		changed := h.job(2*(k-back), k)
		b.Changed = append(b.Changed, &changed)
		if back == 2 {
			b.Ends = append(b.Ends, logEnd(k-2))
		}
	}
	return b
}

func request(k int) store.Request {
	return store.Request{ID: fmt.Sprintf("ns/%d", k), Jobs: []job.ID{jobID(2 * k), jobID(2*k + 1)}, Expires: time.Unix(1_000_000+int64(k)*3600, 0).UTC()}
}

func lastRecord(k int) store.Record {
	return store.Record{Kind: "last", Key: "commit", Value: binary.BigEndian.AppendUint64(nil, uint64(k))}
}

func logEnd(i int) store.LogEnd {
	return store.LogEnd{Ref: store.LogRef{Job: jobID(2 * i), Attempt: 7}, Bytes: uint64(i)}
}

func output(offset int) store.LogBlock {
	data := bytes.Repeat([]byte{byte(offset / blockSize)}, blockSize)
	return store.LogBlock{Ref: outputRef, Offset: uint64(offset), Bytes: blockSize, Time: time.Unix(1, 0).UTC(), Data: data}
}

// write writes commit k and the output after it. It reports which of the two were acknowledged.
func (h history) write(ctx context.Context, s *pebblestore.Store, k int) (committed, appended bool, err error) {
	if err := s.Commit(ctx, h.batch(k)); err != nil {
		return false, false, err
	}
	appended, err = appendOutput(ctx, s, k)
	return true, appended, err
}

// mergeEvery is after how many pieces of output these are merged.
const mergeEvery = 4

// appendOutput appends what comes after commit k, and now and then merges it with what came before. It reports whether the
// first was acknowledged; nothing is to be known of the second.
func appendOutput(ctx context.Context, s *pebblestore.Store, k int) (appended bool, err error) {
	if err := s.AppendLogs(ctx, outputOf(k), nil); err != nil || k%mergeEvery != 0 {
		return err == nil, err
	}
	merged := output((k - mergeEvery) * blockSize)
	for n := k - mergeEvery + 1; n < k; n++ {
		merged.Data = append(merged.Data, output(n*blockSize).Data...)
	}
	merged.Bytes = uint32(len(merged.Data))
	return true, s.MergeLogs(ctx, []store.LogBlock{merged})
}

// errWrong marks a store that serves something else than what was written.
var errWrong = errors.New("the store serves what was not written")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errWrong, fmt.Sprintf(format, args...))
}

// last returns how many commits a store has.
func (h history) last(ctx context.Context, s *pebblestore.Store) (int, error) {
	value, err := s.Record(ctx, "last", "commit")
	switch {
	case job.CodeOf(err) == job.CodeNotFound:
		return 0, nil
	case err != nil:
		return 0, err
	case len(value) != 8:
		return 0, wrong("the record is %x", value)
	}
	return int(binary.BigEndian.Uint64(value)), nil
}

// check compares a store with what it must have after k commits: nothing more, nothing less, nothing else. It returns all that is
// wrong, and the errors of the store itself.
func (h history) check(ctx context.Context, s *pebblestore.Store, k int) error {
	var problems []error
	note := func(what string, err error, right bool) {
		switch {
		case job.CodeOf(err) == job.CodeNotFound:
			problems = append(problems, wrong("%s is gone", what))
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", what, err))
		case !right:
			problems = append(problems, wrong("%s is something else", what))
		}
	}
	var all, unfinished []job.ID
	for n := 2; n <= 2*k+1; n++ {
		want := h.job(n, k)
		all = append(all, want.ID)
		if !want.State.Terminal() {
			unfinished = append(unfinished, want.ID)
		}
		got, err := s.Job(ctx, want.ID)
		note(fmt.Sprintf("job %d", n), err, reflect.DeepEqual(got, want))
	}
	for n := range 2 {
		if _, err := s.Job(ctx, jobID(2*k+2+n)); job.CodeOf(err) != job.CodeNotFound {
			problems = append(problems, wrong("a part of commit %d is there: %v", k+1, err))
		}
	}
	for i := 1; i <= k; i++ {
		got, err := s.Request(ctx, request(i).ID)
		note(fmt.Sprintf("request %d", i), err, reflect.DeepEqual(got, request(i)))
		if i <= k-2 {
			want := logEnd(i)
			state, err := s.LogState(ctx, want.Ref)
			note(fmt.Sprintf("the end of log %d", i), err, reflect.DeepEqual(state, store.LogState{End: &want}))
		}
	}
	slices.Reverse(all)
	listed, err := s.ListJobs(ctx, store.Filter{Namespace: "ns", Queue: "q"}, job.ID{}, 10*k+10)
	got := make([]job.ID, len(listed))
	for i := range listed {
		got[i] = listed[i].ID
	}
	note(fmt.Sprintf("the list %v", got), err, slices.Equal(got, all))
	got = nil
	damaged, err := s.Unfinished(ctx, func(j job.Job) error { got = append(got, j.ID); return nil })
	note(fmt.Sprintf("the list of unfinished jobs, %d of them damaged, %v,", damaged, got), err, slices.Equal(got, unfinished))
	return errors.Join(problems...)
}

// checkOutput compares the output, of which there must be between least and most pieces.
func (h history) checkOutput(ctx context.Context, s *pebblestore.Store, least, most int) error {
	state, err := s.LogState(ctx, outputRef)
	if err != nil {
		return err
	}
	pieces := int(state.Bytes) / blockSize
	if pieces < least || pieces > most {
		return wrong("there are %d pieces of output, not %d to %d", pieces, least, most)
	}
	blocks, err := s.ReadLogs(ctx, outputRef, 0, 1<<30)
	if err != nil {
		return err
	}
	var data []byte
	for i := range blocks {
		if int(blocks[i].Offset) != len(data) || int(blocks[i].Bytes) != len(blocks[i].Data) {
			return wrong("after %d bytes of output there are %d at %d", len(data), blocks[i].Bytes, blocks[i].Offset)
		}
		data = append(data, blocks[i].Data...)
	}
	for i := range pieces {
		want := output(i * blockSize).Data
		if len(data) < len(want) || !bytes.Equal(data[:len(want)], want) {
			return wrong("piece %d of the output is something else", i)
		}
		data = data[len(want):]
	}
	if len(data) > 0 {
		return wrong("%d bytes of output were read behind its end", len(data))
	}
	return nil
}

// checkAfterCrash opens a store and checks that it has exactly the acknowledged commits, and perhaps the next one.
func (h history) checkAfterCrash(ctx context.Context, s *pebblestore.Store, committed, appended int) error {
	k, err := h.last(ctx, s)
	if err != nil || k < committed || k > committed+1 {
		return wrong("%d commits were acknowledged, and the last one is %d, %v", committed, k, err)
	}
	return errors.Join(h.check(ctx, s, k), h.checkOutput(ctx, s, appended, appended+1))
}
