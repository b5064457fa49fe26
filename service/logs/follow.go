package logs

import (
	"context"
	"fmt"

	"github.com/hodei-jobs/hodei/service/store"
)

// readBytes is how much one read of the store returns at most.
const readBytes = 512 << 10

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
		close(h.grown)
		h.grown = make(chan struct{})
	}
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
// returns no chunks and how the log stands: its end, when it has ended, and else a channel that is closed when it may have
// grown.
func (t *Tail) Read(ctx context.Context) (chunks []store.Chunk, end *store.LogEnd, grown <-chan struct{}, err error) {
	t.service.mu.Lock()
	grown = t.head.grown // before the read, so that nothing that is stored after it goes unseen
	t.service.mu.Unlock()
	chunks, err = t.service.store.ReadLogs(ctx, t.ref, t.offset, readBytes)
	if err != nil || len(chunks) > 0 {
		if n := len(chunks); n > 0 {
			t.offset = chunks[n-1].Offset + uint64(len(chunks[n-1].Data))
		}
		return chunks, nil, nil, err
	}
	state, err := t.service.store.LogState(ctx, t.ref)
	if err != nil || state.End == nil || state.Bytes > t.offset {
		return nil, nil, grown, err
	}
	return nil, state.End, nil, nil
}
