package api

import (
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// frameContent is a frame of an agent, taken apart.
type frameContent struct {
	chunks    []logs.Chunk
	ends      []store.LogEnd
	reports   []orchestrator.Report
	heartbeat bool
	used      job.Resources
	drain     *hwpv1.Drain
	csr       []byte // of the last wish for a certificate; empty: none
	token     bool   // a wish for an access token
	output    int    // bytes of chunks
}

// maxFrameOutput bounds the output in one frame: zeros are compressed to next to nothing.
const maxFrameOutput = 2 * logs.WindowBytes

// add takes one message in. A message that no agent may send ends the session; one that this server does not know yet, from
// a newer agent, is left out.
func (f *frameContent) add(m *hwpv1.AgentMessage) error {
	switch p := m.GetPayload().(type) {
	case *hwpv1.AgentMessage_Register:
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "Register was sent twice on one stream")
	case *hwpv1.AgentMessage_Heartbeat:
		f.heartbeat = true
		f.used = job.Resources{MilliCPU: p.Heartbeat.GetUsedMilliCpu(), MemoryMiB: p.Heartbeat.GetUsedMemoryMib()}
	case *hwpv1.AgentMessage_LogChunk:
		return f.addChunk(p.LogChunk)
	case *hwpv1.AgentMessage_LogEnd:
		return f.addEnd(p.LogEnd)
	case *hwpv1.AgentMessage_Drain:
		f.drain = p.Drain
	case *hwpv1.AgentMessage_CertificateRequest:
		f.csr = p.CertificateRequest.GetCsrDer()
	case *hwpv1.AgentMessage_TokenRequest:
		f.token = true
	}
	return nil
}

func (f *frameContent) addReports(reports []*hwpv1.AttemptReport) error {
	if len(reports) == 0 {
		return nil
	}
	f.reports = make([]orchestrator.Report, len(reports))
	total := 0
	for _, p := range reports {
		total += len(p.GetSteps())
	}
	steps := make([]job.StepReport, 0, total) // one piece of memory for the steps of all reports
	for i, p := range reports {
		ref, err := refFromProto(p.GetAttempt())
		if err != nil {
			return err
		}
		first := len(steps)
		for _, step := range p.GetSteps() {
			steps = append(steps, stepFromProto(step))
		}
		r := &f.reports[i]
		*r = orchestrator.Report{
			Ref: ref, Steps: steps[first:len(steps):len(steps)], Ended: fromNanos(p.GetEndTime()), Step: int(p.GetStep()), Silent: p.GetSilent(),
			Masked: maskedFromProto(p.GetMasked()),
		}
		if said := p.GetProgress(); said != nil {
			r.Progress = &job.Progress{Permille: said.GetPermille(), Message: text(said.GetMessage())}
		}
		if !r.Ended.IsZero() {
			r.Cause = causeFromOutcome(p.GetOutcome())
		}
	}
	return nil
}

// maxMasked bounds how many names of secrets a report may count.
const maxMasked = 10_000

func maskedFromProto(counts map[string]uint64) map[string]uint64 {
	if len(counts) == 0 || len(counts) > maxMasked {
		return nil
	}
	out := make(map[string]uint64, len(counts))
	for name, n := range counts {
		out[text(name)] += n
	}
	return out
}

func stepFromProto(p *hwpv1.StepReport) job.StepReport {
	r := job.StepReport{Step: int(p.GetStep()), Started: fromNanos(p.GetStartTime()), Ended: fromNanos(p.GetEndTime())}
	if r.Ended.IsZero() {
		return r
	}
	r.Cause = causeFromOutcome(p.GetOutcome())
	r.State = r.Cause.StepState()
	if p.GetOutcome().GetKind() == hwpv1.OutcomeKind_OUTCOME_KIND_SKIPPED {
		r.State = job.StepSkipped
	}
	r.Usage = job.Usage{UserCPU: time.Duration(p.GetUserCpu()), SystemCPU: time.Duration(p.GetSystemCpu()), MaxRSSKiB: p.GetMaxRssKib()}
	return r
}

