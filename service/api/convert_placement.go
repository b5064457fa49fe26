package api

import (
	"time"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/job"
)

func constraintFromProto(c *hodeiv1.Constraint) job.Constraint {
	operator := c.GetOperator()
	if operator < 0 || operator > hodeiv1.ConstraintOperator_CONSTRAINT_OPERATOR_VERSION {
		operator = 0 // which the domain refuses; cut to its size, another one may be one that it knows
	}
	return job.Constraint{Label: c.GetLabel(), Operator: job.Operator(operator), Values: c.GetValues()}
}

func constraintToProto(c *job.Constraint) *hodeiv1.Constraint {
	return &hodeiv1.Constraint{Label: c.Label, Operator: hodeiv1.ConstraintOperator(c.Operator), Values: c.Values}
}

// placementFromProto returns nil when the spec asks for nothing of it, as most do.
func placementFromProto(p *hodeiv1.JobSpec) *job.Placement {
	if len(p.GetAffinities())+len(p.GetTolerations())+len(p.GetRequires())+len(p.GetSpread())+len(p.GetApart()) == 0 &&
		p.GetConcurrency() == nil && p.GetGang() == nil {
		return nil
	}
	out := &job.Placement{Spread: p.GetSpread(), Apart: p.GetApart(), Tolerations: p.GetTolerations(), Requires: p.GetRequires()}
	for _, a := range p.GetAffinities() {
		out.Affinities = append(out.Affinities, job.Affinity{Constraint: constraintFromProto(a.GetConstraint()), Weight: a.GetWeight()})
	}
	if c := p.GetConcurrency(); c != nil {
		policy := c.GetPolicy()
		if policy < 0 || policy > hodeiv1.ConcurrencyPolicy_CONCURRENCY_POLICY_CANCEL_RUNNING {
			policy = hodeiv1.ConcurrencyPolicy_CONCURRENCY_POLICY_CANCEL_RUNNING + 1 // which the domain refuses
		}
		out.Concurrency = &job.Concurrency{Key: c.GetKey(), Limit: c.GetLimit(), Policy: job.ConcurrencyPolicy(policy)}
	}
	if g := p.GetGang(); g != nil {
		out.Gang = &job.Gang{Name: g.GetName(), Size: g.GetSize()}
	}
	return out
}

func placementToProto(to *hodeiv1.JobSpec, p *job.Placement) {
	if p == nil {
		return
	}
	to.Spread, to.Apart, to.Tolerations, to.Requires = p.Spread, p.Apart, p.Tolerations, p.Requires
	for i := range p.Affinities {
		to.Affinities = append(to.Affinities, &hodeiv1.Affinity{
			Constraint: constraintToProto(&p.Affinities[i].Constraint), Weight: p.Affinities[i].Weight,
		})
	}
	if c := p.Concurrency; c != nil {
		to.Concurrency = &hodeiv1.Concurrency{Key: c.Key, Limit: c.Limit, Policy: hodeiv1.ConcurrencyPolicy(c.Policy)}
	}
	if g := p.Gang; g != nil {
		to.Gang = &hodeiv1.Gang{Name: g.Name, Size: g.Size}
	}
}

// waitsForNoWorker says how a job stands that does not wait for a worker, and why it has waited.
func waitsForNoWorker(j *job.Job) string {
	if j.Waited != "" && !j.State.Waiting() {
		return standing(j) + "; before, it waited: " + j.Waited
	}
	return standing(j)
}

func standing(j *job.Job) string {
	switch {
	case j.State.Terminal():
		return "it has ended: it is " + j.State.String()
	case j.Held != "":
		return "it is held: " + j.Held
	case j.State == job.Delayed && j.Attempt > 0:
		return "its next attempt begins at " + j.NextAttempt.UTC().Format(time.RFC3339)
	case j.State == job.Delayed:
		return "it was submitted to start no earlier than " + j.NextAttempt.UTC().Format(time.RFC3339)
	case j.State == job.Blocked:
		return "it waits for other jobs"
	case j.Preempting:
		return "it is on worker " + string(j.Worker) + ", and makes room for a more urgent job"
	}
	return "it does not wait: it is " + j.State.String() + " on worker " + string(j.Worker)
}
