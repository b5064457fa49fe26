package hodei

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// tailLines is how much of a job's output an error shows.
const tailLines = 20

// JobError says that a job has ended otherwise than with success. errors.Is tells how: ErrJobFailed, ErrJobCanceled, ErrJobTimeout.
type JobError struct {
	Job     *hodeiv1.Job
	LogTail []string // the last lines of its output, of both streams, 20 at most
	URL     string   // where the dashboard shows it
}

// Errors to compare with by errors.Is, of jobs that have ended, and of a wait whose context has a deadline.
var (
	ErrJobFailed   = errors.New("the job failed")
	ErrJobCanceled = errors.New("the job was canceled")
	ErrJobTimeout  = errors.New("the job ran out of time")
	ErrWaitTimeout = errors.New("the job has not ended in time")
)

// Error says how the job has ended and shows the end of its output.
func (e *JobError) Error() string {
	var text strings.Builder
	fmt.Fprintf(&text, "job %s %s", e.Job.GetId(), stateText(e.Job))
	if message := e.Job.GetCause().GetMessage(); message != "" {
		text.WriteString(": " + message)
	}
	if len(e.LogTail) > 0 {
		text.WriteString("; its output ends with:\n  " + strings.Join(e.LogTail, "\n  "))
	}
	return text.String()
}

// stateText is a job's state for people: "timed out".
func stateText(job *hodeiv1.Job) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(job.GetState().String(), "JOB_STATE_"), "_", " "))
}

// ExitCode is the exit code of the step that has ended the job, as a shell has it: 128 and the signal's number after a signal.
func (e *JobError) ExitCode() int { return int(e.Job.GetCause().GetExitCode()) }

// Signal is the signal that has ended it, for example "SIGKILL"; empty: none.
func (e *JobError) Signal() string { return e.Job.GetCause().GetSignal() }

// Is makes errors.Is(err, ErrJobFailed) and the like work.
func (e *JobError) Is(target error) bool {
	switch e.Job.GetState() {
	case hodeiv1.JobState_JOB_STATE_CANCELED:
		return target == ErrJobCanceled
	case hodeiv1.JobState_JOB_STATE_TIMED_OUT:
		return target == ErrJobTimeout
	default:
		return target == ErrJobFailed
	}
}

// waitError says how a job stood when the time for waiting was over.
type waitError struct {
	job   *hodeiv1.Job // nil: not known
	id    string
	cause error
}

// Error says how the job stands, and why it waits if it does.
func (e *waitError) Error() string {
	if e.job == nil {
		return fmt.Sprintf("nothing was heard of job %s in the time for waiting", e.id)
	}
	text := fmt.Sprintf("job %s has not ended in the time for waiting; it is %s", e.id, stateText(e.job))
	if reason := e.job.GetPendingReason(); reason != "" {
		text += ": " + reason
	}
	return text
}

// Is makes errors.Is(err, ErrWaitTimeout) work.
func (e *waitError) Is(target error) bool { return target == ErrWaitTimeout }

// Unwrap returns the context's error.
func (e *waitError) Unwrap() error { return e.cause }

// Run submits a job and returns it when it has ended; a *JobError when it did not succeed.
func (c *Client) Run(ctx context.Context, spec *hodeiv1.JobSpec) (*hodeiv1.Job, error) {
	job, err := c.Submit(ctx, spec)
	if err != nil {
		return nil, err
	}
	return c.Wait(ctx, job.GetId())
}

// Wait returns a job when it has ended; a *JobError beside it when it did not succeed, and ErrWaitTimeout when the deadline of the context
// comes first. The job goes on when the caller waits no more. Ended is for those who want to know the end alone.
func (c *Client) Wait(ctx context.Context, id string) (*hodeiv1.Job, error) {
	job, err := c.Ended(ctx, id)
	if err != nil {
		return job, err
	}
	return job, c.outcome(ctx, job)
}

// outcome is the error of a job that has ended.
func (c *Client) outcome(ctx context.Context, job *hodeiv1.Job) error {
	if job.GetState() == hodeiv1.JobState_JOB_STATE_SUCCEEDED {
		return nil
	}
	failed := &JobError{Job: job, URL: c.config.URL + "/jobs/" + job.GetId()}
	for line, err := range c.Logs(ctx, job.GetId(), LogOptions{Tail: tailLines}) {
		if err != nil {
			break // how the job has ended is what counts
		}
		failed.LogTail = append(failed.LogTail, line.Text())
	}
	failed.LogTail = failed.LogTail[max(0, len(failed.LogTail)-tailLines):]
	return failed
}

// Ended returns a job when it has ended, in whatever way; ErrWaitTimeout when the deadline of the context comes first.
func (c *Client) Ended(ctx context.Context, id string) (*hodeiv1.Job, error) {
	job, err := c.Get(ctx, id)
	if err == nil && !Terminal(job.GetState()) {
		job, err = c.watchToEnd(ctx, job)
	}
	if err != nil && (errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded)) {
		return job, &waitError{job: job, id: id, cause: err}
	}
	return job, err
}

// watchToEnd returns the job as it was seen last.
func (c *Client) watchToEnd(ctx context.Context, last *hodeiv1.Job) (*hodeiv1.Job, error) {
	for job, err := range c.Watch(ctx, &hodeiv1.JobFilter{Namespace: "*", Ids: []string{last.GetId()}}) {
		if err != nil {
			return last, err
		}
		if last = job; Terminal(job.GetState()) {
			return job, nil
		}
	}
	return last, ctx.Err()
}

// Line is a line of a job's output.
type Line struct {
	Chunk *hodeiv1.LogChunk // where its end was: the attempt, the step, the stream and the time
	Data  []byte            // without its end
}

// Text is the line as text; each byte that is not UTF-8 is replaced by U+FFFD.
func (l Line) Text() string { return string([]rune(string(l.Data))) }

// source is what lines are put together of.
type source struct {
	attempt int32
	step    string
	stream  hodeiv1.LogStream
}

// lineCutter puts the pieces of each stream together to lines.
type lineCutter struct {
	rest  map[source]*unended
	order []source // of rest, in which they began
}

type unended struct {
	chunk *hodeiv1.LogChunk
	data  []byte
}

// cut yields the lines that end in a chunk, and keeps what comes after the last of them. It reports whether more are wanted.
func (l *lineCutter) cut(chunk *hodeiv1.LogChunk, yield func(Line, error) bool) bool {
	from := source{chunk.GetAttempt(), chunk.GetStep(), chunk.GetStream()}
	data := chunk.GetData()
	for {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			break
		}
		line := data[:end:end]
		data = data[end+1:]
		if begun := l.rest[from]; begun != nil && len(begun.data) > 0 {
			line = append(begun.data, line...)
			begun.data = nil
		}
		if !yield(Line{chunk, line}, nil) {
			return false
		}
	}
	if len(data) > 0 {
		begun := l.rest[from]
		if begun == nil {
			begun = new(unended)
			l.rest[from] = begun
			l.order = append(l.order, from)
		}
		begun.chunk, begun.data = chunk, append(begun.data, data...)
	}
	return true
}

// end yields what had no end.
func (l *lineCutter) end(yield func(Line, error) bool) {
	for _, from := range l.order {
		if begun := l.rest[from]; len(begun.data) > 0 && !yield(Line{begun.chunk, begun.data}, nil) {
			return
		}
	}
}
