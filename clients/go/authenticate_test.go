package hodei

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	adminv1 "github.com/hodei-jobs/hodei/gen/hodei/admin/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/admin/v1/adminv1connect"
	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
)

// refuse makes an access token useless.
func (s *fakeServer) refuse(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[token] = true
}

func TestTokenIsExchangedOnceAndSentWithEveryCall(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	for name, config := range map[string]Config{
		"token": {Token: "good"}, "file": {TokenFile: writeFile(t, filepath.Join(t.TempDir(), "token"), "good\n")},
	} {
		before := s.count(&s.exchanges)
		c := s.client(t, config)
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				if _, err := c.Get(t.Context(), "job_1"); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		calls.Wait()
		if n := s.count(&s.exchanges) - before; n != 1 {
			t.Errorf("%s: 100 calls made %d exchanges", name, n)
		}
	}
	if got := s.client(t, Config{}); got.token != nil {
		t.Error("without a token there is one")
	}
}

func TestRefusedTokenIsReplacedOnceForAllCalls(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	c := s.client(t, Config{Token: "good"})
	if _, err := c.Get(t.Context(), "job_1"); err != nil {
		t.Fatal(err)
	}
	s.refuse("access-1")
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if _, err := c.Raw.Jobs.GetJob(t.Context(), &hodeiv1.GetJobRequest{Id: "job_1"}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if n := s.count(&s.exchanges); n != 2 {
		t.Errorf("%d exchanges", n)
	}
}

func TestCallThatStaysRefusedFails(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	s.refuseAll = true
	c := s.client(t, Config{Token: "good"})
	if _, err := c.Get(t.Context(), "job_1"); !errors.Is(err, ErrUnauthenticated) || s.count(&s.exchanges) != 2 {
		t.Errorf("got %v after %d exchanges", err, s.exchanges)
	}
	if err := c.ExportAudit(t.Context(), 0, io.Discard); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a stream gave %v", err)
	}
	bad := s.client(t, Config{Token: "bad"})
	if _, err := bad.Get(t.Context(), "job_1"); !errors.Is(err, ErrUnauthenticated) || err.Error() != "there is no such token" {
		t.Errorf("a bad token gave %v", err)
	}
}

func TestAccessTokenIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t)
	c := s.client(t, Config{Token: " eyJ.x.y\n"})
	if _, err := c.Get(t.Context(), "job_1"); err != nil {
		t.Error(err)
	}
	s.refuse("eyJ.x.y")
	if _, err := c.Get(t.Context(), "job_1"); !errors.Is(err, ErrUnauthenticated) || s.count(&s.exchanges) != 0 {
		t.Errorf("got %v after %d exchanges", err, s.exchanges)
	}
	// In a file somebody else may put a fresh one.
	path := writeFile(t, filepath.Join(t.TempDir(), "token"), "eyJ.x.y")
	c = s.client(t, Config{TokenFile: path})
	if _, err := c.Get(t.Context(), "job_1"); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("a token that ran out gave %v", err)
	}
	writeFile(t, path, "eyJ.x.z")
	if _, err := c.Get(t.Context(), "job_1"); err != nil {
		t.Errorf("a fresh token in the file gave %v", err)
	}
}

// cutStream says something twice, first until the token is refused in the middle.
func (s *fakeServer) cutStream(ctx context.Context, say func(watch int) error) error {
	info, _ := connect.CallInfoForServerContext(ctx)
	s.mu.Lock()
	s.watches++
	n := s.watches
	s.refused[strings.TrimPrefix(info.RequestHeader().Get("Authorization"), "Bearer ")] = true
	s.mu.Unlock()
	if err := say(n); err != nil {
		return err
	}
	if n < 3 {
		return connect.NewError(connect.CodeUnauthenticated, "the token has run out")
	}
	return nil
}