// fromNanos returns a time of the protocol; 0 is none.
func fromNanos(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

func (f *frameContent) addChunk(p *hwpv1.LogChunk) error {
	stream, err := streamFromProto(p.GetStream())
	if err != nil || len(p.GetData()) == 0 {
		return err
	}
	id, err := agentsJob(p.GetJobId())
	if err != nil {
		return err
	}
	data, err := chunkData(p)
	if err != nil {
		return err
	}
	if f.output += len(data); f.output > maxFrameOutput {
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "a frame has more than %d bytes of output", maxFrameOutput)
	}
	f.chunks = append(f.chunks, logs.Chunk{
		Ref: store.LogRef{Job: id, Attempt: p.GetAttempt()}, Offset: p.GetOffset(), Step: p.GetStep(), Stream: stream,
		Time: time.Unix(0, p.GetTimestamp()), Data: data,
	})
	return nil
}

// maxChunkBytes bounds a chunk when it is decoded.
const maxChunkBytes = 1 << 20

var chunkDecoder = sync.OnceValue(func() *zstd.Decoder {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxChunkBytes), zstd.WithDecoderConcurrency(0))
	if err != nil {
		panic(err) //nolint:forbidigo // the options are constants
	}
	return decoder
})

func chunkData(p *hwpv1.LogChunk) ([]byte, error) {
	switch p.GetEncoding() {
	case hwpv1.LogEncoding_LOG_ENCODING_UNSPECIFIED:
		return p.GetData(), nil
	case hwpv1.LogEncoding_LOG_ENCODING_ZSTD:
		data, err := chunkDecoder().DecodeAll(p.GetData(), nil)
		if err != nil || len(data) == 0 {
			return nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "a log chunk of job %q cannot be decoded: %v", p.GetJobId(), err)
		}
		return data, nil
	default:
		return nil, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"a log chunk has the encoding %d, which this server does not know; install an agent of the server's version", p.GetEncoding())
	}
}

func streamFromProto(p hwpv1.LogStream) (store.Stream, error) {
	switch p {
	case hwpv1.LogStream_LOG_STREAM_STDOUT:
		return store.Stdout, nil
	case hwpv1.LogStream_LOG_STREAM_STDERR:
		return store.Stderr, nil
	default:
		return 0, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "a log chunk names stream %d, which is none", p)
	}
}

func (f *frameContent) addEnd(p *hwpv1.LogEnd) error {
	ref, err := refFromProto(p.GetAttempt())
	if err != nil {
		return err
	}
	end := store.LogEnd{
		Ref: store.LogRef{Job: ref.Job, Attempt: ref.Attempt}, Bytes: p.GetTotalBytes(), Missing: text(p.GetMissing()),
	}
	for _, s := range p.GetStreams() {
		total := store.StreamTotal{Step: s.GetStep(), Stream: store.Stream(s.GetStream()), Bytes: s.GetTotalBytes()}
		copy(total.SHA256[:], s.GetSha256())
		end.Streams = append(end.Streams, total)
	}
	f.ends = append(f.ends, end)
	return nil
}

// text makes sure that what an agent wrote can be shown by every client.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// causeKinds says which kind of cause an outcome is.
var causeKinds = map[hwpv1.OutcomeKind]job.CauseKind{
	hwpv1.OutcomeKind_OUTCOME_KIND_EXIT_CODE:     job.CauseExitCode,
	hwpv1.OutcomeKind_OUTCOME_KIND_SIGNAL:        job.CauseSignal,
	hwpv1.OutcomeKind_OUTCOME_KIND_OUT_OF_MEMORY: job.CauseOutOfMemory,
	hwpv1.OutcomeKind_OUTCOME_KIND_TIMEOUT:       job.CauseTimeout,
	hwpv1.OutcomeKind_OUTCOME_KIND_CANCELED:      job.CauseCanceled,
	hwpv1.OutcomeKind_OUTCOME_KIND_INVALID:       job.CauseInvalid,
	hwpv1.OutcomeKind_OUTCOME_KIND_LOST:          job.CauseWorkerLost,
}

// causeFromOutcome converts an outcome; none is exit code 0, and one that this server does not
// know counts as the agent's failure.
func causeFromOutcome(p *hwpv1.Outcome) job.Cause {
	if p == nil {
		return job.Cause{Kind: job.CauseExitCode}
	}
	kind, ok := causeKinds[p.GetKind()]
	if !ok {
		kind = job.CauseAgentError
	}
	return job.Cause{Kind: kind, ExitCode: p.GetExitCode(), Signal: text(p.GetSignal()), Message: text(p.GetMessage())}
}
