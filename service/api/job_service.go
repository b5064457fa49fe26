package api

import (
	"context"
	"crypto/sha256"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

// defaultPageSize is how many jobs a page has when the caller does not say.
const defaultPageSize = 50

// jobService serves hodei.v1.JobService.
type jobService struct{ jobs *orchestrator.Orchestrator }

func (s *jobService) SubmitJob(ctx context.Context, req *hodeiv1.SubmitJobRequest) (*hodeiv1.SubmitJobResponse, error) {
	if _, err := within(ctx, req.GetSpec().GetNamespace()); err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		j, err := s.jobs.Validate(ctx, specFromProto(req.GetSpec()))
		if err != nil {
			return nil, err
		}
		return &hodeiv1.SubmitJobResponse{Job: jobToProto(&j, "")}, nil
	}
	submission, err := submissionFromProto(req)
	if err != nil {
		return nil, err
	}
	results, err := s.jobs.Submit(ctx, submission)
	if err != nil {
		return nil, err
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return &hodeiv1.SubmitJobResponse{Job: jobToProto(&results[0].Job, "")}, nil
}

func (s *jobService) SubmitJobs(ctx context.Context, req *hodeiv1.SubmitJobsRequest) (*hodeiv1.SubmitJobsResponse, error) {
	for _, r := range req.GetRequests() {
		if _, err := within(ctx, r.GetSpec().GetNamespace()); err != nil {
			return nil, err
		}
	}
	submissions, err := submissionsFromProto(req)
	if err != nil {
		return nil, err
	}
	results, err := s.jobs.Submit(ctx, submissions...)
	if err != nil {
		return nil, err
	}
	memory := make([]hodeiv1.SubmitJobResult, len(results))
	res := &hodeiv1.SubmitJobsResponse{Results: make([]*hodeiv1.SubmitJobResult, len(results))}
	for i := range results {
		res.Results[i] = &memory[i]
		if results[i].Err != nil {
			wire := toConnect(results[i].Err)
			memory[i].Problem = &hodeiv1.Problem{Code: wire.Code().String(), Message: wire.Message()}
			continue
		}
		memory[i].JobId = results[i].Job.ID.String()
	}
	return res, nil
}

// submissionsFromProto takes the call as one submission when it has a request_id, or none of its requests has one, and
// else each request by itself.
func submissionsFromProto(req *hodeiv1.SubmitJobsRequest) ([]orchestrator.Submission, error) {
	each := req.GetRequestId() == "" && slices.ContainsFunc(req.GetRequests(), func(r *hodeiv1.SubmitJobRequest) bool { return r.GetRequestId() != "" })
	if !each {
		all := orchestrator.Submission{RequestID: req.GetRequestId(), Specs: make([]job.Spec, len(req.GetRequests()))}
		n := 0
		for _, r := range req.GetRequests() {
			n += len(r.GetSpec().GetSteps())
		}
		steps := make([]job.Step, 0, n) // one piece of memory for the steps of all jobs
		for i, r := range req.GetRequests() {
			first := len(steps)
			all.Specs[i] = specWithSteps(r.GetSpec(), steps[first:first])
			steps = steps[:first+len(all.Specs[i].Steps)]
		}
		if all.RequestID == "" {
			return []orchestrator.Submission{all}, nil
		}
		var err error
		all.Hash, err = hashOf(&hodeiv1.SubmitJobsRequest{Requests: req.GetRequests()}, req.GetRequests()...)
		return []orchestrator.Submission{all}, err
	}
	out := make([]orchestrator.Submission, len(req.GetRequests()))
	for i, r := range req.GetRequests() {
		var err error
		if out[i], err = submissionFromProto(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func submissionFromProto(r *hodeiv1.SubmitJobRequest) (orchestrator.Submission, error) {
	s := orchestrator.Submission{Specs: []job.Spec{specFromProto(r.GetSpec())}, RequestID: r.GetRequestId()}
	if s.RequestID == "" {
		return s, nil
	}
	var err error
	s.Hash, err = hashOf(r.GetSpec(), r)
	return s, err
}

// hashOf tells bodies of requests apart.
func hashOf(m body, requests ...*hodeiv1.SubmitJobRequest) ([sha256.Size]byte, error) {
	if !slices.ContainsFunc(requests, hasMaps) { // then there is one order only, and the quick way finds it too
		b, err := m.MarshalVT()
		return sha256.Sum256(b), err
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return sha256.Sum256(b), err
}

// body is a message that is hashed.
type body interface {
	proto.Message
	MarshalVT() ([]byte, error)
}

// hasMaps reports whether a request can be encoded in several ways.
func hasMaps(r *hodeiv1.SubmitJobRequest) bool {
	spec := r.GetSpec()
	return len(spec.GetLabels())+len(spec.GetEnv())+len(spec.GetResources().GetExtras()) > 0 ||
		slices.ContainsFunc(spec.GetSteps(), func(s *hodeiv1.Step) bool { return len(s.GetEnv()) > 0 })
}

func (s *jobService) GetJob(ctx context.Context, req *hodeiv1.GetJobRequest) (*hodeiv1.GetJobResponse, error) {
	j, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	jobs, err := s.toProto(ctx, []job.Job{j})
	if err != nil {
		return nil, err
	}
	return &hodeiv1.GetJobResponse{Job: jobs[0]}, nil
}

// find returns the job with an id, if the caller may see it.
func (s *jobService) find(ctx context.Context, id string) (job.Job, error) {
	parsed, err := job.ParseID(id)
	if err != nil {
		return job.Job{}, err
	}
	j, err := s.jobs.Get(ctx, parsed)
	return visible(ctx, j, err)
}

func (s *jobService) toProto(ctx context.Context, jobs []job.Job) ([]*hodeiv1.Job, error) {
	reasons, err := s.jobs.PendingReasons(ctx, jobs)
	if err != nil {
		return nil, err
	}
	out := make([]*hodeiv1.Job, len(jobs))
	for i := range jobs {
		out[i] = jobToProto(&jobs[i], reasons[jobs[i].ID])
	}
	return out, nil
}

func (s *jobService) ListJobs(ctx context.Context, req *hodeiv1.ListJobsRequest) (*hodeiv1.ListJobsResponse, error) {
	key, err := decodePageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	var before job.ID
	if copy(before[:], key) != len(key) || len(key) != 0 && len(key) != len(before) {
		return nil, errPageToken(req.GetPageToken())
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	filter, err := filterFromProto(ctx, req.GetFilter())
	if err != nil {
		return nil, err
	}
	jobs, err := s.jobs.List(ctx, filter, before, size)
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.ListJobsResponse{}
	if res.Jobs, err = s.toProto(ctx, jobs); err != nil {
		return nil, err
	}
	if len(jobs) == size {
		res.NextPageToken = encodePageToken(string(jobs[size-1].ID[:]))
	}
	return res, nil
}

func (s *jobService) CancelJob(ctx context.Context, req *hodeiv1.CancelJobRequest) (*hodeiv1.CancelJobResponse, error) {
	j, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	p := principal(ctx)
	j, err = s.jobs.Cancel(ctx, j.ID, req.GetStep(), job.CancelRequest{Actor: p.String(), Reason: req.GetReason(), Force: req.GetForce()})
	if err != nil {
		return nil, err
	}
	return &hodeiv1.CancelJobResponse{Job: jobToProto(&j, "")}, nil
}

func (s *jobService) ReleaseJob(ctx context.Context, req *hodeiv1.ReleaseJobRequest) (*hodeiv1.ReleaseJobResponse, error) {
	j, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	chain.About(ctx, j.ID.String())
	j, err = s.jobs.Release(ctx, j.ID)
	if err != nil {
		return nil, err
	}
	return &hodeiv1.ReleaseJobResponse{Job: jobToProto(&j, "")}, nil
}

func (s *jobService) ExplainJob(ctx context.Context, req *hodeiv1.ExplainJobRequest) (*hodeiv1.ExplainJobResponse, error) {
	if spec := req.GetSpec(); spec != nil {
		if _, err := within(ctx, spec.GetNamespace()); err != nil {
			return nil, err
		}
		j, e, err := s.jobs.ExplainSpec(ctx, specFromProto(spec))
		if err != nil {
			return nil, err
		}
		return explanationToProto(&j, &e), nil
	}
	j, err := s.find(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	j, e, err := s.jobs.Explain(ctx, j.ID)
	if err != nil {
		return nil, err
	}
	res := explanationToProto(&j, &e)
	if res.GetText() == "" {
		res.Text = waitsForNoWorker(&j)
	}
	return res, nil
}

func (s *jobService) WatchJobs(ctx context.Context, req *hodeiv1.WatchJobsRequest, stream hodeiv1connect.JobServiceWatchJobsServerStream) error {
	filter, err := filterFromProto(ctx, req.GetFilter())
	if err != nil {
		return err
	}
	return s.jobs.Watch(ctx, filter, req.GetResumeToken(), func(c orchestrator.Change) error {
		res := &hodeiv1.WatchJobsResponse{
			ResumeToken: c.ResumeToken, InitialComplete: c.InitialComplete, ServerTime: timestamppb.New(time.Now()),
		}
		var err error
		if res.Jobs, err = s.toProto(ctx, c.Jobs); err != nil {
			return err
		}
		return stream.Send(res)
	})
}
