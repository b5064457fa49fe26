package api

import (
	"maps"

	"google.golang.org/protobuf/types/known/durationpb"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
	"github.com/hodei-jobs/hodei/service/fleet"
	"github.com/hodei-jobs/hodei/service/identity"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

// workerFromRegister makes the worker that an agent says it is. Its name, and labels that came with its token, are those of
// its enrolment, whatever it says now.
func workerFromRegister(id job.WorkerID, enrolled identity.EnrolledWorker, r *hwpv1.Register) job.Worker {
	labels := make(map[string]string, len(r.GetLabels())+len(enrolled.Labels))
	maps.Copy(labels, r.GetLabels())
	maps.Copy(labels, enrolled.Labels)
	capacity := r.GetCapacity()
	return job.Worker{
		ID: id, Name: enrolled.Name, Labels: labels, AgentVersion: r.GetAgentVersion(), BootID: r.GetBootId(),
		Capacity: job.Resources{MilliCPU: capacity.GetMilliCpu(), MemoryMiB: capacity.GetMemoryMib(), Extras: capacity.GetExtras()},
		Slots:    capacity.GetSlots(),
	}
}

func refsFromProto(refs []*hwpv1.AttemptRef) []job.AttemptRef {
	out := make([]job.AttemptRef, len(refs))
	for i, r := range refs {
		out[i] = refFromProto(r)
	}
	return out
}

func refFromProto(r *hwpv1.AttemptRef) job.AttemptRef {
	return job.AttemptRef{Job: job.ID(r.GetJobId()), Attempt: r.GetAttempt(), Epoch: r.GetEpoch()}
}

func refToProto(r job.AttemptRef) *hwpv1.AttemptRef {
	return &hwpv1.AttemptRef{JobId: string(r.Job), Attempt: r.Attempt, Epoch: r.Epoch}
}

// messageToProto converts what a session sends.
func messageToProto(m fleet.Message) *hwpv1.ServerMessage {
	switch m := m.(type) {
	case fleet.Welcome:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Welcome{Welcome: welcomeToProto(&m)}}
	case fleet.Assign:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Assign{Assign: assignToProto(&m.Job)}}
	case fleet.Cancel:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Cancel{Cancel: &hwpv1.Cancel{
			Attempt: refToProto(m.Ref), Step: int32(m.Step), Force: m.Force,
		}}}
	case fleet.ReportAck:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_ReportAck{ReportAck: &hwpv1.ReportAck{RequestIds: m.IDs}}}
	case fleet.LogAck:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_LogAck{LogAck: &hwpv1.LogAck{
			Attempt: refToProto(m.Ref), Offset: m.Offset, Ended: m.Ended,
		}}}
	case fleet.Drain:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Drain{Drain: &hwpv1.ServerDrain{
			ReconnectAfter: durationpb.New(m.ReconnectAfter),
		}}}
	default:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Heartbeat{Heartbeat: &hwpv1.ServerHeartbeat{}}}
	}
}

func welcomeToProto(w *fleet.Welcome) *hwpv1.Welcome {
	p := &hwpv1.Welcome{
		HeartbeatInterval: durationpb.New(w.Heartbeat), Lease: durationpb.New(w.Lease), LogWindowBytes: logs.WindowBytes,
	}
	for _, v := range w.Verdicts {
		p.Verdicts = append(p.Verdicts, &hwpv1.AttemptVerdict{
			Attempt: refToProto(v.Ref), Verdict: verdictToProto(v.Verdict), LogOffset: v.LogOffset, LogEnded: v.LogEnded,
		})
	}
	return p
}

func verdictToProto(v orchestrator.Verdict) hwpv1.Verdict {
	switch v {
	case orchestrator.Keep:
		return hwpv1.Verdict_VERDICT_KEEP
	case orchestrator.Stop:
		return hwpv1.Verdict_VERDICT_CANCEL
	default:
		return hwpv1.Verdict_VERDICT_FORGET
	}
}

func assignToProto(j *job.Job) *hwpv1.Assign {
	spec := j.Spec
	p := &hwpv1.Assign{
		Attempt: refToProto(j.Ref()), Timeout: optional(spec.Timeout),
		JobName: spec.Name, Namespace: spec.Namespace, Queue: spec.Queue, Retryable: j.Attempt < spec.MaxAttempts,
		Reserved: &hwpv1.Capacity{MilliCpu: spec.Resources.MilliCPU, MemoryMib: spec.Resources.MemoryMiB, Extras: spec.Resources.Extras},
	}
	for i := range spec.Steps {
		step := &spec.Steps[i]
		p.Steps = append(p.Steps, &hwpv1.Step{
			Name: step.Name, Argv: step.Command(), Env: stepEnv(spec.Env, step.Env), WorkingDir: step.WorkingDir,
			Timeout: optional(step.Timeout), Grace: durationpb.New(step.Grace),
		})
	}
	return p
}

// stepEnv lays a step's variables over the job's.
func stepEnv(job, step map[string]string) map[string]string {
	if len(step) == 0 {
		return job
	}
	env := make(map[string]string, len(job)+len(step))
	maps.Copy(env, job)
	maps.Copy(env, step)
	return env
}
