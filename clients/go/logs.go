package hodei

import (
	"context"
	"errors"
	"io"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
)

// LogOptions say which part of a job's output is wanted.
type LogOptions struct {
	Attempt int32  // where to begin; 0: the last attempt
	Offset  string // position in bytes; empty: the start
	Follow  bool   // stay until the job has ended and its log is complete
	Step    string
	Stream  hodeiv1.LogStream
}

// Logs calls chunk for every piece of a job's output, in order, each byte once, and returns how complete the log is. It goes
// on through restarts of the server and broken connections. It ends early with chunk's error.
func (c *Client) Logs(
	ctx context.Context, id string, options LogOptions, chunk func(*hodeiv1.LogChunk) error,
) (*hodeiv1.LogCompleteness, error) {
	t := &tail{client: c, chunk: chunk, request: &hodeiv1.TailLogsRequest{
		JobId: id, Follow: options.Follow, Step: options.Step, Stream: options.Stream,
		Cursor: &hodeiv1.LogCursor{Attempt: options.Attempt, Offset: options.Offset},
	}}
	wait := shortestWait
	for try := 0; ; try++ {
		t.received = false
		completeness, err := t.once(ctx)
		if err == nil || t.failed != nil {
			return completeness, t.failed
		}
		if t.received {
			try, wait = 1, shortestWait
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if c.hopeless(err, try) {
			return nil, c.translate(err)
		}
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
		wait = min(2*wait, longestWait)
	}
}

type tail struct {
	client   *Client
	request  *hodeiv1.TailLogsRequest // its cursor moves on with what was taken
	chunk    func(*hodeiv1.LogChunk) error
	failed   error // of chunk
	received bool
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
			if t.failed = t.chunk(c); t.failed != nil {
				return nil, t.failed
			}
		}
		t.request.Cursor = res.GetCursor()
		if res.GetCompleteness().GetState() != hodeiv1.LogState_LOG_STATE_UNSPECIFIED {
			return res.GetCompleteness(), nil
		}
	}
}
