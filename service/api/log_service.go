package api

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/orchestrator"
	"github.com/hodei-jobs/hodei/service/store"
)

const (
	// tailCheck is how often a reader that waits for output looks whether its job still can write some.
	tailCheck = 250 * time.Millisecond
	// tailHeartbeat is how often a quiet stream says that it lives.
	tailHeartbeat = 15 * time.Second
)

// logService serves hodei.v1.LogService.
type logService struct {
	jobs *orchestrator.Orchestrator
	logs *logs.Service
}

func (s *logService) TailLogs(ctx context.Context, req *hodeiv1.TailLogsRequest, stream hodeiv1connect.LogServiceTailLogsServerStream) error {
	id, err := job.ParseID(req.GetJobId())
	if err != nil {
		return err
	}
	j, err := s.jobs.Get(ctx, id)
	if err != nil {
		return err
	}
	t := &tail{service: s, stream: stream, id: j.ID, spec: j.Spec, step: -1, kind: store.Stream(req.GetStream()), follow: req.GetFollow()}
	if req.GetStep() != "" {
		if t.step, err = j.StepIndex(req.GetStep()); err != nil {
			return err
		}
	}
	if t.attempt = req.GetCursor().GetAttempt(); t.attempt == 0 {
		t.attempt = max(j.Attempt, 1)
	}
	if offset := req.GetCursor().GetOffset(); offset != "" {
		if t.offset, err = strconv.ParseUint(offset, 10, 64); err != nil {
			return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "cursor.offset %q is not a decimal number", offset)
		}
	}
	return t.run(ctx)
}

// tail is one call of TailLogs.
type tail struct {
	service *logService
	stream  hodeiv1connect.LogServiceTailLogsServerStream
	id      job.ID
	spec    *job.Spec
	step    int          // -1: all
	kind    store.Stream // 0: both
	follow  bool
	attempt int32
	offset  uint64
	woken   bool      // the log may have grown or ended, and was not looked at since
	sent    time.Time // when the last answer went out
}

// run sends one attempt after the other, from where the caller wants to begin to the last one.
func (t *tail) run(ctx context.Context) error {
	for {
		state, message, err := t.runAttempt(ctx)
		if err != nil {
			return err
		}
		j, err := t.service.jobs.Get(ctx, t.id)
		if err != nil {
			return err
		}
		if j.Attempt > t.attempt {
			t.attempt, t.offset = t.attempt+1, 0
			continue
		}
		return t.send(nil, &hodeiv1.LogCompleteness{State: state, Message: message})
	}
}

// runAttempt sends the log of the present attempt, and when it is followed, stays until nothing more can come of it and
// the job has ended or gone on to another attempt.
func (t *tail) runAttempt(ctx context.Context) (hodeiv1.LogState, string, error) {
	reader, err := t.service.logs.Tail(ctx, store.LogRef{Job: t.id, Attempt: t.attempt}, t.offset)
	if err != nil {
		return 0, "", err
	}
	defer reader.Close()
	for {
		chunks, end, grown, err := reader.Read(ctx)
		if err != nil {
			return 0, "", err
		}
		t.offset = reader.Offset()
		if len(chunks) > 0 {
			t.woken = false
			if err := t.send(chunks, nil); err != nil {
				return 0, "", err
			}
			continue
		}
		if end != nil {
			return t.ended(ctx, end)
		}
		state, message, err := t.pause(ctx, grown)
		if err != nil || state != hodeiv1.LogState_LOG_STATE_UNSPECIFIED {
			return state, message, err
		}
	}
}

