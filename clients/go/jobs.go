package hodei

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// newRequestID makes a mutation safe to repeat.
func newRequestID() string { return strings.ToLower(ulid.Make().String()) }

// Submit submits one job and returns it as the server accepted it; it is durable then.
func (c *Client) Submit(ctx context.Context, spec *hodeiv1.JobSpec) (*hodeiv1.Job, error) {
	request := &hodeiv1.SubmitJobRequest{Spec: c.inNamespace(spec), RequestId: newRequestID()}
	var job *hodeiv1.Job
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Jobs.SubmitJob(ctx, request)
		job = res.GetJob()
		return err
	})
	return job, err
}

// SubmitBatch submits up to 10,000 jobs in one call; each has a result of its own, in the same order.
func (c *Client) SubmitBatch(ctx context.Context, specs []*hodeiv1.JobSpec) ([]*hodeiv1.SubmitJobResult, error) {
	request := &hodeiv1.SubmitJobsRequest{RequestId: newRequestID(), Requests: make([]*hodeiv1.SubmitJobRequest, len(specs))}
	for i, spec := range specs {
		request.Requests[i] = &hodeiv1.SubmitJobRequest{Spec: c.inNamespace(spec)}
	}
	var results []*hodeiv1.SubmitJobResult
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Jobs.SubmitJobs(ctx, request)
		results = res.GetResults()
		return err
	})
	return results, err
}

func (c *Client) inNamespace(spec *hodeiv1.JobSpec) *hodeiv1.JobSpec {
	if spec.GetNamespace() == "" && c.config.Namespace != "" {
		spec.Namespace = c.config.Namespace
	}
	return spec
}

// Get returns a job; ErrNotFound when there is none.
func (c *Client) Get(ctx context.Context, id string) (*hodeiv1.Job, error) {
	var job *hodeiv1.Job
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Jobs.GetJob(ctx, &hodeiv1.GetJobRequest{Id: id})
		job = res.GetJob()
		return err
	})
	return job, err
}

// List yields the jobs that match, the newest first, reading page after page. It ends with the first error.
func (c *Client) List(ctx context.Context, filter *hodeiv1.JobFilter, pageSize int32) iter.Seq2[*hodeiv1.Job, error] {
	if filter.GetNamespace() == "" && c.config.Namespace != "" {
		filter.Namespace = c.config.Namespace
	}
	return func(yield func(*hodeiv1.Job, error) bool) {
		request := &hodeiv1.ListJobsRequest{Filter: filter, PageSize: pageSize}
		for {
			var res *hodeiv1.ListJobsResponse
			err := c.retry(ctx, func() (err error) {
				res, err = c.Raw.Jobs.ListJobs(ctx, request)
				return err
			})
			if err != nil {
				yield(nil, err)
				return
			}
			for _, job := range res.GetJobs() {
				if !yield(job, nil) {
					return
				}
			}
			if request.PageToken = res.GetNextPageToken(); request.GetPageToken() == "" {
				return
			}
		}
	}
}

// CancelOptions say what of a job is to end, and how.
type CancelOptions struct {
	Step   string // only this step; the job goes on with the next
	Force  bool   // SIGKILL at once
	Reason string
}

// Cancel asks for the end of a job and returns it as it stands then. ErrFailedPrecondition when it has ended already.
func (c *Client) Cancel(ctx context.Context, id string, options CancelOptions) (*hodeiv1.Job, error) {
	request := &hodeiv1.CancelJobRequest{
		Id: id, Step: options.Step, Force: options.Force, Reason: options.Reason, RequestId: newRequestID(),
	}
	var job *hodeiv1.Job
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Jobs.CancelJob(ctx, request)
		job = res.GetJob()
		return err
	})
	return job, err
}

// Release lets a job start again that is held because it may be why workers were lost. ErrFailedPrecondition when it is not held. It is
// not repeated when it fails: it may have been done.
func (c *Client) Release(ctx context.Context, id string) (*hodeiv1.Job, error) {
	res, err := c.Raw.Jobs.ReleaseJob(ctx, &hodeiv1.ReleaseJobRequest{Id: id})
	return res.GetJob(), c.translate(err)
}

// Terminal reports whether a job in this state has ended.
func Terminal(state hodeiv1.JobState) bool { return state >= hodeiv1.JobState_JOB_STATE_SUCCEEDED }

