package hodei

import (
	"context"
	"iter"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

const (
	// batchJobs and batchBytes bound one call of SubmitMany. The server takes 4 MiB, and a job's id and state come with it.
	batchJobs  = 10_000
	batchBytes = 2 << 20
	// watchedJobs is how many ids one watch may name, and watches how many run at the same time.
	watchedJobs = 1000
	watches     = 8
)

// SubmitMany submits any number of jobs, in as many calls as that takes. Each has a result of its own, in the same order; those of a call
// that has failed, and of the calls after it, are missing.
func (c *Client) SubmitMany(ctx context.Context, specs []*hodeiv1.JobSpec) ([]*hodeiv1.SubmitJobResult, error) {
	results := make([]*hodeiv1.SubmitJobResult, 0, len(specs))
	for len(specs) > 0 {
		n, size := 0, 0
		for n < min(len(specs), batchJobs) && (n == 0 || size+proto.Size(specs[n]) < batchBytes) {
			size += proto.Size(specs[n])
			n++
		}
		batch, err := c.SubmitBatch(ctx, specs[:n])
		if err != nil {
			return results, err
		}
		results, specs = append(results, batch...), specs[n:]
	}
	return results, nil
}

// Map submits jobs and yields them in the order of the specs, each when it has ended, with the error that Wait would return for it. A job
// that is refused is nil with the reason. An error that has to do with no single job comes last.
func (c *Client) Map(ctx context.Context, specs []*hodeiv1.JobSpec) iter.Seq2[*hodeiv1.Job, error] {
	return func(yield func(*hodeiv1.Job, error) bool) {
		results, err := c.SubmitMany(ctx, specs)
		ctx, stop := context.WithCancel(ctx)
		group, waiting := errgroup.WithContext(ctx)
		defer func() {
			stop()
			_ = group.Wait() // it was told to stop
		}()
		group.SetLimit(watches + 1)
		ended := make(chan *hodeiv1.Job, watchedJobs)
		group.Go(func() error { c.watchAll(waiting, group, results, ended); return nil })
		known := make(map[string]*hodeiv1.Job)
		for _, r := range results {
			if problem := r.GetProblem(); problem != nil {
				if !yield(nil, refusal(problem)) {
					return
				}
				continue
			}
			for known[r.GetJobId()] == nil {
				select {
				case job := <-ended:
					known[job.GetId()] = job
				case <-waiting.Done():
					yield(nil, context.Cause(waiting))
					return
				}
			}
			job := known[r.GetJobId()]
			delete(known, r.GetJobId())
			if !yield(job, c.outcome(ctx, job)) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// watchAll sends every job that was accepted when it has ended.
func (c *Client) watchAll(ctx context.Context, group *errgroup.Group, results []*hodeiv1.SubmitJobResult, ended chan<- *hodeiv1.Job) {
	var ids []string
	for i, r := range results {
		if r.GetJobId() != "" {
			ids = append(ids, r.GetJobId())
		}
		if len(ids) == watchedJobs || (i == len(results)-1 && len(ids) > 0) {
			part := ids
			ids = nil
			group.Go(func() error { return c.watchPart(ctx, part, ended) })
		}
	}
}

func terminalStates() (states []hodeiv1.JobState) {
	for number := range hodeiv1.JobState_name {
		if state := hodeiv1.JobState(number); Terminal(state) {
			states = append(states, state)
		}
	}
	return states
}

func (c *Client) watchPart(ctx context.Context, ids []string, ended chan<- *hodeiv1.Job) error {
	left := make(map[string]bool, len(ids))
	for _, id := range ids {
		left[id] = true
	}
	for job, err := range c.Watch(ctx, &hodeiv1.JobFilter{Namespace: "*", Ids: ids, States: terminalStates()}) {
		if err != nil {
			return err
		}
		if !left[job.GetId()] {
			continue // it was told before the connection broke
		}
		delete(left, job.GetId())
		select {
		case ended <- job:
		case <-ctx.Done():
			return ctx.Err()
		}
		if len(left) == 0 {
			break
		}
	}
	return nil
}

// refusal is the error of one job of a batch.
func refusal(p *hodeiv1.Problem) error {
	e := &Error{Code: connect.CodeUnknown, Message: p.GetMessage()}
	_ = e.Code.UnmarshalText([]byte(p.GetCode())) // a code that this client does not know is unknown
	return e
}
