package hodei

import (
	"cmp"
	"context"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// Explain says why a job waits, or how it stands when it does not; ErrNotFound when there is none.
func (c *Client) Explain(ctx context.Context, id string) (*hodeiv1.ExplainJobResponse, error) {
	return c.explain(ctx, &hodeiv1.ExplainJobRequest{Subject: &hodeiv1.ExplainJobRequest_Id{Id: id}})
}

// ExplainSpec says why a job would wait if it were submitted now. Nothing is submitted.
func (c *Client) ExplainSpec(ctx context.Context, spec *hodeiv1.JobSpec) (*hodeiv1.ExplainJobResponse, error) {
	return c.explain(ctx, &hodeiv1.ExplainJobRequest{Subject: &hodeiv1.ExplainJobRequest_Spec{Spec: c.inNamespace(spec)}})
}

func (c *Client) explain(ctx context.Context, request *hodeiv1.ExplainJobRequest) (*hodeiv1.ExplainJobResponse, error) {
	var res *hodeiv1.ExplainJobResponse
	err := c.retry(ctx, func() (err error) {
		res, err = c.Raw.Jobs.ExplainJob(ctx, request)
		return err
	})
	return res, err
}

// Queues returns the queues of a namespace (empty: the client's, or "default"; "*": all) that were set, or that have jobs, in the
// order of their names.
func (c *Client) Queues(ctx context.Context, namespace string) ([]*hodeiv1.Queue, error) {
	var queues []*hodeiv1.Queue
	request := &hodeiv1.ListQueuesRequest{Namespace: cmp.Or(namespace, c.config.Namespace), PageSize: 1000}
	for {
		var res *hodeiv1.ListQueuesResponse
		err := c.retry(ctx, func() (err error) {
			res, err = c.Raw.Queues.ListQueues(ctx, request)
			return err
		})
		if err != nil {
			return nil, err
		}
		queues = append(queues, res.GetQueues()...)
		if request.PageToken = res.GetNextPageToken(); request.GetPageToken() == "" {
			return queues, nil
		}
	}
}

// Queue returns a queue of a namespace (empty: the client's, or "default"). One that nobody has set has the default settings.
func (c *Client) Queue(ctx context.Context, namespace, name string) (*hodeiv1.Queue, error) {
	request := &hodeiv1.GetQueueRequest{Namespace: cmp.Or(namespace, c.config.Namespace), Name: name}
	var queue *hodeiv1.Queue
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Queues.GetQueue(ctx, request)
		queue = res.GetQueue()
		return err
	})
	return queue, err
}

// SetQueue gives a queue all of its settings, and returns it as it stands then. To change one of them, change what Queue returns: a
// field that is not set means its default.
func (c *Client) SetQueue(ctx context.Context, queue *hodeiv1.Queue) (*hodeiv1.Queue, error) {
	if queue.GetNamespace() == "" && c.config.Namespace != "" {
		queue.Namespace = c.config.Namespace
	}
	var result *hodeiv1.Queue
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Queues.SetQueue(ctx, &hodeiv1.SetQueueRequest{Queue: queue})
		result = res.GetQueue()
		return err
	})
	return result, err
}

// PauseQueue lets no job of a queue of a namespace (empty: the client's, or "default") start, or with paused false lets them start
// again. Jobs that run go on.
func (c *Client) PauseQueue(ctx context.Context, namespace, name string, paused bool) (*hodeiv1.Queue, error) {
	namespace = cmp.Or(namespace, c.config.Namespace)
	var queue *hodeiv1.Queue
	err := c.retry(ctx, func() error {
		if !paused {
			res, err := c.Raw.Queues.ResumeQueue(ctx, &hodeiv1.ResumeQueueRequest{Namespace: namespace, Name: name})
			queue = res.GetQueue()
			return err
		}
		res, err := c.Raw.Queues.PauseQueue(ctx, &hodeiv1.PauseQueueRequest{Namespace: namespace, Name: name})
		queue = res.GetQueue()
		return err
	})
	return queue, err
}

// DeleteQueue gives a queue of a namespace (empty: the client's, or "default") the default settings back; its jobs stay. ErrNotFound
// when nobody has set it, ErrFailedPrecondition while it is the parent of others. It is not repeated when it fails: it may have been done.
func (c *Client) DeleteQueue(ctx context.Context, namespace, name string) error {
	_, err := c.Raw.Queues.DeleteQueue(ctx, &hodeiv1.DeleteQueueRequest{Namespace: cmp.Or(namespace, c.config.Namespace), Name: name})
	return c.translate(err)
}

// Namespaces returns the namespaces that were set, or that have jobs, in the order of their names.
func (c *Client) Namespaces(ctx context.Context) ([]*hodeiv1.Namespace, error) {
	var namespaces []*hodeiv1.Namespace
	request := &hodeiv1.ListNamespacesRequest{PageSize: 1000}
	for {
		var res *hodeiv1.ListNamespacesResponse
		err := c.retry(ctx, func() (err error) {
			res, err = c.Raw.Queues.ListNamespaces(ctx, request)
			return err
		})
		if err != nil {
			return nil, err
		}
		namespaces = append(namespaces, res.GetNamespaces()...)
		if request.PageToken = res.GetNextPageToken(); request.GetPageToken() == "" {
			return namespaces, nil
		}
	}
}

// SetNamespace gives a namespace all of its settings, and returns it as it stands then. A field that is not set means its default.
func (c *Client) SetNamespace(ctx context.Context, namespace *hodeiv1.Namespace) (*hodeiv1.Namespace, error) {
	var result *hodeiv1.Namespace
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Queues.SetNamespace(ctx, &hodeiv1.SetNamespaceRequest{Namespace: namespace})
		result = res.GetNamespace()
		return err
	})
	return result, err
}

// DeleteNamespace gives a namespace the default settings back; its queues and jobs stay. ErrNotFound when nobody has set it. It is not
// repeated when it fails: it may have been done.
func (c *Client) DeleteNamespace(ctx context.Context, name string) error {
	_, err := c.Raw.Queues.DeleteNamespace(ctx, &hodeiv1.DeleteNamespaceRequest{Name: name})
	return c.translate(err)
}
