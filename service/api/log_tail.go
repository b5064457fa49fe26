package api

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	hodeiv1 "github.com/hodei-jobs/hodei/gen/hodei/v1"
	"github.com/hodei-jobs/hodei/gen/hodei/v1/hodeiv1connect"
	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/logs"
	"github.com/hodei-jobs/hodei/service/store"
)

const (
	// tailCheck is how often a reader that waits for output looks whether its job still can write some.
	tailCheck = time.Second
	// tailHeartbeat is how often a quiet stream says that it lives.
	tailHeartbeat = 15 * time.Second
	// tailRest is how long a reader that does not follow waits for what an attempt that has ended wrote last, and its agent still has.
	tailRest = 5 * time.Second
)

// tail is one call of TailLogs.
type tail struct {
	service *logService
	stream  hodeiv1connect.LogServiceTailLogsServerStream
	id      job.ID
	spec    *job.Spec
	step    int          // -1: all
	kind    store.Stream // 0: both
	follow  bool
	until   time.Time // zero: to the end
	attempt int32
	offset  uint64
	gaps    []*hodeiv1.LogGap // of this attempt and those before it
	proof   []store.StreamTotal
	past    bool      // until has come
	resting bool      // the attempt has ended, and its agent still has the rest of the log
	patient time.Time // until when the rest is worth waiting for
	woken   bool      // the log, or its job, may have changed, and was not looked at since
	sent    time.Time // when the last answer went out
	timer   *time.Timer
}

// begin finds where the caller wants to begin in the attempt.
func (t *tail) begin(ctx context.Context, ref store.LogRef, req *hodeiv1.TailLogsRequest) (err error) {
	keeper, offset := t.service.logs, req.GetCursor().GetOffset()
	if offset != "" && req.GetBegin() != nil {
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "cursor.offset and begin both say where to begin; keep one")
	}
	switch begin := req.GetBegin().(type) {
	case *hodeiv1.TailLogsRequest_TailLines:
		t.offset, err = keeper.OffsetOfTail(ctx, ref, int(begin.TailLines), t.wants)
	case *hodeiv1.TailLogsRequest_Line:
		line, problem := strconv.ParseUint(begin.Line, 10, 63)
		if problem != nil || line == 0 {
			return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "line %q is not the number of a line, counted from 1", begin.Line)
		}
		t.offset, err = keeper.OffsetOfLine(ctx, ref, line-1)
	case *hodeiv1.TailLogsRequest_Since:
		t.offset, err = keeper.OffsetOfTime(ctx, ref, begin.Since.AsTime())
	default:
		if offset == "" {
			return nil
		}
		if t.offset, err = strconv.ParseUint(offset, 10, 64); err != nil {
			return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "cursor.offset %q is not a decimal number", offset)
		}
	}
	return err
}

// wants reports whether the caller wants a chunk.
func (t *tail) wants(c *logs.Chunk) bool {
	return (t.step < 0 || int(c.Step) == t.step) && (t.kind == 0 || c.Stream == t.kind)
}

// run sends one attempt after the other, from where the caller wants to begin to the last one.
func (t *tail) run(ctx context.Context) error {
	t.timer, t.patient = time.NewTimer(tailCheck), time.Now().Add(tailRest)
	defer t.timer.Stop()
	for {
		state, err := t.runAttempt(ctx)
		if err != nil {
			return err
		}
		j, err := t.service.jobs.Get(ctx, t.id)
		if err != nil {
			return err
		}
		if j.Attempt > t.attempt && !t.past {
			t.attempt, t.offset, t.proof = t.attempt+1, 0, nil
			continue
		}
		return t.send(nil, t.completeness(state))
	}
}

// runAttempt sends the log of the present attempt, and when it is followed, stays until nothing more can come of it and
// the job has ended or gone on to another attempt. It returns how the log stands, but for what is missing.
func (t *tail) runAttempt(ctx context.Context) (hodeiv1.LogState, error) {
	t.woken = true
	reader, err := t.service.logs.Tail(ctx, store.LogRef{Job: t.id, Attempt: t.attempt}, t.offset)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	for {
		chunks, end, grown, err := reader.Read(ctx)
		if err != nil {
			return 0, err
		}
		if chunks = t.before(chunks); t.past {
			return hodeiv1.LogState_LOG_STATE_COMPLETE, t.send(chunks, nil)
		}
		t.offset = reader.Offset()
		if len(chunks) > 0 {
			t.woken = false
			if err := t.send(chunks, nil); err != nil {
				return 0, err
			}
			continue
		}
		if end != nil {
			return t.ended(ctx, end)
		}
		state, err := t.pause(ctx, grown)
		if err != nil || state != hodeiv1.LogState_LOG_STATE_UNSPECIFIED {
			return state, err
		}
	}
}

// before returns those chunks that were written before until, and notes when others come.
func (t *tail) before(chunks []logs.Chunk) []logs.Chunk {
	if t.until.IsZero() {
		return chunks
	}
	for i := range chunks {
		if !chunks[i].Time.Before(t.until) {
			t.past, t.offset = true, chunks[i].Offset
			return chunks[:i]
		}
	}
	return chunks
}

