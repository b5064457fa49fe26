package api

import (
	"context"
	"slices"
	"strings"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

// workerService serves hodei.v1.WorkerService.
type workerService struct{ jobs *orchestrator.Orchestrator }

func (s *workerService) ListWorkers(ctx context.Context, req *hodeiv1.ListWorkersRequest) (*hodeiv1.ListWorkersResponse, error) {
	overview, err := s.jobs.Overview(ctx)
	if err != nil {
		return nil, err
	}
	page, next, err := pageOf(overview.Workers, req, workerKey)
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.ListWorkersResponse{NextPageToken: next}
	for i := range page {
		res.Workers = append(res.Workers, showWorker(ctx, &page[i]))
	}
	return res, nil
}

// workerKey is the name and the id, as the list is ordered.
func workerKey(w *job.Worker) string { return w.Name + "\x00" + string(w.ID) }

func (s *workerService) GetWorker(ctx context.Context, req *hodeiv1.GetWorkerRequest) (*hodeiv1.GetWorkerResponse, error) {
	w, err := s.jobs.Worker(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &hodeiv1.GetWorkerResponse{Worker: showWorker(ctx, &w)}, nil
}

// showWorker leaves out the queues and the jobs of namespaces that the caller may not see: they are of no concern to other tenants.
func showWorker(ctx context.Context, w *job.Worker) *hodeiv1.Worker {
	p, c := workerToProto(w), callOf(ctx)
	seen := c.gate.access.Policy().Reach(&c.who, c.rule.permission)
	p.Queues = slices.DeleteFunc(slices.Clone(w.Queues), func(scope string) bool {
		namespace, _, _ := strings.Cut(scope, "/")
		return !seen.Includes(namespace)
	})
	readable := c.gate.access.Policy().Reach(&c.who, "jobs.read")
	for _, held := range w.Jobs {
		if readable.Includes(held.Namespace) {
			p.JobIds = append(p.JobIds, held.ID.String())
		}
	}
	slices.Sort(p.JobIds)
	return p
}

func (s *workerService) DrainWorker(ctx context.Context, req *hodeiv1.DrainWorkerRequest) (*hodeiv1.DrainWorkerResponse, error) {
	w, err := s.jobs.Drain(ctx, req.GetId(), !req.GetResume())
	if err != nil {
		return nil, err
	}
	return &hodeiv1.DrainWorkerResponse{Worker: showWorker(ctx, &w)}, nil
}
