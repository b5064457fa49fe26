package api

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/job"
)

func specFromProto(p *hodeiv1.JobSpec) job.Spec {
	return specWithSteps(p, make([]job.Step, 0, len(p.GetSteps())))
}

// specWithSteps puts the steps into memory that the caller has.
func specWithSteps(p *hodeiv1.JobSpec, steps []job.Step) job.Spec {
	s := job.Spec{
		Name: p.GetName(), Namespace: p.GetNamespace(), Queue: p.GetQueue(), Labels: p.GetLabels(), Env: p.GetEnv(),
		Resources: resourcesFromProto(p.GetResources()),
		Priority:  p.GetPriority(), Timeout: duration(p.GetTimeout()), MaxAttempts: p.GetMaxAttempts(),
		Backoff: job.Backoff{
			Initial: duration(p.GetBackoff().GetInitial()), Max: duration(p.GetBackoff().GetMax()), Factor: p.GetBackoff().GetFactor(),
		},
		RunAfter: instant(p.GetRunAfter()), Placement: placementFromProto(p),
	}
	for _, step := range p.GetSteps() {
		steps = append(steps, job.Step{
			Name: step.GetName(), Argv: step.GetCommand().GetArgv(),
			Script: step.GetScript().GetText(), Shell: step.GetScript().GetShell(),
			Env: step.GetEnv(), WorkingDir: step.GetWorkingDir(), Timeout: duration(step.GetTimeout()), Grace: duration(step.GetGrace()),
			Secrets: secretRefsFromProto(step.GetSecrets()), Terminal: terminalFromProto(step.GetTerminal()),
		})
	}
	s.Steps = steps
	for _, c := range p.GetConstraints() {
		s.Constraints = append(s.Constraints, constraintFromProto(c))
	}
	return s
}

func secretRefsFromProto(refs []*hodeiv1.SecretRef) []job.SecretRef {
	if len(refs) == 0 {
		return nil
	}
	out := make([]job.SecretRef, len(refs))
	for i, ref := range refs {
		out[i] = job.SecretRef{Name: ref.GetName(), Env: ref.GetEnv(), File: ref.GetFile()}
	}
	return out
}

func terminalFromProto(p *hodeiv1.Terminal) *job.Terminal {
	if p == nil {
		return nil
	}
	return &job.Terminal{Columns: p.GetColumns(), Rows: p.GetRows()}
}

func specToProto(s *job.Spec) *hodeiv1.JobSpec {
	p := &hodeiv1.JobSpec{
		Name: s.Name, Namespace: s.Namespace, Queue: s.Queue, Labels: s.Labels, Env: s.Env,
		Resources: resourcesToProto(s.Resources),
		Priority:  s.Priority, Timeout: durationpb.New(s.Timeout), MaxAttempts: s.MaxAttempts,
		Backoff: &hodeiv1.Backoff{
			Initial: durationpb.New(s.Backoff.Initial), Max: durationpb.New(s.Backoff.Max), Factor: s.Backoff.Factor,
		},
		RunAfter: timestamp(s.RunAfter),
	}
	for i := range s.Steps {
		p.Steps = append(p.Steps, stepToProto(&s.Steps[i]))
	}
	for i := range s.Constraints {
		p.Constraints = append(p.Constraints, constraintToProto(&s.Constraints[i]))
	}
	placementToProto(p, s.Placement)
	return p
}

func stepToProto(s *job.Step) *hodeiv1.Step {
	p := &hodeiv1.Step{Name: s.Name, Env: s.Env, WorkingDir: s.WorkingDir, Timeout: optional(s.Timeout), Grace: durationpb.New(s.Grace)}
	for _, ref := range s.Secrets {
		p.Secrets = append(p.Secrets, &hodeiv1.SecretRef{Name: ref.Name, Env: ref.Env, File: ref.File})
	}
	if s.Terminal != nil {
		p.Terminal = &hodeiv1.Terminal{Columns: s.Terminal.Columns, Rows: s.Terminal.Rows}
	}
	if s.Script != "" {
		p.Action = &hodeiv1.Step_Script{Script: &hodeiv1.Script{Text: s.Script, Shell: s.Shell}}
	} else {
		p.Action = &hodeiv1.Step_Command{Command: &hodeiv1.Command{Argv: s.Argv}}
	}
	return p
}

func resourcesFromProto(p *hodeiv1.Resources) job.Resources {
	return job.Resources{MilliCPU: p.GetMilliCpu(), MemoryMiB: p.GetMemoryMib(), Extras: p.GetExtras()}
}

func resourcesToProto(r job.Resources) *hodeiv1.Resources {
	return &hodeiv1.Resources{MilliCpu: r.MilliCPU, MemoryMib: r.MemoryMiB, Extras: r.Extras}
}

// duration returns what a message says, 0 when it says nothing.
func duration(p *durationpb.Duration) time.Duration {
	if p == nil {
		return 0
	}
	return p.AsDuration()
}

// optional leaves a zero duration out.
func optional(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func instant(p *timestamppb.Timestamp) time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.AsTime()
}

// timestamp leaves the zero time out.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