// pause waits until the log may have grown, and says how it stands when there is nothing to wait for.
func (t *tail) pause(ctx context.Context, grown <-chan struct{}) (hodeiv1.LogState, string, error) {
	if !t.follow {
		return t.standing(ctx)
	}
	timer := time.NewTimer(tailCheck)
	defer timer.Stop()
	if t.woken { // without new output, so the attempt may have ended without any
		t.woken = false
		timer.Reset(0)
	}
	select {
	case <-grown:
		t.woken = true
		return hodeiv1.LogState_LOG_STATE_UNSPECIFIED, "", nil
	case <-timer.C:
	case <-ctx.Done():
		return 0, "", ctx.Err()
	}
	state, message, err := t.standing(ctx)
	if err != nil || state != hodeiv1.LogState_LOG_STATE_LIVE {
		return state, message, err
	}
	if time.Since(t.sent) > tailHeartbeat {
		return hodeiv1.LogState_LOG_STATE_UNSPECIFIED, "", t.send(nil, nil)
	}
	return hodeiv1.LogState_LOG_STATE_UNSPECIFIED, "", nil
}

// standing says whether more can come of an attempt whose log has no end yet.
func (t *tail) standing(ctx context.Context) (hodeiv1.LogState, string, error) {
	j, err := t.service.jobs.Get(ctx, t.id)
	switch {
	case err != nil:
		return 0, "", err
	case j.Attempt < t.attempt && j.State.Terminal():
		return hodeiv1.LogState_LOG_STATE_COMPLETE, "", nil // there was no such attempt
	case j.Attempt == t.attempt && j.Silent:
		return hodeiv1.LogState_LOG_STATE_COMPLETE, "", nil // it wrote nothing
	case j.Attempt <= t.attempt && !j.State.Terminal():
		return hodeiv1.LogState_LOG_STATE_LIVE, "", nil
	}
	w, err := t.service.jobs.Worker(ctx, string(j.Worker))
	if err == nil && !w.Lost {
		return hodeiv1.LogState_LOG_STATE_LIVE, "", nil // its agent still has the rest
	}
	if err != nil && job.CodeOf(err) != job.CodeNotFound {
		return 0, "", err
	}
	return hodeiv1.LogState_LOG_STATE_GAP,
		fmt.Sprintf("bytes from %d on are missing, if there were any: worker %s was lost before it sent them", t.offset, j.Worker), nil
}

// ended waits, for a follower, until the end of the attempt is known as well as the end of its log.
func (t *tail) ended(ctx context.Context, end *store.LogEnd) (hodeiv1.LogState, string, error) {
	for t.follow {
		settled, err := t.service.jobs.AttemptSettled(ctx, t.id, t.attempt)
		if err != nil {
			return 0, "", err
		}
		if settled {
			break
		}
		if err := t.send(nil, nil); err != nil {
			return 0, "", err
		}
	}
	if end.Removed != "" && t.offset < end.Bytes {
		return hodeiv1.LogState_LOG_STATE_GAP, fmt.Sprintf("bytes %d-%d are gone: %s", t.offset, end.Bytes, end.Removed), nil
	}
	if end.Missing != "" {
		return hodeiv1.LogState_LOG_STATE_GAP, fmt.Sprintf("bytes from %d on are missing: %s", t.offset, end.Missing), nil
	}
	return hodeiv1.LogState_LOG_STATE_COMPLETE, "", nil
}

func (t *tail) send(chunks []logs.Chunk, completeness *hodeiv1.LogCompleteness) error {
	res := &hodeiv1.TailLogsResponse{
		Cursor:       &hodeiv1.LogCursor{Attempt: t.attempt, Offset: strconv.FormatUint(t.offset, 10)},
		Completeness: completeness,
	}
	for i := range chunks {
		c := &chunks[i]
		if (t.step >= 0 && int(c.Step) != t.step) || (t.kind != 0 && c.Stream != t.kind) {
			continue
		}
		name := ""
		if int(c.Step) < len(t.spec.Steps) {
			name = t.spec.Steps[c.Step].Name
		}
		res.Chunks = append(res.Chunks, &hodeiv1.LogChunk{
			Attempt: t.attempt, Step: name, Stream: hodeiv1.LogStream(c.Stream), Data: c.Data, Time: timestamppb.New(c.Time),
		})
	}
	t.sent = time.Now()
	return t.stream.Send(res)
}
