package api

import (
	"cmp"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/scheduler"
)

// queueFromProto takes what is not set for its default.
func queueFromProto(p *hodeiv1.Queue) job.Queue {
	q := job.DefaultQueueSettings(cmp.Or(p.GetNamespace(), job.DefaultNamespace), p.GetName())
	q.Parent, q.Band, q.Limits, q.Paused = p.GetParent(), p.GetBand(), limitsFromProto(p.GetLimits()), p.GetPaused()
	q.Preempts, q.Preemptible, q.AwaitsWorkers = p.GetPreempts(), p.GetPreemptible(), p.GetAwaitWorkers()
	if p != nil {
		replace(&q.Weight, p.Weight)
	}
	if p.GetAgeing() != nil {
		q.Ageing = p.GetAgeing().AsDuration()
	}
	if s := p.GetScoring(); s != nil {
		q.Scoring.Spread = s.GetSpread()
		replace(&q.Scoring.Load, s.Load)
		replace(&q.Scoring.Affinity, s.Affinity)
		replace(&q.Scoring.Price, s.Price)
	}
	return q
}

// replace gives a setting the value that was set, if one was.
func replace(setting, value *int32) {
	if value != nil {
		*setting = *value
	}
}

func queueToProto(s *orchestrator.QueueStatus) *hodeiv1.Queue {
	return &hodeiv1.Queue{
		Namespace: s.Namespace, Name: s.Name, Parent: s.Parent, Weight: proto.Int32(s.Weight), Band: s.Band, Limits: limitsToProto(&s.Limits),
		Paused: s.Paused, Ageing: durationpb.New(s.Ageing),
		Scoring: &hodeiv1.Scoring{
			Spread: s.Scoring.Spread, Load: proto.Int32(s.Scoring.Load),
			Affinity: proto.Int32(s.Scoring.Affinity), Price: proto.Int32(s.Scoring.Price),
		},
		Preempts: s.Preempts, Preemptible: s.Preemptible, AwaitWorkers: s.AwaitsWorkers,
		Waiting: int32(s.Waiting), Running: int32(s.Running), Held: resourcesToProto(s.Held), Share: s.Share, Due: s.Due, Customized: s.Set,
	}
}

func namespaceFromProto(p *hodeiv1.Namespace) job.Namespace {
	n := job.DefaultNamespaceSettings(p.GetName())
	n.Limits, n.DefaultQueue = limitsFromProto(p.GetLimits()), p.GetDefaultQueue()
	if p != nil {
		replace(&n.Weight, p.Weight)
	}
	return n
}

func namespaceToProto(s *orchestrator.NamespaceStatus) *hodeiv1.Namespace {
	return &hodeiv1.Namespace{
		Name: s.Name, Weight: proto.Int32(s.Weight), Limits: limitsToProto(&s.Limits), DefaultQueue: s.DefaultQueue,
		Waiting: int32(s.Waiting), Running: int32(s.Running), Held: resourcesToProto(s.Held), Share: s.Share, Due: s.Due, Customized: s.Set,
	}
}

func limitsFromProto(p *hodeiv1.Limits) job.Limits {
	return job.Limits{
		Running: p.GetRunning(), MilliCPU: p.GetMilliCpu(), MemoryMiB: p.GetMemoryMib(), StartsPerMinute: p.GetStartsPerMinute(),
	}
}

// limitsToProto leaves limits out that bound nothing.
func limitsToProto(l *job.Limits) *hodeiv1.Limits {
	if *l == (job.Limits{}) {
		return nil
	}
	return &hodeiv1.Limits{Running: l.Running, MilliCpu: l.MilliCPU, MemoryMib: l.MemoryMiB, StartsPerMinute: l.StartsPerMinute}
}

func explanationToProto(j *job.Job, e *scheduler.Explanation) *hodeiv1.ExplainJobResponse {
	p := &hodeiv1.ExplainJobResponse{
		Text: e.Text, Workers: int32(e.Workers), Fitting: int32(e.Fitting), Ahead: int32(e.Ahead), Limit: e.Limit,
		Earliest: timestamp(e.Earliest), Advice: e.Advice, State: hodeiv1.JobState(j.State), Sizing: e.Sizing,
	}
	for _, f := range e.Filters {
		p.Filters = append(p.Filters, &hodeiv1.FilterCount{Filter: f.Filter, Workers: int32(f.Workers), Text: f.Text})
	}
	if known := &e.Prediction; known.Runs > 0 {
		p.Prediction = &hodeiv1.Prediction{Runs: int32(known.Runs), Median: usageToProto(&known.Median), Most: usageToProto(&known.Most)}
	}
	return p
}

func usageToProto(u *scheduler.Usage) *hodeiv1.RunUsage {
	return &hodeiv1.RunUsage{Ran: durationpb.New(u.Ran), MilliCpu: u.MilliCPU, MemoryMib: u.MemoryMiB}
}
