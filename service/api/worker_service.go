package api

import (
	"context"
	"slices"
	"strings"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

const defaultWorkerPageSize = 100

// workerService serves hodei.v1.WorkerService.
type workerService struct{ jobs *orchestrator.Orchestrator }

func (s *workerService) ListWorkers(ctx context.Context, req *hodeiv1.ListWorkersRequest) (*hodeiv1.ListWorkersResponse, error) {
	after, err := decodePageToken(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	overview, err := s.jobs.Overview(ctx)
	if err != nil {
		return nil, err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultWorkerPageSize
	}
	// The key of a page is the name and the id, as the list is ordered.
	start, found := slices.BinarySearchFunc(overview.Workers, after, func(w job.Worker, key string) int {
		return strings.Compare(workerKey(&w), key)
	})
	if found {
		start++
	}
	res := &hodeiv1.ListWorkersResponse{}
	for i := start; i < len(overview.Workers); i++ {
		if len(res.Workers) == size {
			res.NextPageToken = encodePageToken(workerKey(&overview.Workers[i-1]))
			break
		}
		res.Workers = append(res.Workers, workerToProto(&overview.Workers[i]))
	}
	return res, nil
}

func workerKey(w *job.Worker) string { return w.Name + "\x00" + string(w.ID) }

func (s *workerService) GetWorker(ctx context.Context, req *hodeiv1.GetWorkerRequest) (*hodeiv1.GetWorkerResponse, error) {
	w, err := s.jobs.Worker(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &hodeiv1.GetWorkerResponse{Worker: workerToProto(&w)}, nil
}

func (s *workerService) DrainWorker(ctx context.Context, req *hodeiv1.DrainWorkerRequest) (*hodeiv1.DrainWorkerResponse, error) {
	w, err := s.jobs.Drain(ctx, req.GetId(), !req.GetResume())
	if err != nil {
		return nil, err
	}
	return &hodeiv1.DrainWorkerResponse{Worker: workerToProto(&w)}, nil
}
