package api

import (
	"context"
	"math"

	"google.golang.org/protobuf/types/known/durationpb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// The enums of the domain have the numbers of the API's, so that converting is a cast; a test holds them together.

func jobToProto(j *job.Job, pendingReason string) *hodeiv1.Job {
	p := &hodeiv1.Job{
		Id: j.ID.String(), Spec: specToProto(j.Spec), State: hodeiv1.JobState(j.State), Attempt: j.Attempt, WorkerId: string(j.Worker),
		CreateTime: timestamp(j.Created), StartTime: timestamp(j.Started), EndTime: timestamp(j.Ended),
		NextAttemptTime: timestamp(j.NextAttempt), Revision: j.Revision, PendingReason: pendingReason,
		Preempting: j.Preempting, Preemptions: j.Preemptions, Held: j.Held,
	}
	if j.Held != "" {
		p.NextAttemptTime = nil // it is so late that it means never
	}
	if j.State.Terminal() {
		p.Cause = causeToProto(&j.Cause)
	}
	if len(j.Masked) > 0 {
		p.Masked = make(map[string]int32, len(j.Masked))
		for name, n := range j.Masked {
			p.Masked[name] = int32(min(n, math.MaxInt32))
		}
	}
	if j.Progress != nil {
		p.Progress = &hodeiv1.Progress{Fraction: float64(j.Progress.Permille) / 1000, Message: j.Progress.Message}
	}
	for i := range j.Steps {
		p.Steps = append(p.Steps, stepStatusToProto(j.Spec.Steps[i].Name, &j.Steps[i]))
	}
	return p
}

func causeToProto(c *job.Cause) *hodeiv1.Cause {
	return &hodeiv1.Cause{
		Kind: hodeiv1.CauseKind(c.Kind), ExitCode: c.ExitCode, Signal: c.Signal, Step: c.Step, Message: c.Message, Actor: c.Actor,
	}
}

func stepStatusToProto(name string, s *job.StepStatus) *hodeiv1.StepStatus {
	p := &hodeiv1.StepStatus{
		Name: name, State: hodeiv1.StepState(s.State), StartTime: timestamp(s.Started), EndTime: timestamp(s.Ended),
	}
	if s.State.Terminal() && s.State != job.StepSkipped {
		p.Cause = causeToProto(&s.Cause)
		p.Usage = &hodeiv1.ResourceUsage{
			UserCpu: durationpb.New(s.Usage.UserCPU), SystemCpu: durationpb.New(s.Usage.SystemCPU), MaxRssKib: s.Usage.MaxRSSKiB,
		}
	}
	return p
}

// filterFromProto returns the filter, within what the caller may see.
func filterFromProto(ctx context.Context, p *hodeiv1.JobFilter) (store.Filter, error) {
	f := store.Filter{Queue: p.GetQueue(), Name: p.GetName(), Labels: p.GetLabels()}
	var err error
	if f.Namespaces, err = reach(ctx, p.GetNamespace()); err != nil {
		return f, err
	}
	for _, s := range p.GetStates() {
		f.States = append(f.States, job.State(s))
	}
	for _, text := range p.GetIds() {
		id, err := job.ParseID(text)
		if err != nil {
			id = job.ID{} // no job has this one, so it selects nothing
		}
		f.IDs = append(f.IDs, id)
	}
	return f, nil
}

// workerToProto leaves out what not everybody may see: queues and jobs, see showWorker.
func workerToProto(w *job.Worker) *hodeiv1.Worker {
	return &hodeiv1.Worker{
		Id: string(w.ID), Name: w.Name, State: hodeiv1.WorkerState(w.State()), Labels: w.Labels,
		Capacity: resourcesToProto(w.Capacity), Reserved: resourcesToProto(w.Reserved),
		UsedMilliCpu: w.Used.MilliCPU, UsedMemoryMib: w.Used.MemoryMiB,
		HeartbeatTime: timestamp(w.LastHeartbeat), ConnectTime: timestamp(w.ConnectedAt), AgentVersion: w.AgentVersion,
		Taints: w.Taints, Capabilities: w.Capabilities, SuspendReason: w.Suspended, SuspendEndTime: timestamp(w.SuspendedTo),
		Bound: len(w.Queues) > 0,
	}
}
