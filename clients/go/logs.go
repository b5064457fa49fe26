package hodei

import (
	"context"
	"errors"
	"io"
	"iter"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// LogOptions say which part of a job's output is wanted.
type LogOptions struct {
	Attempt int32  // where to begin; 0: the last attempt
	Offset  string // position in bytes; empty: the start
	Follow  bool   // stay until the job has ended and its log is complete
	Step    string
	Stream  hodeiv1.LogStream

	// At most one of these, without an Offset, says where to begin in the attempt.
	Tail  int32     // so many lines before the present end; 0: not asked for
	Line  int64     // this line, counted from 1; 0: not asked for
	Since time.Time // what was written then, on the worker's clock, or later; zero: not asked for

	Until time.Time // end before what was written then or later; zero: not asked for
}

func (o *LogOptions) request(id string) *hodeiv1.TailLogsRequest {
	r := &hodeiv1.TailLogsRequest{
		JobId: id, Follow: o.Follow, Step: o.Step, Stream: o.Stream,
		Cursor: &hodeiv1.LogCursor{Attempt: o.Attempt, Offset: o.Offset},
	}
	switch {
	case o.Tail > 0:
		r.Begin = &hodeiv1.TailLogsRequest_TailLines{TailLines: o.Tail}
	case o.Line > 0:
		r.Begin = &hodeiv1.TailLogsRequest_Line{Line: strconv.FormatInt(o.Line, 10)}
	case !o.Since.IsZero():
		r.Begin = &hodeiv1.TailLogsRequest_Since{Since: timestamppb.New(o.Since)}
	}
	if !o.Until.IsZero() {
		r.Until = timestamppb.New(o.Until)
	}
	return r
}

// Logs yields the lines of a job's output, from the first on, each once. It goes on through restarts of the server and broken
// connections, and ends with the first error. Lines are put together for each stream of each step; what has no end yet is a line when
// the log is over. ReadLogs gives the bytes as they were written.
func (c *Client) Logs(ctx context.Context, id string, options LogOptions) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		cutter := lineCutter{rest: make(map[source]*unended)}
		_, err := c.ReadLogs(ctx, id, options, func(chunk *hodeiv1.LogChunk) error {
			if !cutter.cut(chunk, yield) {
				return errEnough
			}
			return nil
		})
		switch {
		case errors.Is(err, errEnough):
		case err != nil:
			yield(Line{}, err)
		default:
			cutter.end(yield)
		}
	}
}

// errEnough says that the caller wants no more.
var errEnough = errors.New("no more is wanted")

// ReadLogs calls chunk for every piece of a job's output, in order, each byte once, and returns how complete the log is. It goes
// on through restarts of the server and broken connections. It ends early with chunk's error. Where all of an attempt's log is read, its
// bytes are compared with the hash of those that were written; the error is ErrDamagedLog when they are others.
func (c *Client) ReadLogs(
	ctx context.Context, id string, options LogOptions, chunk func(*hodeiv1.LogChunk) error,
) (*hodeiv1.LogCompleteness, error) {
	t := &tail{client: c, chunk: chunk, request: options.request(id)}
	if options.whole() {
		t.proof = new(proof)
	}
	var completeness *hodeiv1.LogCompleteness
	err := c.resume(ctx, func() (received bool, err error) {
		t.received = false
		if completeness, err = t.once(ctx); t.failed != nil {
			err = nil
		}
		return t.received, err
	})
	if err != nil {
		return nil, err
	}
	return completeness, t.failed
}

type tail struct {
	client   *Client
	request  *hodeiv1.TailLogsRequest // its cursor moves on with what was taken
	chunk    func(*hodeiv1.LogChunk) error
	failed   error // of chunk
	received bool
	proof    *proof // nil: not all of the log is read
}

func (t *tail) once(ctx context.Context) (*hodeiv1.LogCompleteness, error) {
	stream, err := t.client.Raw.Logs.TailLogs(ctx, t.request)
	if err != nil {
		return nil, err
	}
	defer stream.Close() //nolint:errcheck // what counts has arrived
	for {
		res, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil, errCut
		}
		if err != nil {
			return nil, err
		}
		t.received = true
		for _, c := range res.GetChunks() {
			if t.proof != nil {
				t.proof.add(c)
			}
			if t.failed = t.chunk(c); t.failed != nil {
				return nil, t.failed
			}
		}
		t.request.Cursor, t.request.Begin = res.GetCursor(), nil // goes on from there
		if completeness := res.GetCompleteness(); completeness.GetState() != hodeiv1.LogState_LOG_STATE_UNSPECIFIED {
			if t.proof != nil {
				t.failed = t.proof.check(t.request.GetJobId(), completeness)
			}
			return completeness, t.failed
		}
	}
}

// SearchLogs finds lines in the log of one attempt, on the server.
func (c *Client) SearchLogs(ctx context.Context, request *hodeiv1.SearchLogsRequest) (*hodeiv1.SearchLogsResponse, error) {
	var res *hodeiv1.SearchLogsResponse
	err := c.retry(ctx, func() (err error) {
		res, err = c.Raw.Logs.SearchLogs(ctx, request)
		return err
	})
	return res, err
}

// LogGroups lists the groups that a job has marked in its output; attempt 0 is the last one.
func (c *Client) LogGroups(ctx context.Context, id string, attempt int32) (*hodeiv1.ListLogGroupsResponse, error) {
	var res *hodeiv1.ListLogGroupsResponse
	err := c.retry(ctx, func() (err error) {
		res, err = c.Raw.Logs.ListLogGroups(ctx, &hodeiv1.ListLogGroupsRequest{JobId: id, Attempt: attempt})
		return err
	})
	return res, err
}
