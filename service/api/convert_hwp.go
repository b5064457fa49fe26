package api

import (
	"maps"
	"slices"

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
	for name, value := range r.GetLabels() {
		labels[text(name)] = text(value)
	}
	maps.Copy(labels, enrolled.Labels)
	var taints []string
	for _, taint := range r.GetTaints() {
		taints = append(taints, text(taint))
	}
	slices.Sort(taints)
	var capabilities []string
	for _, name := range r.GetFeatures() {
		capabilities = append(capabilities, text(name))
	}
	capacity := r.GetCapacity()
	return job.Worker{
		ID: id, Name: enrolled.Name, Labels: labels, Capabilities: capabilities, AgentVersion: text(r.GetAgentVersion()), BootID: text(r.GetBootId()),
		Capacity: job.Resources{MilliCPU: capacity.GetMilliCpu(), MemoryMiB: capacity.GetMemoryMib(), Extras: extras(capacity.GetExtras())},
		Slots:    capacity.GetSlots(), Dial: r.GetDial(), Taints: slices.Compact(taints), Queues: enrolled.Queues,
	}
}

func extras(m map[string]int32) map[string]int32 {
	out := make(map[string]int32, len(m))
	for name, n := range m {
		out[text(name)] = n
	}
	return out
}

func refsFromProto(refs []*hwpv1.AttemptRef) ([]job.AttemptRef, error) {
	out := make([]job.AttemptRef, len(refs))
	var err error
	for i, r := range refs {
		if out[i], err = refFromProto(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func refFromProto(r *hwpv1.AttemptRef) (job.AttemptRef, error) {
	id, err := agentsJob(r.GetJobId())
	return job.AttemptRef{Job: id, Attempt: r.GetAttempt(), Epoch: r.GetEpoch()}, err
}

// agentsJob reads an id that an agent sent. One that cannot be an id ends the session: the agent is broken.
func agentsJob(text string) (job.ID, error) {
	id, err := job.ParseID(text)
	if err != nil {
		return id, job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "a message names job %q, which cannot be one", text)
	}
	return id, nil
}

func refToProto(r job.AttemptRef) *hwpv1.AttemptRef {
	return &hwpv1.AttemptRef{JobId: r.Job.String(), Attempt: r.Attempt, Epoch: r.Epoch}
}

// messageToProto converts what a session sends.
func messageToProto(m fleet.Message) *hwpv1.ServerMessage {
	switch m := m.(type) {
	case fleet.Welcome:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Welcome{Welcome: welcomeToProto(&m)}}
	case fleet.Cancel:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Cancel{Cancel: &hwpv1.Cancel{
			Attempt: refToProto(m.Ref), Step: int32(m.Step), Force: m.Force,
		}}}
	case fleet.LogAck:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_LogAck{LogAck: &hwpv1.LogAck{
			Attempt: refToProto(m.Ref), Offset: m.Offset, Ended: m.Ended,
		}}}
	case fleet.Drain:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Drain{Drain: &hwpv1.ServerDrain{
			ReconnectAfter: durationpb.New(m.ReconnectAfter),
		}}}
	case fleet.Certificate:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Certificate{Certificate: &hwpv1.Certificate{
			ChainDer: m.Chain, RootsDer: m.Roots,
		}}}
	case fleet.AccessToken:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_Token{Token: &hwpv1.AccessToken{
			Token: m.Token, ExpireTime: timestamp(m.Expires),
		}}}
	case fleet.RenewCertificate:
		return &hwpv1.ServerMessage{Payload: &hwpv1.ServerMessage_RenewCertificate{RenewCertificate: &hwpv1.RenewCertificate{}}}
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

// assignmentMemory is what most assignments are made of, in one piece of memory instead of three.
type assignmentMemory struct {
	assign hwpv1.Assign
	ref    hwpv1.AttemptRef
	step   hwpv1.Step
	steps  [1]*hwpv1.Step
}

func assignmentsToProto(assignments []orchestrator.Assignment) []*hwpv1.Assign {
	if len(assignments) == 0 {
		return nil
	}
	memory := make([]assignmentMemory, len(assignments))
	out := make([]*hwpv1.Assign, len(assignments))
	for i := range assignments {
		out[i] = assignmentToProto(&memory[i], &assignments[i])
	}
	return out
}

func assignmentToProto(m *assignmentMemory, a *orchestrator.Assignment) *hwpv1.Assign {
	spec, p := a.Spec, &m.assign
	p.Attempt = &m.ref
	m.ref.JobId, m.ref.Attempt, m.ref.Epoch = a.Ref.Job.String(), a.Ref.Attempt, a.Ref.Epoch
	p.Timeout, p.JobName, p.Retryable, p.Problem = int64(spec.Timeout), spec.Name, a.Retryable, a.Problem
	if spec.Namespace != job.DefaultNamespace { // what is usual need not be said for every job
		p.Namespace = spec.Namespace
	}
	if spec.Queue != job.DefaultQueue {
		p.Queue = spec.Queue
	}
	if r := spec.Resources; r.MilliCPU != 0 || r.MemoryMiB != 0 || len(r.Extras) != 0 {
		p.Reserved = &hwpv1.Capacity{MilliCpu: r.MilliCPU, MemoryMib: r.MemoryMiB, Extras: r.Extras}
	}
	p.Steps = m.steps[:0]
	for i := range spec.Steps {
		step, to := &spec.Steps[i], &m.step
		if i > 0 {
			to = new(hwpv1.Step)
		}
		to.Name, to.Argv, to.Env, to.WorkingDir = step.Name, step.Command(), stepEnv(spec.Env, step.Env), step.WorkingDir
		to.Timeout = int64(step.Timeout)
		if step.Grace != job.DefaultGrace {
			to.Grace = int64(max(step.Grace, 1))
		}
		for _, ref := range step.Secrets {
			to.Secrets = append(to.Secrets, &hwpv1.StepSecret{Name: ref.Name, Env: ref.Env, File: ref.File, Value: a.Secrets[ref.Name]})
		}
		if step.Terminal != nil {
			to.Terminal = &hwpv1.TerminalSize{Columns: step.Terminal.Columns, Rows: step.Terminal.Rows}
		}
		p.Steps = append(p.Steps, to)
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
