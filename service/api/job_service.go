package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

// defaultPageSize is how many jobs a page has when the caller does not say.
const defaultPageSize = 50

// jobService serves hodei.v1.JobService.
type jobService struct{ jobs *orchestrator.Orchestrator }

func (s *jobService) SubmitJob(ctx context.Context, req *hodeiv1.SubmitJobRequest) (*hodeiv1.SubmitJobResponse, error) {
	if req.GetValidateOnly() {
		j, err := s.jobs.Validate(specFromProto(req.GetSpec()))
		if err != nil {
			return nil, err
		}
		return &hodeiv1.SubmitJobResponse{Job: jobToProto(&j, "")}, nil
	}
	results, err := s.submit(ctx, []*hodeiv1.SubmitJobRequest{req})
	if err != nil {
		return nil, err
	}
	if results[0].Err != nil {
		return nil, results[0].Err
	}
	return &hodeiv1.SubmitJobResponse{Job: jobToProto(&results[0].Job, "")}, nil
}

func (s *jobService) SubmitJobs(ctx context.Context, req *hodeiv1.SubmitJobsRequest) (*hodeiv1.SubmitJobsResponse, error) {
	results, err := s.submit(ctx, req.GetRequests())
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.SubmitJobsResponse{Results: make([]*hodeiv1.SubmitJobResult, len(results))}
	for i := range results {
		if results[i].Err != nil {
			wire := toConnect(results[i].Err)
			res.Results[i] = &hodeiv1.SubmitJobResult{Problem: &hodeiv1.Problem{Code: wire.Code().String(), Message: wire.Message()}}
			continue
		}
		res.Results[i] = &hodeiv1.SubmitJobResult{JobId: string(results[i].Job.ID)}
	}
	return res, nil
}

func (s *jobService) submit(ctx context.Context, requests []*hodeiv1.SubmitJobRequest) ([]orchestrator.Result, error) {
	submissions := make([]orchestrator.Submission, len(requests))
	for i, r := range requests {
		submissions[i] = orchestrator.Submission{Spec: specFromProto(r.GetSpec()), RequestID: r.GetRequestId()}
		if r.GetRequestId() == "" {
			continue
		}
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.GetSpec())
		if err != nil {
			return nil, err
		}
		submissions[i].Hash = sha256.Sum256(body)
	}
	return s.jobs.Submit(ctx, submissions)
}

func (s *jobService) GetJob(ctx context.Context, req *hodeiv1.GetJobRequest) (*hodeiv1.GetJobResponse, error) {
	j, err := s.jobs.Get(ctx, job.ID(req.GetId()))
	if err != nil {
		return nil, err
	}
	return &hodeiv1.GetJobResponse{Job: s.toProto(&j)}, nil
}

func (s *jobService) toProto(j *job.Job) *hodeiv1.Job {
	return jobToProto(j, s.jobs.PendingReason(j.ID))
}

func (s *jobService) ListJobs(ctx context.Context, req *hodeiv1.ListJobsRequest) (*hodeiv1.ListJobsResponse, error) {
	before, err := decodePageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	jobs, err := s.jobs.List(ctx, filterFromProto(req.GetFilter()), job.ID(before), size)
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.ListJobsResponse{}
	for i := range jobs {
		res.Jobs = append(res.Jobs, s.toProto(&jobs[i]))
	}
	if len(jobs) == size {
		res.NextPageToken = encodePageToken(string(jobs[size-1].ID))
	}
	return res, nil
}

func (s *jobService) CancelJob(ctx context.Context, req *hodeiv1.CancelJobRequest) (*hodeiv1.CancelJobResponse, error) {
	request := job.CancelRequest{Actor: principal(ctx).String(), Reason: req.GetReason(), Force: req.GetForce()}
	j, err := s.jobs.Cancel(ctx, job.ID(req.GetId()), req.GetStep(), request)
	if err != nil {
		return nil, err
	}
	return &hodeiv1.CancelJobResponse{Job: s.toProto(&j)}, nil
}

func (s *jobService) WatchJobs(ctx context.Context, req *hodeiv1.WatchJobsRequest, stream hodeiv1connect.JobServiceWatchJobsServerStream) error {
	return s.jobs.Watch(ctx, filterFromProto(req.GetFilter()), req.GetResumeToken(), func(c orchestrator.Change) error {
		res := &hodeiv1.WatchJobsResponse{
			ResumeToken: c.ResumeToken, InitialComplete: c.InitialComplete, ServerTime: timestamppb.New(time.Now()),
		}
		for i := range c.Jobs {
			res.Jobs = append(res.Jobs, s.toProto(&c.Jobs[i]))
		}
		return stream.Send(res)
	})
}

func encodePageToken(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func decodePageToken(token string) (string, error) {
	key, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument,
			"page_token %q is not one that this server gave; take next_page_token as it is", token)
	}
	return string(key), nil
}
