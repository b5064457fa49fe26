package logs

import (
	"context"
	"time"

	"github.com/hodei-jobs/hodei/service/store"
)

// What is written as it comes leaves many small blocks. Behind the writer they are sealed: neighbours become one block, which
// takes less space and is found sooner. Nobody waits for it, and a log that is not sealed is as good as one that is.

const (
	smallBytes = blockBytes / 2 // a block with less is small
	sealBlocks = 64             // so many new small blocks of a log are sealed, or as many as hold blockBytes
	sealQueue  = 4096           // so many logs may wait
	sealRest   = 4              // the sealer rests so many times as long as it worked: logs that grow alike come to it all at once
)

// small is what the writer knows of the small blocks of a log.
type small struct {
	blocks            int    // that were written; the last of them may have become one
	fresh, freshBytes int    // those since the log was last to be sealed
	sealed            uint64 // the blocks before it stay as they are
}

func (s *small) add(b *store.LogBlock) {
	switch {
	case b.Bytes < smallBytes:
		s.blocks++
		s.fresh++
		s.freshBytes += int(b.Bytes)
	case s.sealed == b.Offset:
		s.sealed = b.End()
	}
}

// sealing is the task to seal a log.
type sealing struct {
	ref      store.LogRef
	from, to uint64 // what is not sealed, and is durable
	ended    bool
}

// sealings are the logs that wait, each once.
type sealings struct {
	tasks map[store.LogRef]sealing
	order []store.LogRef
	ready chan struct{}
}

// add reports whether there was room.
func (q *sealings) add(task sealing) bool {
	if _, ok := q.tasks[task.ref]; !ok {
		if len(q.order) >= sealQueue {
			return false
		}
		q.order = append(q.order, task.ref)
	}
	q.tasks[task.ref] = task
	select {
	case q.ready <- struct{}{}:
	default:
	}
	return true
}

func (q *sealings) next() (sealing, bool) {
	if len(q.order) == 0 {
		return sealing{}, false
	}
	task := q.tasks[q.order[0]]
	delete(q.tasks, task.ref)
	q.order = q.order[1:]
	return task, true
}

// written notes what a commit has written to a log and has it sealed when it is time to; the caller holds the lock. A log for
// which there is no room asks again after the next commit.
func (s *Service) written(ref store.LogRef, h *head) {
	w := &h.small
	if w.fresh < sealBlocks && w.freshBytes < blockBytes && (!h.ended || w.blocks < 2) {
		return
	}
	if s.unsealed.add(sealing{ref: ref, from: w.sealed, to: h.bytes, ended: h.ended}) {
		w.fresh, w.freshBytes = 0, 0
		if h.ended {
			w.blocks = 0 // once is enough
		}
	}
}

// sealAll seals logs until the context ends. What waits then stays as it is.
func (s *Service) sealAll(ctx context.Context) {
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.unsealed.ready:
		}
		for begin := time.Now(); ctx.Err() == nil && s.sealNext(ctx); begin = time.Now() {
			rest.Reset(sealRest * time.Since(begin))
			select {
			case <-ctx.Done():
				return
			case <-rest.C:
			}
		}
	}
}

// sealNext seals the log that has waited for longest, and reports whether there was one.
func (s *Service) sealNext(ctx context.Context) bool {
	s.mu.Lock()
	task, ok := s.unsealed.next()
	s.mu.Unlock()
	if !ok {
		return false
	}
	sealed, err := s.seal(ctx, task)
	if err != nil && ctx.Err() == nil {
		s.logger.Warn("small pieces of a log could not be put together, and stay as they are",
			"job", task.ref.Job, "attempt", task.ref.Attempt, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.heads[task.ref]; h != nil {
		h.small.sealed = max(h.small.sealed, sealed)
	}
	return true
}

// seal puts neighbours together, from where the log is sealed on, as long as they fit into one block. It returns the offset
// before which nothing is left to do. What does not fill a block yet is put together in a way that moves no byte often.
func (s *Service) seal(ctx context.Context, task sealing) (sealed uint64, err error) {
	sealed = task.from
	var run []store.LogBlock // neighbours that fit into one block
	size := 0
	for at := task.from; at < task.to; {
		blocks, err := s.store.ReadLogs(ctx, task.ref, at, storedBytes)
		if err != nil || len(blocks) == 0 {
			return sealed, err
		}
		for _, b := range blocks {
			if b.Offset != at {
				return sealed, nil // another server has taken over, and does this now
			}
			if at = b.End(); at > task.to { // whether it is durable is not known yet
				break
			}
			if size+int(b.Bytes) > blockBytes {
				if err := s.merge(ctx, run); err != nil {
					return sealed, err
				}
				run, size, sealed = run[:0], 0, b.Offset
			}
			run = append(run, b)
			size += int(b.Bytes)
		}
	}
	for !task.ended && len(run) > 1 && 2*int(run[0].Bytes) > size {
		size -= int(run[0].Bytes)
		run = run[1:]
	}
	return sealed, s.merge(ctx, run)
}

// merge makes one block of some, or a few when they have too many segments for one.
func (s *Service) merge(ctx context.Context, run []store.LogBlock) error {
	var merged []store.LogBlock
	for len(run) > 1 {
		var chunks []Chunk
		n := 0
		for ; n < len(run); n++ {
			more, err := s.codec.decode(&run[n])
			if err != nil {
				return err
			}
			if len(chunks)+len(more) > maxSegments {
				break
			}
			chunks = append(chunks, more...)
		}
		if n > 1 {
			b, err := s.codec.encode(chunks, &position{run[0].Line, run[0].Time})
			if err != nil {
				return err
			}
			merged = append(merged, b)
		}
		run = run[n:]
	}
	if len(merged) == 0 {
		return nil
	}
	return s.store.MergeLogs(ctx, merged)
}
