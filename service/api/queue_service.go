package api

import (
	"context"
	"slices"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/service/audit/chain"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/orchestrator"
)

// queueService serves hodei.v1.QueueService.
type queueService struct{ jobs *orchestrator.Orchestrator }

func (s *queueService) ListQueues(ctx context.Context, req *hodeiv1.ListQueuesRequest) (*hodeiv1.ListQueuesResponse, error) {
	of, err := reach(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	all, err := s.jobs.Queues(ctx, "")
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(q orchestrator.QueueStatus) bool {
		return !q.Set && q.Waiting+q.Running == 0 || of != nil && !slices.Contains(of, q.Namespace)
	})
	page, next, err := pageOf(all, req, func(q *orchestrator.QueueStatus) string { return q.Namespace + "\x00" + q.Name })
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.ListQueuesResponse{NextPageToken: next}
	for i := range page {
		res.Queues = append(res.Queues, queueToProto(&page[i]))
	}
	return res, nil
}

func (s *queueService) GetQueue(ctx context.Context, req *hodeiv1.GetQueueRequest) (*hodeiv1.GetQueueResponse, error) {
	namespace, err := within(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	all, err := s.jobs.Queues(ctx, namespace)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(all, func(q orchestrator.QueueStatus) bool { return q.Name == req.GetName() })
	if at < 0 {
		all, at = []orchestrator.QueueStatus{{Queue: job.DefaultQueueSettings(namespace, req.GetName())}}, 0
	}
	return &hodeiv1.GetQueueResponse{Queue: queueToProto(&all[at])}, nil
}

func (s *queueService) SetQueue(ctx context.Context, req *hodeiv1.SetQueueRequest) (*hodeiv1.SetQueueResponse, error) {
	if _, err := within(ctx, req.GetQueue().GetNamespace()); err != nil {
		return nil, err
	}
	chain.About(ctx, "queue/"+req.GetQueue().GetName())
	q, err := s.jobs.SetQueue(ctx, queueFromProto(req.GetQueue()))
	if err != nil {
		return nil, err
	}
	return &hodeiv1.SetQueueResponse{Queue: queueToProto(&q)}, nil
}

func (s *queueService) PauseQueue(ctx context.Context, req *hodeiv1.PauseQueueRequest) (*hodeiv1.PauseQueueResponse, error) {
	q, err := s.pause(ctx, req, true)
	if err != nil {
		return nil, err
	}
	return &hodeiv1.PauseQueueResponse{Queue: queueToProto(&q)}, nil
}

func (s *queueService) ResumeQueue(ctx context.Context, req *hodeiv1.ResumeQueueRequest) (*hodeiv1.ResumeQueueResponse, error) {
	q, err := s.pause(ctx, req, false)
	if err != nil {
		return nil, err
	}
	return &hodeiv1.ResumeQueueResponse{Queue: queueToProto(&q)}, nil
}

func (s *queueService) pause(ctx context.Context, req namedQueue, paused bool) (orchestrator.QueueStatus, error) {
	namespace, err := within(ctx, req.GetNamespace())
	if err != nil {
		return orchestrator.QueueStatus{}, err
	}
	chain.About(ctx, "queue/"+req.GetName())
	return s.jobs.PauseQueue(ctx, namespace, req.GetName(), paused)
}

// namedQueue is a request that names a queue.
type namedQueue interface {
	GetNamespace() string
	GetName() string
}

func (s *queueService) DeleteQueue(ctx context.Context, req *hodeiv1.DeleteQueueRequest) (*hodeiv1.DeleteQueueResponse, error) {
	namespace, err := within(ctx, req.GetNamespace())
	if err != nil {
		return nil, err
	}
	chain.About(ctx, "queue/"+req.GetName())
	return &hodeiv1.DeleteQueueResponse{}, s.jobs.DeleteQueue(ctx, namespace, req.GetName())
}

func (s *queueService) ListNamespaces(ctx context.Context, req *hodeiv1.ListNamespacesRequest) (*hodeiv1.ListNamespacesResponse, error) {
	all, err := s.jobs.Namespaces(ctx)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	readable := c.gate.access.Policy().Reach(&c.who, c.rule.permission)
	all = slices.DeleteFunc(all, func(n orchestrator.NamespaceStatus) bool {
		return !n.Set && n.Waiting+n.Running == 0 || !readable.Includes(n.Name)
	})
	page, next, err := pageOf(all, req, func(n *orchestrator.NamespaceStatus) string { return n.Name })
	if err != nil {
		return nil, err
	}
	res := &hodeiv1.ListNamespacesResponse{NextPageToken: next}
	for i := range page {
		res.Namespaces = append(res.Namespaces, namespaceToProto(&page[i]))
	}
	return res, nil
}

func (s *queueService) SetNamespace(ctx context.Context, req *hodeiv1.SetNamespaceRequest) (*hodeiv1.SetNamespaceResponse, error) {
	chain.About(ctx, "namespace/"+req.GetNamespace().GetName())
	n, err := s.jobs.SetNamespace(ctx, namespaceFromProto(req.GetNamespace()))
	if err != nil {
		return nil, err
	}
	return &hodeiv1.SetNamespaceResponse{Namespace: namespaceToProto(&n)}, nil
}

func (s *queueService) DeleteNamespace(ctx context.Context, req *hodeiv1.DeleteNamespaceRequest) (*hodeiv1.DeleteNamespaceResponse, error) {
	chain.About(ctx, "namespace/"+req.GetName())
	return &hodeiv1.DeleteNamespaceResponse{}, s.jobs.DeleteNamespace(ctx, req.GetName())
}
