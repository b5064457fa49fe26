package api

import (
	"time"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// frameContent is a frame of an agent, taken apart.
type frameContent struct {
	chunks    []store.Chunk
	ends      []store.LogEnd
	reports   []orchestrator.Report
	reportIDs []string
	heartbeat bool
	used      job.Resources
	drain     *hwpv1.Drain
}

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
		f.ends = append(f.ends, logEndFromProto(p.LogEnd))
	case *hwpv1.AgentMessage_StepStarted:
		f.addReport(m, p.StepStarted.GetAttempt(), &orchestrator.Report{
			Kind: orchestrator.ReportStepStarted, Step: int(p.StepStarted.GetStep()), Time: instant(p.StepStarted.GetTime()),
		})
	case *hwpv1.AgentMessage_StepFinished:
		f.addStepFinished(m, p.StepFinished)
	case *hwpv1.AgentMessage_AttemptFinished:
		f.addReport(m, p.AttemptFinished.GetAttempt(), &orchestrator.Report{
			Kind: orchestrator.ReportAttemptFinished, Step: int(p.AttemptFinished.GetStep()),
			Time: instant(p.AttemptFinished.GetTime()), Cause: causeFromOutcome(p.AttemptFinished.GetOutcome()),
		})
	case *hwpv1.AgentMessage_Drain:
		f.drain = p.Drain
	}
	return nil
}

func (f *frameContent) addReport(m *hwpv1.AgentMessage, ref *hwpv1.AttemptRef, r *orchestrator.Report) {
	r.Ref = refFromProto(ref)
	f.reports = append(f.reports, *r)
	if id := m.GetRequestId(); id != "" {
		f.reportIDs = append(f.reportIDs, id)
	}
}

func (f *frameContent) addStepFinished(m *hwpv1.AgentMessage, p *hwpv1.StepFinished) {
	cause := causeFromOutcome(p.GetOutcome())
	state := cause.StepState()
	if p.GetOutcome().GetKind() == hwpv1.OutcomeKind_OUTCOME_KIND_SKIPPED {
		state = job.StepSkipped
	}
	f.addReport(m, p.GetAttempt(), &orchestrator.Report{
		Kind: orchestrator.ReportStepFinished, Step: int(p.GetStep()), Time: instant(p.GetTime()), Cause: cause, StepState: state,
		Usage: job.Usage{
			UserCPU: duration(p.GetUsage().GetUserCpu()), SystemCPU: duration(p.GetUsage().GetSystemCpu()),
			MaxRSSKiB: p.GetUsage().GetMaxRssKib(),
		},
	})
}

func (f *frameContent) addChunk(p *hwpv1.LogChunk) error {
	stream, err := streamFromProto(p.GetStream())
	if err != nil || len(p.GetData()) == 0 {
		return err
	}
	f.chunks = append(f.chunks, store.Chunk{
		Ref: store.LogRef{Job: job.ID(p.GetJobId()), Attempt: p.GetAttempt()}, Offset: p.GetOffset(), Step: p.GetStep(), Stream: stream,
		Time: time.Unix(0, p.GetTimestamp()), Data: p.GetData(),
	})
	return nil
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

func logEndFromProto(p *hwpv1.LogEnd) store.LogEnd {
	end := store.LogEnd{
		Ref:   store.LogRef{Job: job.ID(p.GetAttempt().GetJobId()), Attempt: p.GetAttempt().GetAttempt()},
		Bytes: p.GetTotalBytes(), Missing: p.GetMissing(),
	}
	for _, s := range p.GetStreams() {
		total := store.StreamTotal{Step: s.GetStep(), Stream: store.Stream(s.GetStream()), Bytes: s.GetTotalBytes()}
		copy(total.SHA256[:], s.GetSha256())
		end.Streams = append(end.Streams, total)
	}
	return end
}

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

// causeFromOutcome converts an outcome; one that this server does not know counts as the agent's failure.
func causeFromOutcome(p *hwpv1.Outcome) job.Cause {
	kind, ok := causeKinds[p.GetKind()]
	if !ok {
		kind = job.CauseAgentError
	}
	return job.Cause{Kind: kind, ExitCode: p.GetExitCode(), Signal: p.GetSignal(), Message: p.GetMessage()}
}
