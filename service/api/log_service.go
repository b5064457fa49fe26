package api

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/logs/lines"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

// logService serves hodei.v1.LogService.
type logService struct {
	jobs *orchestrator.Orchestrator
	logs *logs.Service
}

// job returns the job that a request names, and the attempt: the last one when the request names none.
func (s *logService) job(ctx context.Context, id string, attempt int32) (job.Job, store.LogRef, error) {
	parsed, err := job.ParseID(id)
	if err != nil {
		return job.Job{}, store.LogRef{}, err
	}
	j, err := s.jobs.Get(ctx, parsed)
	if j, err = visible(ctx, j, err); err != nil {
		return job.Job{}, store.LogRef{}, err
	}
	if attempt == 0 {
		attempt = max(j.Attempt, 1)
	}
	return j, store.LogRef{Job: parsed, Attempt: attempt}, nil
}

func (s *logService) TailLogs(ctx context.Context, req *hodeiv1.TailLogsRequest, stream hodeiv1connect.LogServiceTailLogsServerStream) error {
	j, ref, err := s.job(ctx, req.GetJobId(), req.GetCursor().GetAttempt())
	if err != nil {
		return err
	}
	t := &tail{
		service: s, stream: stream, id: j.ID, spec: j.Spec, attempt: ref.Attempt,
		step: -1, kind: store.Stream(req.GetStream()), follow: req.GetFollow(), until: instant(req.GetUntil()),
	}
	if req.GetStep() != "" {
		if t.step, err = j.StepIndex(req.GetStep()); err != nil {
			return err
		}
	}
	if err := t.begin(ctx, ref, req); err != nil {
		return err
	}
	return t.run(ctx)
}

func (s *logService) SearchLogs(ctx context.Context, req *hodeiv1.SearchLogsRequest) (*hodeiv1.SearchLogsResponse, error) {
	j, ref, err := s.job(ctx, req.GetJobId(), req.GetAttempt())
	if err != nil {
		return nil, err
	}
	query := lines.Query{
		Text: req.GetText(), Pattern: req.GetPattern(), IgnoreCase: req.GetIgnoreCase(), Before: int(req.GetBefore()), After: int(req.GetAfter()),
		Step: -1, Stream: uint8(req.GetStream()), MaxMatches: int(req.GetMaxMatches()),
	}
	if query.MaxMatches == 0 {
		query.MaxMatches = defaultMatches
	}
	if req.GetStep() != "" {
		step, err := j.StepIndex(req.GetStep())
		if err != nil {
			return nil, err
		}
		query.Step = int32(step)
	}
	found, err := s.logs.Search(ctx, ref, query)
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.SearchLogsResponse{Attempt: ref.Attempt, Count: decimal(found.Count)}
	for i := range found.Matches {
		res.Matches = append(res.Matches, matchToProto(j.Spec, &found.Matches[i]))
	}
	res.Completeness, err = s.completeness(ctx, &j, ref)
	return res, err
}

// defaultMatches is how many matches a caller gets who does not say.
const defaultMatches = 1000

func (s *logService) ListLogGroups(ctx context.Context, req *hodeiv1.ListLogGroupsRequest) (*hodeiv1.ListLogGroupsResponse, error) {
	j, ref, err := s.job(ctx, req.GetJobId(), req.GetAttempt())
	if err != nil {
		return nil, err
	}
	groups, truncated, err := s.logs.Groups(ctx, ref)
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.ListLogGroupsResponse{Attempt: ref.Attempt, Truncated: truncated}
	for i := range groups {
		res.Groups = append(res.Groups, groupToProto(j.Spec, &groups[i]))
	}
	return res, nil
}

// completeness says how the log of an attempt stands, for one who has read all that is stored.
func (s *logService) completeness(ctx context.Context, j *job.Job, ref store.LogRef) (*hodeiv1.LogCompleteness, error) {
	state, err := s.logs.State(ctx, ref)
	if err != nil {
		return nil, err
	}
	t := tail{service: s, id: j.ID, spec: j.Spec, attempt: ref.Attempt}
	if state.End == nil {
		t.offset = state.Bytes
		standing, err := t.standing(ctx)
		return t.completeness(standing), err
	}
	if state.End.Removed == "" {
		t.offset = state.Bytes
	}
	t.noteEnd(state.End)
	return t.completeness(hodeiv1.LogState_LOG_STATE_COMPLETE), nil
}

func matchToProto(spec *job.Spec, m *lines.Match) *hodeiv1.LogMatch {
	return &hodeiv1.LogMatch{
		Line: lineToProto(&m.ContextLine), Step: stepName(spec, m.Step), Stream: hodeiv1.LogStream(m.Stream),
		Begin: int32(m.Start), End: int32(m.End), Before: linesToProto(m.Before), After: linesToProto(m.After),
	}
}

func linesToProto(all []lines.ContextLine) []*hodeiv1.LogLine {
	var out []*hodeiv1.LogLine
	for i := range all {
		out = append(out, lineToProto(&all[i]))
	}
	return out
}

func lineToProto(l *lines.ContextLine) *hodeiv1.LogLine {
	return &hodeiv1.LogLine{Line: decimal(l.Line + 1), Offset: decimal(l.Offset), Time: timestamppb.New(l.Time), Text: l.Text, Cut: l.Cut}
}

func groupToProto(spec *job.Spec, g *lines.Group) *hodeiv1.LogGroup {
	return &hodeiv1.LogGroup{
		Title: g.Title, Name: text(g.Name), Step: stepName(spec, g.Step), Stream: hodeiv1.LogStream(g.Stream),
		Line: decimal(g.Line + 1), EndLine: decimal(g.EndLine + 1), Offset: decimal(g.Offset), EndOffset: decimal(g.EndOffset),
		StartTime: timestamp(g.Start), EndTime: timestamp(g.End), Open: g.Open, Collapsed: g.Collapsed, Depth: int32(g.Depth),
	}
}

func stepName(spec *job.Spec, step int32) string {
	if step < 0 || int(step) >= len(spec.Steps) {
		return "" // an agent that is broken may name one that there is not
	}
	return spec.Steps[step].Name
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }
