package agent

import (
	"errors"
	"time"

	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// diskRetry is how long output waits before it is written again to a disk that took it not, because it is full say.
const diskRetry = time.Second

// streamWriter takes the output of one stream of a step.
type streamWriter struct {
	attempt *attempt
	step    int32
	stream  hwpv1.LogStream
	warned  bool
}

// Write puts the bytes into the spool. It waits for as long as the spool, or the disk, has no room: the process waits with
// it, and nothing is lost.
func (w *streamWriter) Write(p []byte) (int, error) {
	for {
		err := w.attempt.spool.write(w.step, w.stream, p)
		if err == nil {
			w.attempt.agent.signal()
			return len(p), nil
		}
		if errors.Is(err, errDropped) {
			return 0, err
		}
		if !w.warned {
			w.warned = true
			w.attempt.agent.config.Logger.Error("output cannot be written and its process waits; free space on the disk",
				"job", w.attempt.ref.GetJobId(), "error", err)
		}
		time.Sleep(diskRetry)
	}
}

// shipper picks what output to send next: a piece of each attempt in turn, within the window that the server grants.
type shipper struct {
	slots  *slots
	window uint64
	next   int               // whose turn it is
	ended  map[*attempt]bool // whose LogEnd was sent in this session
}

// chunkBytes is how much one LogChunk carries at most.
const chunkBytes = 32 << 10

// collect appends output to a frame until it has limit bytes or nothing more may be sent.
func (s *shipper) collect(frame []*hwpv1.AgentMessage, limit int) []*hwpv1.AgentMessage {
	attempts := s.slots.all()
	var flying uint64
	for _, t := range attempts {
		if out := t.output(); out != nil {
			flying += out.unacknowledged()
		}
	}
	for idle := 0; idle < len(attempts) && limit > 0 && flying < s.window; {
		t := attempts[s.next%len(attempts)]
		s.next++
		message, size := s.piece(t)
		if message == nil {
			idle++
			continue
		}
		idle = 0
		frame = append(frame, message)
		flying += uint64(size)
		limit -= size
	}
	return s.collectEnds(frame, attempts)
}

// piece is the next LogChunk of an attempt.
func (s *shipper) piece(t *attempt) (*hwpv1.AgentMessage, int) {
	out := t.output()
	if out == nil {
		return nil, 0
	}
	r, offset, sequence := out.next(chunkBytes)
	if r == nil {
		return nil, 0
	}
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogChunk{LogChunk: &hwpv1.LogChunk{
		JobId: t.ref.GetJobId(), Attempt: t.ref.GetAttempt(), Epoch: t.ref.GetEpoch(),
		Step: r.key.step, Stream: r.key.stream, Timestamp: r.time, Data: r.data, Offset: offset, Sequence: sequence,
	}}}, len(r.data)
}

func (s *shipper) collectEnds(frame []*hwpv1.AgentMessage, attempts []*attempt) []*hwpv1.AgentMessage {
	for _, t := range attempts {
		out := t.output()
		if out == nil || s.ended[t] || t.logAcked.Load() {
			continue
		}
		if end := out.logEnd(); end != nil {
			end.Attempt = t.ref
			s.ended[t] = true
			frame = append(frame, &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogEnd{LogEnd: end}})
		}
	}
	return frame
}
