package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/hodei-jobs/hodei/service/bus"
	"github.com/hodei-jobs/hodei/service/job"
)

func jobs(ids ...string) []job.Job {
	out := make([]job.Job, len(ids))
	for i := range ids {
		out[i].ID = id(ids[i])
	}
	return out
}

func id(name string) (id job.ID) {
	copy(id[:], name)
	return id
}

func TestNextReturnsWhatIsNewInOrder(t *testing.T) {
	t.Parallel()
	b := bus.New(8)
	b.Publish(jobs("a", "b"))
	b.Publish(jobs("c"))
	events, err := b.Next(t.Context(), 1, nil)
	if err != nil || len(events) != 2 || events[0].Job.ID != id("b") || events[1].Job.ID != id("c") || events[1].Seq != 3 {
		t.Fatalf("Next(1) = %v, %v", events, err)
	}
}

func TestNextTellsAReaderThatFellBehind(t *testing.T) {
	t.Parallel()
	b := bus.New(4)
	for i := range 6 {
		b.Publish(jobs(fmt.Sprint(i)))
	}
	if _, err := b.Next(t.Context(), 1, nil); !errors.Is(err, bus.ErrLagged) {
		t.Fatalf("a reader at 1 of 6 in a ring of 4: %v, want ErrLagged", err)
	}
	if events, err := b.Next(t.Context(), 2, nil); err != nil || len(events) != 4 {
		t.Fatalf("a reader at 2 of 6 in a ring of 4 has everything it needs: %v, %v", events, err)
	}
	if _, err := b.Next(t.Context(), 7, nil); !errors.Is(err, bus.ErrLagged) {
		t.Fatalf("a reader from the future: %v, want ErrLagged", err)
	}
}

func TestNextWaitsAndObeysItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := bus.New(4)
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() { _, err := b.Next(ctx, 0, nil); result <- err }()
		synctest.Wait()
		select {
		case err := <-result:
			t.Fatalf("Next returned without an event: %v", err)
		default:
		}
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Fatalf("Next after cancel: %v", err)
		}
	})
}

func TestManyReadersSeeEverythingWhileOneStands(t *testing.T) {
	t.Parallel()
	const total, readers = 2000, 8
	b := bus.New(total)
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			var seen uint64
			for seen < total {
				events, err := b.Next(t.Context(), seen, nil)
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range events {
					if e.Seq != seen+1 {
						t.Errorf("after %d came %d", seen, e.Seq)
					}
					seen = e.Seq
				}
			}
		})
	}
	for i := range total {
		b.Publish(jobs(fmt.Sprint(i)))
	}
	group.Wait()
}

func TestEventsThatNobodyWantedAreMissed(t *testing.T) {
	t.Parallel()
	b := bus.New(8)
	if b.Wanted() {
		t.Error("events are wanted before anybody has joined")
	}
	b.Publish(jobs("a"))
	b.Skip(3)
	leave := b.Join()
	if !b.Wanted() || b.Last() != 4 {
		t.Errorf("wanted: %v, last: %d", b.Wanted(), b.Last())
	}
	if _, err := b.Next(t.Context(), 1, nil); !errors.Is(err, bus.ErrLagged) {
		t.Errorf("a reader from before got %v, want ErrLagged", err)
	}
	b.Publish(jobs("b"))
	if events, err := b.Next(t.Context(), 4, nil); err != nil || len(events) != 1 || events[0].Seq != 5 {
		t.Errorf("after the gap: %v, %v", events, err)
	}
	leave()
	leave()
	if !b.Wanted() {
		t.Error("a reader who has just left could not come back")
	}
	b.Publish(jobs("a", "b", "c", "d", "e", "f", "g", "h"))
	if b.Wanted() {
		t.Error("events are wanted long after everybody has left")
	}
}
