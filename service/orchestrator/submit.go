package orchestrator

import (
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// submit accepts jobs.
type submit struct {
	*waiter
	submissions []Submission
	results     []Result
}

func (c *submit) apply(s *state, now time.Time) {
	for i := range c.submissions {
		j, err := s.accept(&c.submissions[i], now)
		c.results[i] = Result{Job: j, Err: err}
	}
}

func (s *state) accept(sub *Submission, now time.Time) (job.Job, error) {
	key := ""
	if sub.RequestID != "" {
		key = requestKey(sub)
		if j, found, err := s.repeated(key, sub, now); found || err != nil {
			return j, err
		}
	}
	if len(s.jobs) >= s.maxUnfinished {
		return job.Job{}, &job.Error{
			Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: time.Second,
			Message: fmt.Sprintf("the server holds %d unfinished jobs, as many as max_unfinished_jobs allows; try again when some have ended",
				s.maxUnfinished),
		}
	}
	j, err := job.New(s.newJobID(), sub.Spec, now)
	if err != nil {
		return job.Job{}, err
	}
	s.add(j)
	if key != "" {
		s.newRequest[key] = store.Request{ID: key, Hash: sub.Hash, Job: j.ID, Expires: now.Add(requestLife)}
	}
	return j, nil
}

func requestKey(sub *Submission) string {
	namespace := sub.Spec.Namespace
	if namespace == "" {
		namespace = job.DefaultNamespace
	}
	return namespace + "/" + sub.RequestID
}

// repeated looks for an earlier submit with the same request_id, in this batch and in the store. It returns the job as it
// was when it was accepted, as far as a client can tell: its id and spec.
func (s *state) repeated(key string, sub *Submission, now time.Time) (job.Job, bool, error) {
	request, ok := s.newRequest[key]
	if !ok {
		var err error
		request, err = s.requests(key)
		switch {
		case err == nil && request.Expires.Before(now), job.CodeOf(err) == job.CodeNotFound:
			return job.Job{}, false, nil
		case err != nil:
			return job.Job{}, false, err
		}
	}
	if request.Hash != sub.Hash {
		return job.Job{}, false, job.Errorf(job.CodeInvalid, job.ReasonRequestIDReused,
			"request_id %q was used for job %s with another spec; use a new request_id for a new job", sub.RequestID, request.Job)
	}
	if j := s.jobs[request.Job]; j != nil {
		return *j, true, nil
	}
	j, err := s.stored(request.Job)
	return j, err == nil, err
}
