package service

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// field is a server with jobs in every state, two honest agents, ada and bob, and a third one, eve, which has a job too and had others.
type field struct {
	t             *testing.T
	r             *running
	eve           *hwpAgent
	ada, bob, own *hwpStream // own is eve's
	ids           map[string]job.ID
	works         map[string]*work // by the job's name and, where there were several, the attempt
}

// newField has the same jobs at the same point, whatever the run.
func newField(t *testing.T) *field {
	t.Helper()
	f := &field{t: t, r: start(t, Config{Lease: time.Hour}), ids: make(map[string]job.ID), works: make(map[string]*work)}
	f.eve = f.r.enrol(t, "eve")
	f.own = f.eve.session()
	f.submit("own", "", "eve")
	f.submit("former", "", "eve", "ada")
	f.take(f.own, "own", 1)
	f.take(f.own, "former", 1)
	f.own.say(drain(false)) // so that what it gives up goes to another one
	f.own.settle()
	f.works["former"].fail()
	f.works["former/1"] = f.works["former"]

	ada := f.r.enrol(t, "ada")
	f.ada = ada.session()
	f.take(f.ada, "former", 2)
	f.submit("moved", "other", "ada", "bob")
	f.take(f.ada, "moved", 1)
	moved := f.works["moved"]
	f.bob = f.r.enrol(t, "bob").session()
	f.ada.say(drain(false))
	f.ada.settle()
	moved.end(1) // its log is still open
	f.works["moved/1"] = moved
	f.take(f.bob, "moved", 2)
	f.ada.say(drain(true))
	f.ada.settle()

	for _, name := range []string{"running", "ended", "tail", "assigned"} {
		f.submit(name, "", "ada")
		f.take(f.ada, name, 1)
	}
	f.submit("elsewhere", "other", "bob")
	f.take(f.bob, "elsewhere", 1)
	f.submit("queued", "", "nobody")
	f.submit("delayed", "", "ada", time.Hour)
	for _, name := range []string{"own", "former", "moved", "running", "ended", "tail", "elsewhere"} {
		f.works[name].begin()
	}
	f.works["ended"].finish()
	f.works["tail"].end(0)
	for _, s := range []*hwpStream{f.own, f.ada, f.bob} {
		s.settle()
	}
	return f
}

