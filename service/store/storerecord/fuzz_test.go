package storerecord_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// Whatever a record holds, reading it neither panics nor takes more memory than some times its size, and what it gives can be
// written and read again and is the same.

// perByte bounds what decoding may allocate for each byte of a record, and a record of two bytes is a whole step.
const perByte, atLeast = 400, 1 << 20

// allocated returns how many bytes a function allocates. Other goroutines count too, so the bounds are wide.
func allocated(do func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func fuzz(f *testing.F, seeds [][]byte, decode func(t *testing.T, record []byte)) {
	f.Helper()
	for _, seed := range seeds {
		f.Add(seed)
		f.Add(seed[:len(seed)/2])
		f.Add(append(bytes.Clone(seed), 0xF8, 0x07, 0x01)) // a field of a newer program
		newer := bytes.Clone(seed)
		newer[0]++
		f.Add(newer)
	}
	f.Add([]byte{})
	f.Add([]byte{storerecord.Version})
	f.Add([]byte{storerecord.Version, 0x2A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F}) // a length of 4 GiB
	f.Add(append([]byte{storerecord.Version}, bytes.Repeat([]byte{0x2A, 0}, 2000)...))
	f.Add(append([]byte{storerecord.Version}, bytes.Repeat([]byte{0x32, 0}, 2000)...))
	f.Add(append([]byte{storerecord.Version}, bytes.Repeat([]byte{0x0B}, 20_000)...)) // groups in groups
	f.Fuzz(func(t *testing.T, record []byte) {
		original := bytes.Clone(record)
		if n := allocated(func() { decode(t, record) }); n > uint64(atLeast+perByte*len(record)) {
			t.Errorf("a record of %d bytes took %d bytes of memory", len(record), n)
		}
		if !bytes.Equal(record, original) {
			t.Error("decoding changed the record")
		}
	})
}

func fullSpec() *job.Spec {
	return &job.Spec{
		Name: "n", Namespace: "ns", Queue: "q", Labels: map[string]string{"a": "b"}, Env: map[string]string{"": "x"}, Priority: -1,
		Steps:     []job.Step{{Name: "s", Argv: []string{"", "b"}, Env: map[string]string{"a": ""}, Timeout: -1}, {Script: "x", Shell: []string{"sh"}}},
		Resources: job.Resources{MilliCPU: math.MinInt32, Extras: map[string]int32{"gpu": 1}}, RunAfter: time.Unix(0, 0).UTC(),
		Constraints: []job.Constraint{{Label: "l", Operator: job.OperatorIn, Values: []string{""}}}, Backoff: job.Backoff{Factor: math.Inf(1)},
		Placement: &job.Placement{
			Affinities: []job.Affinity{{Constraint: job.Constraint{Label: "z", Operator: job.OperatorVersion, Values: []string{"^1"}}, Weight: -100}, {}},
			Spread:     "s", Apart: "a", Tolerations: []string{"", "t"}, Requires: []string{"r"},
			Concurrency: &job.Concurrency{Key: "k", Limit: -1, Policy: job.ConcurrencyLatest}, Gang: &job.Gang{Name: "g", Size: math.MaxInt32},
		},
	}
}

func FuzzSpec(f *testing.F) {
	// A placement of nothing but what takes two bytes each: affinities, tolerations, and affinities whose constraints are empty.
	small := [][]byte{storerecord.AppendSpec(nil, fullSpec()), storerecord.AppendSpec(nil, &job.Spec{}), storerecord.AppendSpec(nil, &job.Spec{Placement: &job.Placement{}})}
	for _, item := range [][]byte{{0x0A, 0}, {0x22, 0}, {0x0A, 2, 0x0A, 0}, {0x2A, 0}, {0x32, 0}} {
		content := bytes.Repeat(item, 60)
		small = append(small, append(append([]byte{storerecord.Version, 0x82, 0x01}, binary.AppendUvarint(nil, uint64(len(content)))...), content...))
	}
	fuzz(f, small, func(t *testing.T, record []byte) {
		spec, err := storerecord.DecodeSpec(record)
		if err != nil || spec.Backoff.Factor != spec.Backoff.Factor { // what is no number is not equal to itself
			return
		}
		if again, err := storerecord.DecodeSpec(storerecord.AppendSpec(nil, spec)); err != nil || !reflect.DeepEqual(again, spec) {
			t.Errorf("%+v became %+v, %v", spec, again, err)
		}
	})
}

func FuzzState(f *testing.F) {
	j := job.Job{Spec: &job.Spec{Steps: make([]job.Step, 2)}, State: job.Running, Steps: make([]job.StepStatus, 2), Created: time.Unix(0, 0).UTC()}
	j.Steps[1].Cause, j.Cancel.Force = job.Cause{Kind: job.CauseSignal, Signal: "KILL", ExitCode: -1}, true
	spec := storerecord.AppendSpec(nil, j.Spec)
	fuzz(f, [][]byte{storerecord.AppendState(nil, &j), storerecord.AppendState(nil, &job.Job{State: job.Queued})}, func(t *testing.T, record []byte) {
		got, err := storerecord.DecodeJob(job.ID{1}, spec, record)
		if err != nil {
			return
		}
		if !got.State.Valid() || len(got.Steps) != 2 {
			t.Errorf("a job that cannot be was read: %+v", got)
		}
		if again, err := storerecord.DecodeJob(job.ID{1}, spec, storerecord.AppendState(nil, &got)); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v became %+v, %v", got, again, err)
		}
	})
}

