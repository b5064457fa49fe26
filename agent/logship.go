package agent

import (
	"errors"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/hodei-jobs/hodei/agent/mask"
	hwpv1 "github.com/hodei-jobs/hodei/gen/hwp/v1"
)

// diskRetry is how long output waits before it is written again to a disk that took it not, because it is full say.
const diskRetry = time.Second

// streamWriter takes the output of one stream of a step: secrets are replaced, and what is left of it goes to the spool.
type streamWriter struct {
	attempt *attempt
	step    int32
	stream  hwpv1.LogStream
	masked  *mask.Stream // made with the first byte
	warned  bool
}

// Write puts the bytes into the spool, but for the beginning of what may become a secret. It waits for as long as the spool, or
// the disk, has no room: the process waits with it, and nothing is lost.
func (w *streamWriter) Write(p []byte) (int, error) {
	if w.masked == nil {
		w.masked = w.attempt.masks.Stream()
	}
	return len(p), w.spool(w.masked.Write(p))
}

// end writes what was held back; the stream has ended.
func (w *streamWriter) end() {
	if w != nil && w.masked != nil {
		_ = w.spool(w.masked.End()) // nobody wants it, if it fails
	}
}

// spool returns errDropped, or nil when the bytes are in the spool.
func (w *streamWriter) spool(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	for {
		err := w.attempt.openOutput().write(w.step, w.stream, p)
		if err == nil || errors.Is(err, errDropped) {
			return err
		}
		if !w.warned {
			w.warned = true
			w.attempt.agent.config.Logger.Error("output cannot be written and its process waits; free space on the disk",
				"job", w.attempt.ref.GetJobId(), "error", err)
		}
		time.Sleep(diskRetry)
	}
}

// readySet holds attempts that may have output to send, in the order in which they got some.
type readySet struct {
	mu    sync.Mutex
	in    map[*attempt]bool
	queue []*attempt
}

func (r *readySet) add(t *attempt) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in == nil {
		r.in = make(map[*attempt]bool)
	}
	if !r.in[t] {
		r.in[t] = true
		r.queue = append(r.queue, t)
	}
}

// takeAll empties the set. What gets output from now on is added anew, so nothing is missed.
func (r *readySet) takeAll() []*attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.queue
	r.queue = nil
	clear(r.in)
	return all
}

// shipper picks what output to send next: a piece of each attempt in turn, within the window that the server grants.
type shipper struct {
	slots  *slots
	window int64
}

// chunkBytes is how much one LogChunk carries at most.
const chunkBytes = 32 << 10

// collect appends output to a frame until it has limit bytes or nothing more may be sent.
func (s *shipper) collect(frame []*hwpv1.AgentMessage, limit int) []*hwpv1.AgentMessage {
	turn := s.slots.ready.takeAll()
	for len(turn) > 0 && limit > 0 && len(frame) < frameMessages && s.slots.flying.Load() < s.window {
		t := turn[0]
		turn = turn[1:]
		message, size := s.piece(t)
		switch {
		case message != nil:
			turn = append(turn, t) // its next turn is after everybody else's
			limit -= size
		default:
			if message = s.end(t); message == nil {
				continue
			}
		}
		frame = append(frame, message)
	}
	for _, t := range turn {
		s.slots.ready.add(t)
	}
	return frame
}

// piece is the next LogChunk of an attempt, nil when everything was sent.
func (s *shipper) piece(t *attempt) (*hwpv1.AgentMessage, int) {
	out := t.output()
	if out == nil {
		return nil, 0
	}
	r, offset, sequence := out.next(chunkBytes)
	if r == nil {
		return nil, 0
	}
	data, encoding := compressed(r.data)
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogChunk{LogChunk: &hwpv1.LogChunk{
		JobId: t.ref.GetJobId(), Attempt: t.ref.GetAttempt(), Epoch: t.ref.GetEpoch(),
		Step: r.key.step, Stream: r.key.stream, Timestamp: r.time, Data: data, Encoding: encoding, Offset: offset, Sequence: sequence,
	}}}, len(data)
}

// minCompressed is the size from which on compressing is tried.
const minCompressed = 512

// compressor is for chunks, so it looks no further back than they are long.
var compressor = sync.OnceValue(func() *zstd.Encoder {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(chunkBytes), zstd.WithEncoderCRC(false))
	if err != nil {
		panic(err) //nolint:forbidigo // the options are constants
	}
	return encoder
})

// compressed returns data as it is sent: compressed, where that makes it shorter by an eighth at least.
func compressed(data []byte) ([]byte, hwpv1.LogEncoding) {
	if len(data) >= minCompressed {
		if short := compressor().EncodeAll(data, make([]byte, 0, len(data)/2)); len(short) <= len(data)-len(data)/8 {
			return short, hwpv1.LogEncoding_LOG_ENCODING_ZSTD
		}
	}
	return data, hwpv1.LogEncoding_LOG_ENCODING_UNSPECIFIED
}

// end is the LogEnd of an attempt, once in a session and only when everything before it was sent.
func (s *shipper) end(t *attempt) *hwpv1.AgentMessage {
	out := t.output()
	if out == nil || t.logAcked.Load() || t.endSent.Load() == s {
		return nil
	}
	end := out.logEnd()
	if end == nil {
		return nil
	}
	end.Attempt = t.ref
	t.endSent.Store(s)
	return &hwpv1.AgentMessage{Payload: &hwpv1.AgentMessage_LogEnd{LogEnd: end}}
}
