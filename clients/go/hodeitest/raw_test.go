package hodeitest_test

import (
	"context"

	hodei "github.com/hodei-jobs/hodei/clients/go"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
)

// runRaw submits a job and waits for its end, without anything that makes it safe.
func runRaw(ctx context.Context, jobs hodeiv1connect.JobServiceClient, spec *hodeiv1.JobSpec) error {
	submitted, err := jobs.SubmitJob(ctx, &hodeiv1.SubmitJobRequest{Spec: spec})
	if err != nil {
		return err
	}
	id := submitted.GetJob().GetId()
	if _, err := jobs.GetJob(ctx, &hodeiv1.GetJobRequest{Id: id}); err != nil {
		return err
	}
	stream, err := jobs.WatchJobs(ctx, &hodeiv1.WatchJobsRequest{Filter: &hodeiv1.JobFilter{Namespace: "*", Ids: []string{id}}})
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		res, err := stream.Receive()
		if err != nil {
			return err
		}
		for _, job := range res.GetJobs() {
			if hodei.Terminal(job.GetState()) {
				return nil
			}
		}
	}
}