func FuzzJob(f *testing.F) {
	j := job.Job{Spec: fullSpec(), State: job.Failed, Steps: make([]job.StepStatus, 2)}
	state := storerecord.AppendState(nil, &j)
	fuzz(f, [][]byte{storerecord.AppendSpec(nil, j.Spec), state}, func(t *testing.T, record []byte) {
		for _, parts := range [][2][]byte{{record, state}, {record, record}} {
			if got, err := storerecord.DecodeJob(job.ID{1}, parts[0], parts[1]); err == nil && len(got.Steps) != len(got.Spec.Steps) {
				t.Errorf("a job of %d steps has a status for %d", len(got.Spec.Steps), len(got.Steps))
			}
		}
	})
}

func FuzzLogBlock(f *testing.F) {
	full := store.LogBlock{Bytes: math.MaxUint32, Line: math.MaxUint64, Lines: 1, Time: time.Unix(0, 0).UTC(), Data: []byte("x")}
	tooMany := append([]byte{storerecord.Version}, 0x08, 0x80, 0x80, 0x80, 0x80, 0x10) // 1 << 32 bytes
	fuzz(f, [][]byte{storerecord.AppendLogBlock(nil, &full), tooMany}, func(t *testing.T, record []byte) {
		var got, again store.LogBlock
		if storerecord.DecodeLogBlock(record, &got) != nil {
			return
		}
		if err := storerecord.DecodeLogBlock(storerecord.AppendLogBlock(nil, &got), &again); err != nil || !bytes.Equal(again.Data, got.Data) {
			t.Errorf("%+v became %+v, %v", got, again, err)
		}
		if again.Data = got.Data; !reflect.DeepEqual(again, got) { // none and an empty one are the same
			t.Errorf("%+v became %+v", got, again)
		}
	})
}

func FuzzLogEnd(f *testing.F) {
	e := store.LogEnd{Bytes: math.MaxUint64, Missing: "m", Removed: "r", Streams: []store.StreamTotal{{Step: 1, Stream: 2, Bytes: 3, SHA256: [32]byte{4}}, {}}}
	fuzz(f, [][]byte{storerecord.AppendLogEnd(nil, &e)}, func(t *testing.T, record []byte) {
		got, err := storerecord.DecodeLogEnd(record, store.LogRef{Attempt: 1})
		if err != nil {
			return
		}
		if again, err := storerecord.DecodeLogEnd(storerecord.AppendLogEnd(nil, got), got.Ref); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v became %+v, %v", got, again, err)
		}
	})
}

func FuzzRequest(f *testing.F) {
	r := store.Request{ID: "r", Hash: [32]byte{1}, Jobs: []job.ID{{1}, {}}, Expires: time.Unix(0, 0).UTC()}
	fuzz(f, [][]byte{storerecord.AppendRequest(nil, &r)}, func(t *testing.T, record []byte) {
		got, err := storerecord.DecodeRequest(record, "r")
		if err != nil {
			return
		}
		if again, err := storerecord.DecodeRequest(storerecord.AppendRequest(nil, &got), "r"); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v became %+v, %v", got, again, err)
		}
	})
}