// Watch yields jobs that match as they stand, then every change, until the context ends or the caller stops. It goes on
// through restarts of the server; a job may be yielded more than once for one change.
func (c *Client) Watch(ctx context.Context, filter *hodeiv1.JobFilter) iter.Seq2[*hodeiv1.Job, error] {
	return func(yield func(*hodeiv1.Job, error) bool) {
		token, wait := "", shortestWait
		for try := 0; ; try++ {
			stopped, err := c.watchOnce(ctx, filter, &token, func(jobs []*hodeiv1.Job) bool {
				try, wait = 1, shortestWait
				return !slices.ContainsFunc(jobs, func(j *hodeiv1.Job) bool { return !yield(j, nil) })
			})
			switch {
			case stopped:
				return
			case ctx.Err() != nil:
				yield(nil, ctx.Err())
				return
			case connect.CodeOf(err) == connect.CodeOutOfRange && token != "":
				token = "" // too long ago: start over, everything is sent again
				continue
			case c.hopeless(err, try):
				yield(nil, c.translate(err))
				return
			}
			if err := pause(ctx, wait); err != nil {
				yield(nil, err)
				return
			}
			wait = min(2*wait, longestWait)
		}
	}
}

// watchOnce watches until the stream ends or yield wants no more. A message may have no jobs, when nothing has changed for a while.
func (c *Client) watchOnce(ctx context.Context, filter *hodeiv1.JobFilter, token *string, yield func([]*hodeiv1.Job) bool) (bool, error) {
	stream, err := c.Raw.Jobs.WatchJobs(ctx, &hodeiv1.WatchJobsRequest{Filter: filter, ResumeToken: *token})
	if err != nil {
		return false, err
	}
	defer stream.Close() //nolint:errcheck // the watch is over, whatever it says
	for {
		res, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return false, errCut
		}
		if err != nil {
			return false, err
		}
		if !yield(res.GetJobs()) {
			return true, nil
		}
		*token = res.GetResumeToken()
	}
}

// Workers returns all workers, by name.
func (c *Client) Workers(ctx context.Context) ([]*hodeiv1.Worker, error) {
	var workers []*hodeiv1.Worker
	request := &hodeiv1.ListWorkersRequest{PageSize: 1000}
	for {
		var res *hodeiv1.ListWorkersResponse
		err := c.retry(ctx, func() (err error) {
			res, err = c.Raw.Workers.ListWorkers(ctx, request)
			return err
		})
		if err != nil {
			return nil, err
		}
		workers = append(workers, res.GetWorkers()...)
		if request.PageToken = res.GetNextPageToken(); request.GetPageToken() == "" {
			return workers, nil
		}
	}
}

// Worker returns a worker by its id or name; ErrNotFound when there is none.
func (c *Client) Worker(ctx context.Context, id string) (*hodeiv1.Worker, error) {
	var worker *hodeiv1.Worker
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Workers.GetWorker(ctx, &hodeiv1.GetWorkerRequest{Id: id})
		worker = res.GetWorker()
		return err
	})
	return worker, err
}

// Drain stops giving jobs to a worker, or starts again with resume.
func (c *Client) Drain(ctx context.Context, id string, resume bool) (*hodeiv1.Worker, error) {
	var worker *hodeiv1.Worker
	err := c.retry(ctx, func() error {
		res, err := c.Raw.Workers.DrainWorker(ctx, &hodeiv1.DrainWorkerRequest{Id: id, Resume: resume, RequestId: newRequestID()})
		worker = res.GetWorker()
		return err
	})
	return worker, err
}

// CreateToken makes a token with which agents enrol that get jobs of these queues alone ("namespace/queue" or "namespace/*"; none: all).
// It is not repeated when it fails: the secret may have been made.
func (c *Client) CreateToken(
	ctx context.Context, ttl time.Duration, maxUses int32, labels map[string]string, queues ...string,
) (*adminv1.CreateTokenResponse, error) {
	request := &adminv1.CreateTokenRequest{MaxUses: maxUses, Labels: labels, Queues: queues}
	if ttl > 0 {
		request.Ttl = durationpb.New(ttl)
	}
	res, err := c.Raw.Tokens.CreateToken(ctx, request)
	return res, c.translate(err)
}