// submit submits a job of two steps for the agents with these names; a duration among them delays it.
func (f *field) submit(name, namespace string, on ...any) {
	f.t.Helper()
	spec := job.Spec{
		Name: name, Namespace: namespace, Steps: []job.Step{{Name: "one", Argv: []string{"true"}}, {Name: "two", Argv: []string{"true"}}},
		MaxAttempts: 3, Backoff: job.Backoff{Initial: time.Millisecond}, Constraints: []job.Constraint{{Label: "on", Operator: job.OperatorIn}},
	}
	for _, value := range on {
		switch value := value.(type) {
		case string:
			spec.Constraints[0].Values = append(spec.Constraints[0].Values, value)
		case time.Duration:
			spec.RunAfter = time.Now().Add(value)
		}
	}
	results, err := f.r.jobs.Submit(f.t.Context(), orchestrator.Submission{Specs: []job.Spec{spec}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.ids[name] = results[0].Job.ID
}

func (f *field) take(s *hwpStream, name string, attempt int32) {
	f.t.Helper()
	f.works[name] = &work{s: s, ref: s.attempt(name, attempt), name: name, totals: make(map[stepStream]*total)}
}

// finish brings everything to its end that can end.
func (f *field) finish() {
	f.t.Helper()
	f.works["moved/1"].logEnd()
	f.works["tail"].write(1, hwpv1.LogStream_LOG_STREAM_STDERR, "the rest\n")
	f.works["tail"].logEnd()
	f.works["assigned"].begin()
	for _, name := range []string{"own", "former", "moved", "running", "elsewhere", "assigned"} {
		f.works[name].write(1, hwpv1.LogStream_LOG_STREAM_STDOUT, "the second half of "+name+"\n")
		f.works[name].finish()
	}
}

// outcome is all that is known of the jobs but when it happened, and which ids they have.
func (f *field) outcome() string {
	f.t.Helper()
	all := make(map[string]any)
	for name, id := range f.ids {
		j, err := f.r.jobs.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		worker := j.Worker
		if w, err := f.r.jobs.Worker(f.t.Context(), string(worker)); err == nil {
			worker = job.WorkerID(w.Name)
		}
		steps := make([]job.StepStatus, len(j.Steps))
		for i := range j.Steps {
			steps[i] = j.Steps[i]
			steps[i].Started, steps[i].Ended = time.Time{}, time.Time{}
		}
		logs := make([]any, j.Attempt+2)
		for attempt := range logs {
			logs[attempt] = f.log(store.LogRef{Job: id, Attempt: int32(attempt)})
		}
		all[name] = map[string]any{
			"state": j.State.String(), "cause": j.Cause, "attempt": j.Attempt, "worker": worker, "steps": steps, "cancel": j.Cancel, "silent": j.Silent,
			"masked": j.Masked, "revision": j.Revision, "logs": logs,
		}
	}
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// log is what is stored of the log of an attempt.
func (f *field) log(ref store.LogRef) map[string]any {
	f.t.Helper()
	tail, err := f.r.logs.Tail(f.t.Context(), ref, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer tail.Close()
	text, end := "", any(nil)
	for {
		chunks, stored, _, err := tail.Read(f.t.Context())
		if err != nil {
			f.t.Fatal(err)
		}
		for i := range chunks {
			text += fmt.Sprintf("%d/%d:%s", chunks[i].Step, chunks[i].Stream, chunks[i].Data)
		}
		if stored != nil {
			stored.Ref = store.LogRef{}
			end = stored
		}
		if len(chunks) == 0 {
			return map[string]any{"text": text, "end": end}
		}
	}
}

type stepStream struct {
	step   int32
	stream hwpv1.LogStream
}

type total struct {
	bytes uint64
	sum   hash.Hash
}

// work is an attempt that an agent has, and says true things of.
type work struct {
	s      *hwpStream
	ref    *hwpv1.AttemptRef
	name   string
	offset uint64
	totals map[stepStream]*total
}

func (w *work) report(r *hwpv1.AttemptReport) {
	r.Attempt = w.ref
	w.s.send(&hwpv1.ConnectRequest{Reports: []*hwpv1.AttemptReport{r}})
}

// begin starts the first step, which writes something.
func (w *work) begin() {
	w.report(&hwpv1.AttemptReport{Steps: []*hwpv1.StepReport{{Step: 0, StartTime: time.Now().UnixNano()}}, Step: -1})
	w.write(0, hwpv1.LogStream_LOG_STREAM_STDOUT, "the first half of "+w.name+"\n")
}

func (w *work) write(step int32, stream hwpv1.LogStream, text string) {
	w.s.say(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogChunk{LogChunk: &hwpv1.LogChunk{
		JobId: w.ref.GetJobId(), Attempt: w.ref.GetAttempt(), Epoch: w.ref.GetEpoch(), Step: step, Stream: stream, Data: []byte(text), Offset: w.offset,
		Timestamp: time.Now().UnixNano(),
	}}})
	w.offset += uint64(len(text))
	key := stepStream{step, stream}
	if w.totals[key] == nil {
		w.totals[key] = &total{sum: sha256.New()}
	}
	w.totals[key].bytes += uint64(len(text))
	w.totals[key].sum.Write([]byte(text))
}

// end reports the end of the attempt, and of both its steps.
func (w *work) end(code int32) {
	now := time.Now().UnixNano()
	outcome := &hwpv1.Outcome{Kind: hwpv1.OutcomeKind_OUTCOME_KIND_EXIT_CODE, ExitCode: code}
	w.report(&hwpv1.AttemptReport{
		Steps: []*hwpv1.StepReport{
			{Step: 0, StartTime: now, EndTime: now, Outcome: outcome}, {Step: 1, StartTime: now, EndTime: now, Outcome: proto.CloneOf(outcome)},
		},
		EndTime: now, Outcome: proto.CloneOf(outcome), Step: 1, LogBytes: w.offset,
	})
}

// logEnd closes the log, and waits until that is durable.
func (w *work) logEnd() {
	end := &hwpv1.LogEnd{Attempt: w.ref, TotalBytes: w.offset}
	for key, total := range w.totals {
		end.Streams = append(end.Streams, &hwpv1.StreamTotal{Step: key.step, Stream: key.stream, TotalBytes: total.bytes, Sha256: total.sum.Sum(nil)})
	}
	sortStreams(end.GetStreams())
	w.s.say(&hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogEnd{LogEnd: end}})
	w.s.await("the end of the log of "+w.name, func(h *heard) bool {
		for _, ack := range h.logAcks {
			if ack.GetEnded() && proto.Equal(ack.GetAttempt(), w.ref) {
				return true
			}
		}
		return false
	})
}

func (w *work) finish() {
	w.end(0)
	w.logEnd()
}

// fail is an attempt that fails, with output.
func (w *work) fail() {
	w.begin()
	w.end(1)
	w.logEnd()
}

func drain(resume bool) *hwpv1.AgentMessage {
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_Drain{Drain: &hwpv1.Drain{Resume: resume}}}
}

// others are fencing tokens of attempts that eve does not have: those of the others, those that it had, of jobs that have no attempt, of one
// that there is not, and each with other numbers.
func (f *field) others() []*hwpv1.AttemptRef {
	bases := []*hwpv1.AttemptRef{
		{JobId: f.ids["queued"].String()}, {JobId: f.ids["delayed"].String()}, {JobId: job.NewID(time.Now(), 1, 2).String(), Attempt: 1, Epoch: 1},
	}
	for name, w := range f.works {
		if name != "own" {
			bases = append(bases, w.ref)
		}
	}
	var all []*hwpv1.AttemptRef
	for _, base := range bases {
		for _, attempt := range []int32{base.GetAttempt(), base.GetAttempt() - 1, base.GetAttempt() + 1, math.MinInt32, math.MaxInt32} {
			for _, epoch := range []uint64{base.GetEpoch(), base.GetEpoch() - 1, base.GetEpoch() + 1, 0, math.MaxUint64} {
				all = append(all, &hwpv1.AttemptRef{JobId: base.GetJobId(), Attempt: attempt, Epoch: epoch})
			}
		}
	}
	return all
}
