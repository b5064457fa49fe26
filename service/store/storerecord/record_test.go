package storerecord_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
	"github.com/hodei-jobs/hodei/service/store/storerecord"
)

// text makes a generator; one that is shared between tests would be a race.
func text() *rapid.Generator[string] { return rapid.String() }

func strings1(t *rapid.T, name string) map[string]string {
	m := rapid.MapOfN(text(), text(), 0, 3).Draw(t, name)
	if len(m) == 0 {
		return nil
	}
	return m
}

func list(t *rapid.T, name string) []string {
	l := rapid.SliceOfN(text(), 0, 3).Draw(t, name)
	if len(l) == 0 {
		return nil
	}
	return l
}

func duration(t *rapid.T, name string) time.Duration {
	return time.Duration(rapid.Int64().Draw(t, name))
}

func instant(t *rapid.T, name string) time.Time {
	if rapid.IntRange(0, 5).Draw(t, name+" is not known") == 0 {
		return time.Time{}
	}
	return time.Unix(0, rapid.Int64Range(-1<<62, 1<<62).Draw(t, name)).UTC() // 1970 itself is a time like any other
}

func cause(t *rapid.T, name string) job.Cause {
	return job.Cause{
		Kind: job.CauseKind(rapid.Byte().Draw(t, name+" kind")), ExitCode: rapid.Int32().Draw(t, name+" code"),
		Signal: text().Draw(t, name+" signal"), Step: text().Draw(t, name+" step"), Message: text().Draw(t, name+" message"), Actor: text().Draw(t, name+" actor"),
	}
}

func drawSpec(t *rapid.T) *job.Spec {
	s := &job.Spec{
		Name: text().Draw(t, "name"), Namespace: text().Draw(t, "namespace"), Queue: text().Draw(t, "queue"), Labels: strings1(t, "labels"),
		Env: strings1(t, "env"), Priority: rapid.Int32().Draw(t, "priority"), Timeout: duration(t, "timeout"),
		MaxAttempts: rapid.Int32().Draw(t, "attempts"), RunAfter: instant(t, "run after"),
		Backoff:   job.Backoff{Initial: duration(t, "initial"), Max: duration(t, "max"), Factor: rapid.Float64().Draw(t, "factor")},
		Resources: job.Resources{MilliCPU: rapid.Int32().Draw(t, "cpu"), MemoryMiB: rapid.Int32().Draw(t, "memory")},
	}
	if rapid.Bool().Draw(t, "extras") {
		s.Resources.Extras = map[string]int32{text().Draw(t, "extra"): rapid.Int32().Draw(t, "extra amount")}
	}
	for range rapid.IntRange(1, 3).Draw(t, "steps") {
		s.Steps = append(s.Steps, job.Step{
			Name: text().Draw(t, "step"), Argv: list(t, "argv"), Script: text().Draw(t, "script"), Shell: list(t, "shell"),
			Env: strings1(t, "step env"), WorkingDir: text().Draw(t, "dir"), Timeout: duration(t, "step timeout"), Grace: duration(t, "grace"),
			Terminal: rapid.SampledFrom([]*job.Terminal{nil, {}, {Columns: 80, Rows: 24}}).Draw(t, "terminal"),
		})
		step := &s.Steps[len(s.Steps)-1]
		for range rapid.IntRange(0, 2).Draw(t, "secrets") {
			step.Secrets = append(step.Secrets, job.SecretRef{
				Name: text().Draw(t, "secret"), Env: text().Draw(t, "secret env"), File: rapid.Bool().Draw(t, "secret file"),
			})
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "constraints") {
		s.Constraints = append(s.Constraints, job.Constraint{
			Label: text().Draw(t, "label"), Operator: job.Operator(rapid.Byte().Draw(t, "operator")), Values: list(t, "values"),
		})
	}
	if rapid.Bool().Draw(t, "placement") {
		s.Placement = drawPlacement(t)
	}
	return s
}

func drawPlacement(t *rapid.T) *job.Placement {
	p := &job.Placement{Spread: text().Draw(t, "spread"), Apart: text().Draw(t, "apart"), Tolerations: list(t, "tolerations"), Requires: list(t, "requires")}
	for range rapid.IntRange(0, 2).Draw(t, "affinities") {
		p.Affinities = append(p.Affinities, job.Affinity{
			Constraint: job.Constraint{
				Label: text().Draw(t, "liked label"), Operator: job.Operator(rapid.Byte().Draw(t, "liked operator")), Values: list(t, "liked values"),
			},
			Weight: rapid.Int32().Draw(t, "weight"),
		})
	}
	if rapid.Bool().Draw(t, "concurrency") {
		p.Concurrency = &job.Concurrency{
			Key: text().Draw(t, "key"), Limit: rapid.Int32().Draw(t, "limit"), Policy: job.ConcurrencyPolicy(rapid.Byte().Draw(t, "policy")),
		}
	}
	if rapid.Bool().Draw(t, "gang") {
		p.Gang = &job.Gang{Name: text().Draw(t, "gang name"), Size: rapid.Int32().Draw(t, "gang size")}
	}
	return p
}

func TestJobsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		j := job.Job{
			ID: job.ID{1}, Spec: drawSpec(t), State: job.State(rapid.ByteRange(byte(job.Blocked), byte(job.Skipped)).Draw(t, "state")),
			Cause: cause(t, "cause"), Attempt: rapid.Int32().Draw(t, "attempt"), Epoch: rapid.Uint64().Draw(t, "epoch"),
			Worker: job.WorkerID(text().Draw(t, "worker")), Created: instant(t, "created"), Started: instant(t, "started"),
			Ended: instant(t, "ended"), NextAttempt: instant(t, "next"), Revision: rapid.Int32().Draw(t, "revision"), Silent: rapid.Bool().Draw(t, "silent"),
			Preempting: rapid.Bool().Draw(t, "preempting"), Preemptions: rapid.Int32().Draw(t, "preemptions"),
			WorkersLost: rapid.Int32().Draw(t, "workers lost"), Held: text().Draw(t, "held"),
			Cancel: job.CancelRequest{Actor: text().Draw(t, "actor"), Reason: text().Draw(t, "reason"), Force: rapid.Bool().Draw(t, "force")},
		}
		for range rapid.IntRange(0, 3).Draw(t, "former") {
			j.Former = append(j.Former, job.FormerAttempt{
				Attempt: rapid.Int32().Draw(t, "former attempt"), Epoch: rapid.Uint64().Draw(t, "former epoch"),
				Worker: job.WorkerID(text().Draw(t, "former worker")),
			})
		}
		if rapid.Bool().Draw(t, "progress") {
			j.Progress = &job.Progress{Permille: rapid.Int32().Draw(t, "permille"), Message: text().Draw(t, "message")}
		}
		if rapid.Bool().Draw(t, "masked") {
			j.Masked = map[string]uint64{text().Draw(t, "secret"): rapid.Uint64().Draw(t, "times"), "none": 0}
		}
		for range j.Spec.Steps {
			j.Steps = append(j.Steps, job.StepStatus{
				State: job.StepState(rapid.Byte().Draw(t, "step state")), Cause: cause(t, "step cause"), Started: instant(t, "step started"),
				Ended: instant(t, "step ended"), CancelRequested: rapid.Bool().Draw(t, "cancel requested"),
				Usage: job.Usage{UserCPU: duration(t, "user"), SystemCPU: duration(t, "system"), MaxRSSKiB: rapid.Int32().Draw(t, "rss")},
			})
		}
		got, err := storerecord.DecodeJob(j.ID, storerecord.AppendSpec(nil, j.Spec), storerecord.AppendState(nil, &j))
		if err != nil || !reflect.DeepEqual(got, j) {
			t.Fatalf("got  %+v\nwant %+v\n%v", got, j, err)
		}
	})
}

func TestLogsAndRequestsComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ref := store.LogRef{Job: job.ID{1}, Attempt: 2}
		b := store.LogBlock{
			Ref: ref, Offset: 7, Bytes: rapid.Uint32().Draw(t, "bytes"), Line: rapid.Uint64().Draw(t, "line"), Lines: rapid.Uint32().Draw(t, "lines"),
			Time: instant(t, "time"), Data: rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "data"),
		}
		got := store.LogBlock{Ref: ref, Offset: 7}
		if err := storerecord.DecodeLogBlock(storerecord.AppendLogBlock(nil, &b), &got); err != nil || !reflect.DeepEqual(got, b) {
			t.Fatalf("got %+v, want %+v, %v", got, b, err)
		}
		end := &store.LogEnd{Ref: ref, Bytes: rapid.Uint64().Draw(t, "bytes"), Missing: text().Draw(t, "missing"), Removed: text().Draw(t, "removed")}
		for range rapid.IntRange(0, 3).Draw(t, "streams") {
			total := store.StreamTotal{Step: rapid.Int32().Draw(t, "s"), Stream: store.Stdout, Bytes: rapid.Uint64().Draw(t, "b")}
			total.SHA256[5] = rapid.Byte().Draw(t, "sha")
			end.Streams = append(end.Streams, total)
		}
		if got, err := storerecord.DecodeLogEnd(storerecord.AppendLogEnd(nil, end), ref); err != nil || !reflect.DeepEqual(got, end) {
			t.Fatalf("got %+v, want %+v, %v", got, end, err)
		}
		r := store.Request{ID: "ns/r", Jobs: []job.ID{{1}, {2}}, Expires: instant(t, "expires")}
		r.Hash[3] = rapid.Byte().Draw(t, "hash")
		if got, err := storerecord.DecodeRequest(storerecord.AppendRequest(nil, &r), r.ID); err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("got %+v, want %+v, %v", got, r, err)
		}
	})
}

func TestNewerAndDamagedRecordsAreRefused(t *testing.T) {
	t.Parallel()
	spec := storerecord.AppendSpec(nil, &job.Spec{Name: "x", Steps: []job.Step{{Name: "s", Argv: []string{"a"}}}})
	newer := bytes.Clone(spec)
	newer[0]++
	if _, err := storerecord.DecodeSpec(newer); err == nil || !strings.Contains(err.Error(), "form 2") {
		t.Errorf("a newer record gave %v", err)
	}
	if _, err := storerecord.DecodeSpec(nil); err == nil {
		t.Error("an empty record was read")
	}
	if _, err := storerecord.DecodeSpec(spec[:len(spec)-3]); err == nil {
		t.Error("a record without its end was read")
	}
	// A field that this program does not know is skipped.
	if got, err := storerecord.DecodeSpec(append(bytes.Clone(spec), 0xF8, 0x07, 0x01)); err != nil || got.Name != "x" {
		t.Errorf("an unknown field gave %+v, %v", got, err)
	}
	state := storerecord.AppendState(nil, &job.Job{State: job.Queued, Steps: []job.StepStatus{{State: job.StepRunning}, {State: job.StepPending}}})
	if _, err := storerecord.DecodeJob(job.ID{1}, spec, state); err == nil {
		t.Error("a job with one step and a status for two was read")
	}
}