// pause waits until the log may have grown, and says how it stands when there is nothing to wait for.
func (t *tail) pause(ctx context.Context, grown <-chan struct{}) (hodeiv1.LogState, error) {
	if !t.follow {
		if state, err := t.standing(ctx); err != nil || !t.resting || time.Now().After(t.patient) {
			return state, err
		}
	}
	wait := tailCheck
	if t.woken { // without new output, so the attempt may have ended without any
		t.woken, wait = false, 0
	}
	t.timer.Reset(wait)
	select {
	case <-grown:
		t.woken = true
		return hodeiv1.LogState_LOG_STATE_UNSPECIFIED, nil
	case <-t.timer.C:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	state, err := t.standing(ctx)
	if err != nil || state != hodeiv1.LogState_LOG_STATE_LIVE {
		return state, err
	}
	if time.Since(t.sent) > tailHeartbeat {
		return hodeiv1.LogState_LOG_STATE_UNSPECIFIED, t.send(nil, nil)
	}
	return hodeiv1.LogState_LOG_STATE_UNSPECIFIED, nil
}

// standing says whether more can come of an attempt whose log has no end yet, and notes what never will.
func (t *tail) standing(ctx context.Context) (hodeiv1.LogState, error) {
	t.resting = false
	j, err := t.service.jobs.Get(ctx, t.id)
	switch {
	case err != nil:
		return 0, err
	case j.Attempt < t.attempt && j.State.Terminal():
		return hodeiv1.LogState_LOG_STATE_COMPLETE, nil // there was no such attempt
	case j.Attempt == t.attempt && j.Silent:
		return hodeiv1.LogState_LOG_STATE_COMPLETE, nil // it wrote nothing
	case j.Attempt <= t.attempt && !j.State.Terminal():
		return hodeiv1.LogState_LOG_STATE_LIVE, nil
	}
	w, err := t.service.jobs.Worker(ctx, string(j.Worker))
	if err == nil && !w.Lost {
		t.resting = true
		return hodeiv1.LogState_LOG_STATE_LIVE, nil
	}
	if err != nil && job.CodeOf(err) != job.CodeNotFound {
		return 0, err
	}
	t.noteGap(t.offset, 0, fmt.Sprintf("worker %s was lost before it sent them, if there were any", j.Worker))
	return hodeiv1.LogState_LOG_STATE_COMPLETE, nil
}

// ended waits, for a follower, until the end of the attempt is known as well as the end of its log.
func (t *tail) ended(ctx context.Context, end *store.LogEnd) (hodeiv1.LogState, error) {
	for t.follow {
		settled, err := t.service.jobs.AttemptSettled(ctx, t.id, t.attempt)
		if err != nil {
			return 0, err
		}
		if settled {
			break
		}
		if err := t.send(nil, nil); err != nil {
			return 0, err
		}
	}
	t.noteEnd(end)
	return hodeiv1.LogState_LOG_STATE_COMPLETE, nil
}

// noteEnd takes in what the end of a log says.
func (t *tail) noteEnd(end *store.LogEnd) {
	t.proof = end.Streams
	if end.Removed != "" && t.offset < end.Bytes {
		t.noteGap(t.offset, end.Bytes, end.Removed)
	}
	if end.Missing != "" {
		t.noteGap(max(t.offset, end.Bytes), 0, end.Missing)
	}
}

// noteGap remembers bytes that the caller does not get; with end 0 it is not known how many there are.
func (t *tail) noteGap(begin, end uint64, reason string) {
	gap := &hodeiv1.LogGap{Attempt: t.attempt, Begin: decimal(begin), Reason: reason}
	if end > 0 {
		gap.End = decimal(end)
	}
	t.gaps = append(t.gaps, gap)
}

// completeness is what the caller is told at the end.
func (t *tail) completeness(state hodeiv1.LogState) *hodeiv1.LogCompleteness {
	c := &hodeiv1.LogCompleteness{State: state, Gaps: t.gaps}
	for i := range t.proof {
		total := &t.proof[i]
		c.Streams = append(c.Streams, &hodeiv1.LogStreamTotal{
			Step: stepName(t.spec, total.Step), Stream: hodeiv1.LogStream(total.Stream), Bytes: decimal(total.Bytes), Sha256: total.SHA256[:],
		})
	}
	if state != hodeiv1.LogState_LOG_STATE_COMPLETE || len(t.gaps) == 0 {
		return c
	}
	c.State = hodeiv1.LogState_LOG_STATE_GAP
	var texts []string
	for _, gap := range t.gaps {
		text := fmt.Sprintf("bytes from %s on of attempt %d are missing: %s", gap.GetBegin(), gap.GetAttempt(), gap.GetReason())
		if gap.GetEnd() != "" {
			text = fmt.Sprintf("bytes %s-%s of attempt %d are gone: %s", gap.GetBegin(), gap.GetEnd(), gap.GetAttempt(), gap.GetReason())
		}
		texts = append(texts, text)
	}
	c.Message = strings.Join(texts, "; ")
	return c
}

func (t *tail) send(chunks []logs.Chunk, completeness *hodeiv1.LogCompleteness) error {
	res := &hodeiv1.TailLogsResponse{
		Cursor:       &hodeiv1.LogCursor{Attempt: t.attempt, Offset: decimal(t.offset)},
		Completeness: completeness,
	}
	for i := range chunks {
		if c := &chunks[i]; t.wants(c) {
			res.Chunks = append(res.Chunks, &hodeiv1.LogChunk{
				Attempt: t.attempt, Step: stepName(t.spec, c.Step), Stream: hodeiv1.LogStream(c.Stream), Data: c.Data,
				Time: timestamppb.New(c.Time), Offset: decimal(c.Offset),
			})
		}
	}
	t.sent = time.Now()
	return t.stream.Send(res)
}