// WatchJobs has nothing to say at first, then a job that has ended.
func (s *fakeServer) WatchJobs(ctx context.Context, _ *hodeiv1.WatchJobsRequest, stream hodeiv1connect.JobServiceWatchJobsServerStream) error {
	return s.cutStream(ctx, func(watch int) error {
		res := &hodeiv1.WatchJobsResponse{ResumeToken: fmt.Sprint(watch)}
		if watch == 3 {
			res.Jobs = []*hodeiv1.Job{{Id: "job_1", State: hodeiv1.JobState_JOB_STATE_SUCCEEDED}}
		}
		return stream.Send(res)
	})
}

// TailLogs sends a byte of the log each time.
func (s *fakeServer) TailLogs(ctx context.Context, req *hodeiv1.TailLogsRequest, stream hodeiv1connect.LogServiceTailLogsServerStream) error {
	return s.cutStream(ctx, func(watch int) error {
		res := &hodeiv1.TailLogsResponse{
			Chunks: []*hodeiv1.LogChunk{{Data: []byte(req.GetCursor().GetOffset() + ".")}}, Cursor: &hodeiv1.LogCursor{Offset: fmt.Sprint(watch)},
		}
		if watch == 3 {
			res.Completeness = &hodeiv1.LogCompleteness{State: hodeiv1.LogState_LOG_STATE_COMPLETE}
		}
		return stream.Send(res)
	})
}

// ExportAuditRecords sends a record and a checkpoint each time.
func (s *fakeServer) ExportAuditRecords(
	ctx context.Context, req *adminv1.ExportAuditRecordsRequest, stream adminv1connect.AuditServiceExportAuditRecordsServerStream,
) error {
	return s.cutStream(ctx, func(watch int) error {
		line := fmt.Sprintf("{\"seq\":%d,\"from\":%q}\n{\"checkpoint\":%d}\n", watch, req.GetFromSequence(), watch)
		return stream.Send(&adminv1.ExportAuditRecordsResponse{Lines: []byte(line)})
	})
}

// A stream that the server ends because the token has run out goes on with a fresh one, where it was.
func TestStreamsOutliveTheirTokens(t *testing.T) {
	t.Parallel()
	for name, follow := range map[string]func(*Client) (string, error){
		"watch": func(c *Client) (string, error) {
			for job, err := range c.Watch(t.Context(), &hodeiv1.JobFilter{}) {
				return job.GetId(), err
			}
			return "", nil
		},
		"logs": func(c *Client) (string, error) {
			var out bytes.Buffer
			_, err := c.ReadLogs(t.Context(), "job_1", LogOptions{Follow: true, Step: "s"}, func(chunk *hodeiv1.LogChunk) error {
				_, err := out.Write(chunk.GetData())
				return err
			})
			return out.String(), err
		},
		"export": func(c *Client) (string, error) {
			var out bytes.Buffer
			err := c.ExportAudit(t.Context(), 0, &out)
			return strings.ReplaceAll(out.String(), "\n", ""), err
		},
	} {
		want := map[string]string{
			"watch": "job_1", "logs": ".1.2.",
			"export": `{"seq":1,"from":""}{"checkpoint":1}{"seq":2,"from":"2"}{"checkpoint":2}{"seq":3,"from":"3"}{"checkpoint":3}`,
		}[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFakeServer(t)
			got, err := follow(s.client(t, Config{Token: "good"}))
			if err != nil || got != want || s.count(&s.exchanges) != 3 {
				t.Errorf("got %q, %v with %d exchanges; want %q", got, err, s.exchanges, want)
			}
		})
	}
}

func TestCloseWhileACallIsMadeAgainClosesTheNewStream(t *testing.T) {
	t.Parallel()
	first, second := new(fakeStream), new(fakeStream)
	s := &provenStream{stream: first, sent: 1, freshen: func() {}}
	s.open = func() (connect.ClientStream, string, error) {
		return second, "t2", s.Close()
	}
	if err := s.reopen(); err != nil || first.closed == 0 || second.closed != 1 || second.sent != 0 {
		t.Errorf("%v: first %+v, second %+v", err, first, second)
	}
}

type fakeStream struct {
	connect.ClientStream
	sent, closed int
}

func (f *fakeStream) Send(any) error { f.sent++; return nil }
func (f *fakeStream) Close() error   { f.closed++; return nil }
