package logs

import (
	"context"
	"fmt"

	"github.com/hodei-jobs/hodei/service/job"
	"github.com/hodei-jobs/hodei/service/store"
)

const (
	readBytes   = 512 << 10 // the most that one read of a log returns
	storedBytes = 64 << 10  // what one read asks the store for; it is compressed
)

// State returns how far a log has come, and its end when it has one.
func (s *Service) State(ctx context.Context, ref store.LogRef) (store.LogState, error) {
	return s.store.LogState(ctx, ref)
}

// Close ends the log of an attempt whose agent will not send its end: the bytes that are stored are all there is. why is
// for readers. It returns when the end is durable; a log that has ended already stays as it is.
func (s *Service) Close(ctx context.Context, ref store.LogRef, why string) error {
	done := make(chan []Ack, 1)
	end := store.LogEnd{Ref: ref, Missing: why}
	if err := s.Append(&Append{Ends: []store.LogEnd{end}, Done: func(acks []Ack) { done <- acks }}); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Settled wakes the readers of a log: its attempt has ended, perhaps without any output.
func (s *Service) Settled(ref store.LogRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.heads[ref]; h != nil {
		h.wake()
	}
}

// Remove deletes the bytes of logs that have ended and keeps their ends, which say why from then on. It returns when that is
// durable, and readers are told. One log that has not ended makes it fail, and nothing is removed. A log that was removed
// before stays as it is.
func (s *Service) Remove(ctx context.Context, refs []store.LogRef, why string) error {
	if why == "" {
		return job.Errorf(job.CodeInvalid, job.ReasonInvalidArgument, "logs are removed without a reason; say why")
	}
	var ends []store.LogEnd
	for _, ref := range refs {
		state, err := s.store.LogState(ctx, ref)
		switch {
		case err != nil:
			return fmt.Errorf("removing the log of %s attempt %d: %w", ref.Job, ref.Attempt, err)
		case state.End == nil:
			return job.Errorf(job.CodePrecondition, job.ReasonInvalidArgument,
				"the log of %s attempt %d has not ended; it can be removed when it has", ref.Job, ref.Attempt)
		case state.End.Removed == "":
			end := *state.End
			end.Removed = why
			ends = append(ends, end)
		}
	}
	if err := s.store.RemoveLogs(ctx, ends); err != nil {
		return fmt.Errorf("removing %d logs: %w", len(ends), err)
	}
	for i := range ends {
		s.Settled(ends[i].Ref)
	}
	return nil
}

// Tail reads a log from a position on.
type Tail struct {
	service *Service
	ref     store.LogRef
	offset  uint64
	head    *head
}

// Tail opens a reader; Close must be called. Readers never hold up the writer.
func (s *Service) Tail(ctx context.Context, ref store.LogRef, offset uint64) (*Tail, error) {
	h, err := s.acquire(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("opening the log of %s attempt %d: %w", ref.Job, ref.Attempt, err)
	}
	return &Tail{service: s, ref: ref, offset: offset, head: h}, nil
}

// Close releases the reader.
func (t *Tail) Close() {
	t.service.mu.Lock()
	defer t.service.mu.Unlock()
	t.service.drop(t.ref, t.head)
}

// Offset is the position after what was read.
func (t *Tail) Offset() uint64 { return t.offset }

// Read returns what is stored from the reader's position on, a bounded piece of it, and moves on. When there is nothing it
// returns no chunks and how the log stands: its end, when it has ended or was removed, and else a channel that is closed when
// it may have grown.
func (t *Tail) Read(ctx context.Context) (chunks []Chunk, end *store.LogEnd, grown <-chan struct{}, err error) {
	t.service.mu.Lock()
	grown = t.head.grown // before the read, so that nothing that is stored after it goes unseen
	chunks, known := t.head.recent.from(t.offset)
	t.service.mu.Unlock()
	if n := len(chunks); n > 0 {
		t.offset = chunks[n-1].end()
		return chunks, nil, nil, nil
	}
	if known {
		return nil, nil, grown, nil
	}
	chunks, err = t.chunks(ctx)
	if err != nil || len(chunks) > 0 {
		return chunks, nil, nil, err
	}
	state, err := t.service.store.LogState(ctx, t.ref)
	if err != nil || state.End == nil || state.Bytes > t.offset {
		return nil, nil, grown, err
	}
	return nil, state.End, nil, nil
}

// chunks returns what is stored from the reader's position on, a bounded piece of it, and moves on.
func (t *Tail) chunks(ctx context.Context) ([]Chunk, error) {
	blocks, err := t.service.store.ReadLogs(ctx, t.ref, t.offset, storedBytes)
	if err != nil {
		return nil, err
	}
	var chunks []Chunk
	size := 0
	for i := range blocks {
		if size += int(blocks[i].Bytes); i > 0 && size > readBytes {
			break
		}
		more, err := t.service.codec.decode(&blocks[i])
		if len(chunks) == 0 && err != nil {
			return nil, err
		}
		if err != nil {
			return chunks, nil //nolint:nilerr // the next read begins with this block, and says so
		}
		for _, c := range more {
			end := c.end()
			if end <= t.offset {
				continue
			}
			if c.Offset < t.offset {
				c.Data, c.Offset = c.Data[t.offset-c.Offset:], t.offset
			}
			chunks = append(chunks, c)
			t.offset = end
		}
	}
	return chunks, nil
}
