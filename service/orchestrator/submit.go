package orchestrator

import (
	"context"
	"fmt"
	"time"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

// Submission is what a client asks for: one job, or many that are accepted in one commit. With a RequestID, repeating it
// gives the same jobs.
type Submission struct {
	Specs     []job.Spec
	RequestID string   // empty: none
	Hash      [32]byte // of the body; compared when the RequestID was used before
}

// Result is what became of one spec of a Submission.
type Result struct {
	Job job.Job // of a repeated submission, as it stands now
	Err error
}

// Submit accepts jobs; each has a result of its own, in the order of submissions and their specs. When it returns, the
// accepted ones are durable. The error is about the call as a whole: the context ended, or the server stops.
func (o *Orchestrator) Submit(ctx context.Context, submissions ...Submission) ([]Result, error) {
	c := newSubmit(submissions, o.config.Clock())
	for i := range c.results {
		if r := &c.results[i]; r.Err == nil {
			r.Err = o.checkSpec(ctx, r.Job.Spec)
		}
	}
	return c.results, o.do(ctx, c, c.waiter)
}

// newSubmit does most of the work here, by the caller, and not by the reactor.
func newSubmit(submissions []Submission, now time.Time) *submit {
	c := &submit{waiter: newWaiter(), submissions: submissions}
	total := 0
	for i := range submissions {
		total += len(submissions[i].Specs)
	}
	c.results = make([]Result, 0, total)
	for i := range submissions {
		specs := submissions[i].Specs
		c.starts = append(c.starts, len(c.results))
		for n := range specs {
			j, err := job.New(job.ID{}, specs[n], now)
			c.results = append(c.results, Result{Job: j, Err: err})
		}
	}
	return c
}

// Validate returns the job as Submit would make it, and accepts nothing.
func (o *Orchestrator) Validate(ctx context.Context, spec job.Spec) (job.Job, error) {
	j, err := job.New(job.ID{}, spec, o.config.Clock())
	if err == nil {
		err = o.checkSpec(ctx, j.Spec)
	}
	if err != nil || spec.Queue != "" {
		return j, err
	}
	return j, o.change(ctx, func(s *state) error {
		s.chooseQueue(spec.Queue, j.Spec)
		return nil
	})
}

func (o *Orchestrator) checkSpec(ctx context.Context, spec *job.Spec) error {
	if o.config.CheckSpec == nil {
		return nil
	}
	return o.config.CheckSpec(ctx, spec)
}

// submit accepts jobs.
type submit struct {
	*waiter
	submissions []Submission
	results     []Result // of all submissions; prepared before
	starts      []int    // where the results of each begin
	made        int      // how many jobs are new
}

func (c *submit) apply(s *state, _ time.Time) {
	before := s.submitted
	for i := range c.submissions {
		sub := &c.submissions[i]
		s.submit(sub, c.results[c.starts[i]:c.starts[i]+len(sub.Specs)])
	}
	c.made = s.submitted - before
}

func (s *state) submit(sub *Submission, results []Result) {
	if sub.RequestID == "" {
		s.acceptAll(sub.Specs, results)
		return
	}
	key := requestKey(sub)
	request, found, err := s.earlier(key, sub)
	switch {
	case err != nil:
		for i := range results {
			results[i] = Result{Err: err}
		}
	case found:
		s.repeat(&request, results)
	case !s.acceptAll(sub.Specs, results):
		// Not remembered: what was refused as a whole may be asked for again.
	default:
		request = store.Request{ID: key, Hash: sub.Hash, Jobs: make([]job.ID, len(results)), Expires: s.now.Add(requestLife)}
		for i := range results {
			request.Jobs[i] = results[i].Job.ID
		}
		s.newRequest[key] = request
	}
}

// acceptAll accepts what is valid, as long as there is room, and reports whether there was any.
func (s *state) acceptAll(specs []job.Spec, results []Result) bool {
	refusal, accepted := s.admit(), false
	room := s.maxUnfinished - s.unfinished()
	for i := range results {
		r := &results[i]
		if r.Err != nil {
			continue
		}
		if refusal != nil {
			r.Job, r.Err = job.Job{}, refusal
			continue
		}
		if room <= 0 {
			r.Job, r.Err = job.Job{}, &job.Error{
				Code: job.CodeExhausted, Reason: job.ReasonLimitReached, RetryAfter: time.Second,
				Message: fmt.Sprintf("the server holds %d unfinished jobs, as many as max_unfinished_jobs allows; try again when some have ended",
					s.maxUnfinished),
			}
			continue
		}
		s.chooseQueue(specs[i].Queue, r.Job.Spec)
		if text := s.sched.TooLarge(r.Job.Spec); text != "" {
			r.Job, r.Err = job.Job{}, job.Errorf(job.CodePrecondition, job.ReasonTooLarge, "%s", text)
			continue
		}
		room--
		accepted = true
		s.newest = s.newJobID(s.newest)
		r.Job.ID = s.newest
		r.Job.Created = r.Job.ID.Time()
		s.add(r.Job)
	}
	return accepted
}

func requestKey(sub *Submission) string {
	namespace := job.DefaultNamespace
	if len(sub.Specs) > 0 && sub.Specs[0].Namespace != "" {
		namespace = sub.Specs[0].Namespace
	}
	return namespace + "/" + sub.RequestID
}

// earlier looks for an earlier submission with the same request_id, in this batch and in the store.
func (s *state) earlier(key string, sub *Submission) (store.Request, bool, error) {
	request, ok := s.newRequest[key]
	if !ok {
		var err error
		request, err = s.store.Request(context.Background(), key)
		switch {
		case err == nil && request.Expires.Before(s.now), job.CodeOf(err) == job.CodeNotFound:
			return request, false, nil
		case err != nil:
			return request, false, err
		}
	}
	if request.Hash != sub.Hash || len(request.Jobs) != len(sub.Specs) {
		return request, false, job.Errorf(job.CodeInvalid, job.ReasonRequestIDReused,
			"request_id %q was used before with another body; use a new request_id for what is new", sub.RequestID)
	}
	return request, true, nil
}

// repeat gives the results of an earlier submission again.
func (s *state) repeat(request *store.Request, results []Result) {
	for i, id := range request.Jobs {
		switch {
		case results[i].Err != nil: // what was invalid is still
		case id.IsZero():
			results[i] = Result{Err: job.Errorf(job.CodeExhausted, job.ReasonLimitReached,
				"the job was refused when the request was made first; submit it with a new request_id")}
		case s.jobs[id] != nil:
			results[i] = Result{Job: s.jobs[id].job}
		default:
			j, err := s.store.Job(context.Background(), id)
			results[i] = Result{Job: j, Err: err}
		}
	}
}
